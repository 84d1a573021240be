"""Images of every mode and format are read as Pillow reads them, upright, and in one way wherever they lie."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ofa.data import Augmentation, EncodedImages, ImageData, ImageRule, load_data
from ofa.data.opening import UnreadableError, formats, open_image
from ofa.data.reading import Bytes, Content, input_of, picture_of, pixels_of
from ofa.errors import DataError
from tests.ofa.data.pictures import encoded, picture, write_classes

MODE_OF = {1: "L", 3: "RGB", 4: "RGBA"}


def read(content: Content, channels: int = 3) -> Bytes:
    return pixels_of(picture_of(content, ImageRule(channels=channels, integer_white=65535, float_white=1.0)))


def by_pillow(image: Image.Image, channels: int) -> Bytes:
    array = np.asarray(image.convert(MODE_OF[channels]))
    return array[:, :, None] if array.ndim == 2 else array


def in_mode(mode: str) -> Image.Image:
    image = picture()
    if mode in ("LA", "RGBA", "PA"):
        image = image.convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    if mode in ("La", "RGBa"):
        return in_mode("LA" if mode == "La" else "RGBA").convert(mode)
    return image.convert(mode)


# -- every mode and format --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", MODE_OF)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa"])
def test_an_image_of_any_mode_is_converted_as_by_pillow(mode: str, channels: int) -> None:
    image = in_mode(mode)
    before = image.copy()
    straight = {"La": "LA", "RGBa": "RGBA", "LAB": "RGB"}.get(mode)
    expected = by_pillow(image.convert(straight) if straight else image, channels)
    np.testing.assert_array_equal(read(image, channels), expected)
    assert image.mode == before.mode
    assert image.tobytes() == before.tobytes()


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 250, 25))])
@pytest.mark.parametrize("channels", MODE_OF)
def test_palettes_with_transparent_colours_are_read_without_a_warning(transparency: int | bytes, channels: int) -> None:
    data = encoded(picture().quantize(12), transparency=transparency)
    expected = by_pillow(Image.open(io.BytesIO(data)).convert("RGBA"), channels)
    assert (expected[..., 3].min() < 255) if channels == 4 else True
    difference = np.abs(read(data, channels).astype(int) - expected)
    assert difference.max() <= (1 if channels == 1 else 0)  # grey straight from the palette is rounded once less


SAVED_AS = {"1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "PNG", "RGBA": "PNG", "CMYK": "TIFF", "YCbCr": "TIFF", "LAB": "TIFF"}


@pytest.mark.parametrize("kind", sorted(set(Image.SAVE) & set(formats()) | {"MPO"}))
def test_every_format_that_pillow_writes_is_read_as_by_pillow(kind: str) -> None:
    tried = 0
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"):
        try:
            data = encoded(in_mode(mode).resize((16, 16), Image.Resampling.NEAREST), kind)
        except (OSError, ValueError, KeyError):
            continue  # a mode that this format does not have
        tried += 1
        opened = Image.open(io.BytesIO(data))
        if "transparency" in opened.info:
            opened = opened.convert("RGBA")
        expected = by_pillow(opened.convert("RGB") if opened.mode == "LAB" else opened, 3)
        np.testing.assert_array_equal(read(data), expected, err_msg=f"{kind} {mode}")
    assert tried or kind in ("PALM", "SPIDER")


def test_a_film_shows_its_first_picture() -> None:
    frames = [picture(seed=seed) for seed in range(3)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG", "AVIF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(read(data), by_pillow(Image.open(io.BytesIO(data)), 3), err_msg=kind)


def test_no_format_that_starts_another_program_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", forbidden)
    data = encoded(picture(), "EPS")
    with pytest.raises(UnreadableError, match="PostScript is not read"):
        read(data)
    assert "EPS" not in formats()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"no picture at all", "no content of an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC here: convert it to JPEG, or install pillow-heif"),
        (encoded(picture((200, 200)), "JPEG")[:-400], "truncated"),
        (encoded(picture())[:-60], "OSError|SyntaxError|truncated"),
    ],
)
def test_an_image_that_cannot_be_read_has_a_reason(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "TGA", "PPM", "QOI", "ICO", "AVIF"])
def test_damage_of_any_kind_is_unreadable_and_nothing_else(kind: str) -> None:
    whole, rng = encoded(picture((32, 32)), kind), np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole[: rng.integers(4, len(whole) + 1)])
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        with suppress(UnreadableError):
            read(bytes(data))


# -- upright ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("resolution", [0, 4])
def test_photos_are_turned_as_their_camera_was_held(kind: str, orientation: int, resolution: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture((160, 120)), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    if not resolution:
        np.testing.assert_array_equal(read(data), np.asarray(upright))
        return
    left, top = ((side - min(upright.size)) // 2 for side in upright.size)
    expected = upright.resize((4, 4), Image.Resampling.BILINEAR, box=(left, top, left + 120, top + 120))
    assert np.abs(input_of(data, ImageRule(), 4).astype(int) - np.asarray(expected)).max() <= 3


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientations_turn_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    data = encoded(picture(), "PNG", exif=exif)
    assert read(data).shape == (18, 24, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning", "ignore:Truncated File Read:UserWarning")
@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\xff", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_block_of_exif_leaves_its_image_readable(kind: str, block: bytes) -> None:
    data = encoded(picture(), kind, exif=block)
    np.testing.assert_array_equal(read(data), by_pillow(Image.open(io.BytesIO(data)), 3))


# -- more than eight bits ---------------------------------------------------------------------------------------------

LEVELS = np.linspace(0, 255, 18 * 24).round().astype(np.uint8).reshape(18, 24)


@pytest.mark.parametrize("channels", MODE_OF)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_keep_their_picture(kind: str, channels: int) -> None:
    data = encoded(Image.fromarray(LEVELS.astype(np.uint16) * 257), kind)
    np.testing.assert_array_equal(read(data, channels)[..., 0], LEVELS)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_the_order_of_bytes_does_not_matter(mode: str) -> None:
    values = (LEVELS.astype(np.uint16) * 257).astype(">u2" if mode.endswith("B") else "<u2")
    image = Image.frombytes(mode, (24, 18), values.tobytes())
    np.testing.assert_array_equal(read(image)[..., 0], LEVELS)
    np.testing.assert_array_equal(read(values)[..., 0], LEVELS)


def folder_of(root: Path, arrays: list[np.ndarray], kind: str = "tiff") -> Path:
    files = {f"{number}.{kind}": encoded(Image.fromarray(array), kind.upper()) for number, array in enumerate(arrays)}
    return write_classes(root, files)


@pytest.mark.parametrize(
    ("top", "kind", "white"),
    [
        (200, np.int32, 255),
        (4095, np.int32, 65535),
        (70_000, np.int32, 2**24 - 1),
        (2**30, np.int32, 2**31 - 1),
        (0.9, np.float32, 1),
        (1.5, np.float32, 255),
        (300.0, np.float32, 65535),
    ],
)
@pytest.mark.parametrize("memory", [2**30, 1])
def test_white_is_found_over_a_set_and_kept_in_its_rule(top: float, kind: type, white: float, memory: int, tmp_path: Path) -> None:
    brightest = (LEVELS / 255 * top).astype(kind)
    data = load_data(str(folder_of(tmp_path / "x", [brightest, (brightest / 2).astype(kind)])), memory=memory)
    assert isinstance(data, ImageData if memory > 1 else EncodedImages)
    found = data.rule.integer_white if kind is np.int32 else data.rule.float_white
    assert found == white
    x = data.read(torch.tensor([0, 1]), 18).x_BCHW
    assert float(x[0].max()) == pytest.approx(brightest[:, 3:21].max() / white * 255, abs=1)
    assert ImageRule.from_text(str(data.rule)) == data.rule
    again = load_data(str(folder_of(tmp_path / "y", [(brightest / 2).astype(kind)])), memory=memory, rule=data.rule)
    assert torch.equal(again.read(torch.tensor([0]), 18).x_BCHW[0], x[1])


def test_values_that_are_no_brightness_are_unreadable(tmp_path: Path) -> None:
    good = (LEVELS / 255).astype(np.float32)
    arrays = [good, good - 0.5, np.where(good > 0.5, np.nan, good), good + np.float32(np.inf), good * 1e6]
    data = load_data(str(folder_of(tmp_path, arrays)), unreadable="skip")
    assert len(data) == 2
    reasons = [each.reason for each in data.left_out[:4]]
    for reason, words in zip(reasons, ("negative values, down to -0.5", "not finite", "not finite", "above 65535"), strict=True):
        assert words in reason
    darker = ImageRule(float_white=0.5)
    with pytest.raises(DataError, match=r"has values up to 1, but white is 0\.5"):
        load_data(str(folder_of(tmp_path / "later", [good])), rule=darker)


def test_twelve_bits_of_a_tiff_are_read_by_their_own_white() -> None:
    image = open_image(encoded(Image.fromarray(LEVELS.astype(np.uint16) * 16), "TIFF", tiffinfo={}))
    image.load()
    image.tag_v2._tags_v2[258] = (12,)  # Pillow writes no such file
    assert read(image).max() == pytest.approx(255 * 255 * 16 / 4095, abs=1)


# -- channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("memory", [2**30, 1])
def test_sets_have_the_channels_that_are_asked_for(channels: int, memory: int, tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(in_mode(mode)) for number, mode in enumerate(("L", "RGB", "RGBA", "P"))}
    data = load_data(str(write_classes(tmp_path, files)), channels=channels, memory=memory)
    assert data.rule.channels == channels
    assert data.read(torch.arange(8), 12).x_BCHW.shape == (8, channels, 12, 12)
    assert len(data.normalization[0]) == channels


@pytest.mark.parametrize("memory", [2**30, 1])
def test_the_alpha_of_opaque_images_takes_no_part_in_normalization(memory: int, tmp_path: Path) -> None:
    data = load_data(
        str(write_classes(tmp_path, {"0.png": encoded(picture()), "1.png": encoded(picture(seed=1))})), channels=4, memory=memory
    )
    assert data.normalization[0][3] == 1
    assert data.normalization[1][3] == 1
    assert load_data("digits", channels=4).normalization[1][3] == 1
    assert torch.equal(load_data("digits", channels=1).keys, load_data("digits").keys)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_arrays_have_any_number_of_channels(channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 9, channels)).astype(np.uint8)
    np.testing.assert_array_equal(read(array, channels), array)
    if channels in MODE_OF:
        with pytest.raises(DataError, match=rf"the 5 channels that the networks read, but one has {channels}"):
            read(array, 5)
    else:
        with pytest.raises(DataError, match=rf"the 3 channels that the networks read, but one has {channels}.* space of {channels}"):
            read(array, 3)
    with pytest.raises(DataError, match="the 2 channels that the networks read, but one has 3"):
        read(encoded(picture()), 2)


# -- in memory and streamed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("resolution", [18, 7, 30])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_in_memory_and_streamed_ones_read_the_same(fit: str, resolution: int, kind: str, tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(picture(seed=number), kind) for number in range(4)}
    rule = ImageRule(fit=fit)  # type: ignore[arg-type]
    here, there = (load_data(str(write_classes(tmp_path / str(memory), files)), rule=rule, memory=memory) for memory in (2**30, 1))
    assert isinstance(here, ImageData)
    assert isinstance(there, EncodedImages)
    index = torch.arange(8)
    difference = (here.read(index, resolution).x_BCHW - there.read(index, resolution).x_BCHW).abs()
    assert float(difference.max()) <= (0 if resolution == 18 and fit == "crop" else 1)
    assert torch.equal(here.keys, there.keys)


@pytest.mark.parametrize("channels", [1, 4])
def test_alpha_is_resized_like_the_colours(channels: int, tmp_path: Path) -> None:
    files = {"0.png": encoded(in_mode("RGBA")), "1.png": encoded(in_mode("LA"))}
    here, there = (load_data(str(write_classes(tmp_path / str(m), files)), channels=channels, memory=m) for m in (2**30, 1))
    difference = (here.read(torch.arange(4), 9).x_BCHW - there.read(torch.arange(4), 9).x_BCHW).abs()
    assert float(difference.max()) <= 1


@pytest.mark.parametrize("memory", [2**30, 1])
def test_random_crops_lie_anywhere_in_the_upright_image(memory: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = Image.fromarray(np.tile(np.arange(240, dtype=np.uint8), (180, 1)))  # dark on the left, and so above when it is upright
    data = load_data(str(write_classes(tmp_path, {"0.png": encoded(ramp, exif=exif)})), memory=memory)
    augmentation = Augmentation(crop_scale=0.1)
    boxes = augmentation.boxes(2, torch.Generator().manual_seed(5))
    assert boxes is not None
    x = data.read(torch.arange(2), 16, augmentation, torch.Generator().manual_seed(5)).x_BCHW
    middle_B2, _ = boxes.within((1.0, 180 / 240))  # a square input shows 180 of 240 rows
    torch.testing.assert_close(x.mean((1, 2, 3)), middle_B2[:, 1] * 240 - 0.5, atol=1.5, rtol=0)


@pytest.mark.parametrize("resolution", [20, 48])
def test_jpegs_that_are_decoded_smaller_differ_by_less_than_a_level(resolution: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(np.asarray(picture((640, 480), seed)) + rng.normal(0, 12, (480, 640, 3)), 0, 255).astype(np.uint8) for seed in range(2)
    ]
    files = {f"{number}.jpg": encoded(Image.fromarray(array), "JPEG", quality=90) for number, array in enumerate(noisy)}
    here, there = (load_data(str(write_classes(tmp_path / str(memory), files)), memory=memory) for memory in (2**30, 1))
    difference = (here.read(torch.arange(4), resolution).x_BCHW - there.read(torch.arange(4), resolution).x_BCHW).abs()
    assert float(difference.mean()) < 1
    assert float(difference.max()) < 6


def test_a_photo_is_cut_in_the_same_way_whatever_its_neighbours_are(tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(picture((64, 48), number)) for number in range(3)}
    alike = load_data(str(write_classes(tmp_path / "alike", files)))
    mixed = load_data(str(write_classes(tmp_path / "mixed", {**files, "z.png": encoded(picture((63, 48)))})))
    assert isinstance(alike, ImageData)
    assert isinstance(mixed, EncodedImages)
    assert torch.equal(alike.read(torch.arange(3), 48).x_BCHW, mixed.read(torch.arange(3), 48).x_BCHW)


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_a_rule_is_read_back() -> None:
    rule = ImageRule(channels=4, fit="stretch", integer_white=65535, float_white=1.0)
    assert ImageRule.from_json(rule.to_json()) == rule
    assert ImageRule.from_text(str(rule)) == rule
    assert rule.to_json() == {"channels": 4, "fit": "stretch", "integer_white": 65535, "float_white": 1.0}
    assert ImageRule.from_json({}) == ImageRule()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"channels": 0}, "at least 1 channel"),
        ({"channels": "3"}, "at least 1 channel"),
        ({"fit": "pad"}, "crop or stretch, but is 'pad'"),
        ({"float_white": -1}, "float_white must be a value above 0"),
        ({"integer_white": True}, "integer_white must be a value above 0"),
        ({"colour": 1}, "must have keys of channels, fit"),
        ([3], "must have keys of"),
    ],
)
def test_impossible_rules_are_refused(value: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ImageRule.from_json(value)


def test_text_that_is_no_rule_is_refused() -> None:
    with pytest.raises(DataError, match="must be JSON"):
        ImageRule.from_text("channels: 3")
