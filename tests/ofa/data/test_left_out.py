"""Every file is read, or counted and named with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.data import EncodedImages, ImageData, LeftOut, left_out_sentences, load_data, scan_data
from ofa.data.left_out import LeftOutKind
from ofa.errors import DataError
from tests.ofa.data.pictures import encoded, picture, write_classes


def names(left_out: tuple[LeftOut, ...], kind: LeftOutKind) -> list[str]:
    return sorted(Path(each.name).name for each in left_out if each.kind == kind)


def two(root: Path, size: tuple[int, int] = (24, 18)) -> Path:
    return write_classes(root, {"0.png": encoded(picture(size)), "1.jpg": encoded(picture(size, 1), "JPEG")})


def test_images_are_known_by_their_content_and_not_by_their_ending(tmp_path: Path) -> None:
    root = two(tmp_path / "x")
    kinds = ("GIF", "JPEG", "AVIF", "PPM", "TGA", "JPEG2000", "WEBP", "BMP", "TIFF", "ICO")
    for number, (kind, ending) in enumerate(
        zip(kinds, (".gif", ".jfif", "", ".pgm", ".tga", ".jp2", ".dat", ".txt", ".png", ".7"), strict=True)
    ):
        (root / "a" / f"more{number}{ending}").write_bytes(encoded(picture((16, 16)), kind))
    data = load_data(str(root))
    assert len(data) == 4 + len(kinds)
    assert data.left_out == data.skipped == ()


def test_what_is_no_image_is_counted_and_never_refused(tmp_path: Path) -> None:
    root = two(tmp_path / "x")
    for file, content in {
        "notes.txt": b"cats",
        "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(600),
        "labels.csv": b"a,b\n1,2\n",
        "empty": b"",
    }.items():
        (root / "a" / file).write_bytes(content)
    os.mkfifo(root / "a" / "pipe")
    data = load_data(str(root))
    assert len(data) == 4
    assert data.skipped == ()
    assert names(data.left_out, "no image") == ["Thumbs.db", "empty", "labels.csv", "notes.txt", "pipe"]


def test_hidden_files_and_folders_are_counted(tmp_path: Path) -> None:
    root = two(tmp_path / "x")
    png = encoded(picture())
    for place in (
        "a/._0.png",
        "a/.ipynb_checkpoints/0-checkpoint.png",
        "b/__MACOSX/deep/0.png",
        ".git/config",
        "__MACOSX/a/0.png",
        ".DS_Store",
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(png)
    data = load_data(str(root))
    assert data.class_names == ("a", "b")
    assert len(data) == 4
    assert names(data.left_out, "hidden") == sorted(["._0.png", "0-checkpoint.png", "0.png", "config", "0.png", ".DS_Store"])


def test_images_beside_the_classes_are_named(tmp_path: Path) -> None:
    root = two(tmp_path / "x")
    (root / "forgotten.jpg").write_bytes(encoded(picture(), "JPEG"))
    (root / "README.md").write_text("# Photos")
    data = load_data(str(root))
    assert names(data.left_out, "no class") == ["forgotten.jpg"]
    assert names(data.left_out, "no image") == ["README.md"]
    assert "beside the folders of the classes" in data.left_out[1].reason


@pytest.mark.parametrize("memory", [2**30, 1])
def test_every_unreadable_image_is_found_before_training_and_has_a_reason(memory: int, tmp_path: Path) -> None:
    root = two(tmp_path / "x", (200, 150))
    whole = encoded(picture((200, 150), 3), "JPEG")
    (root / "a" / "cut.jpg").write_bytes(whole[:-300])
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "b" / "zero.png").write_bytes(b"")
    (root / "b" / "script.png").write_bytes(encoded(picture(), "EPS"))
    (root / "b" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(
        DataError, match=r"5 of 9 are not: .*cut\.jpg \(.*truncated.*\), .*gone\.png \(.*\), .* \.\.\. \(5 in all\); remove"
    ):
        load_data(str(root), memory=memory)
    data = load_data(str(root), memory=memory, unreadable="skip")
    assert isinstance(data, ImageData if memory > 1 else EncodedImages)
    reasons = {Path(each.name).name: each.reason for each in data.left_out}
    assert set(reasons) == {"cut.jpg", "gone.png", "zero.png", "script.png", "phone.HEIC"}
    assert reasons["gone.png"] == "is a link to a file that does not exist"
    assert reasons["zero.png"] == "is empty"
    assert "heif" in reasons["phone.HEIC"]
    assert len(data) == len(data.labels) == len(data.keys) == 4
    assert len(data.skipped) == 5
    assert data.read(torch.arange(4), 8).x_BCHW.shape == (4, 3, 8, 8)


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    root = two(tmp_path / "x")
    (root / "a" / "again").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "c").symlink_to(two(tmp_path / "y") / "a")
    (root / "b" / "2.png").symlink_to(root / "a" / "0.png")
    data = load_data(str(root))
    assert data.class_names == ("a", "b", "c")
    assert int((data.labels == 2).sum()) == 2
    assert int((data.labels == 1).sum()) == 3
    assert torch.equal(data.keys[0], data.keys[data.labels == 1][2])


def test_what_is_found_does_not_depend_on_the_order_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{number:03}.png": encoded(picture((20 + number % 3, 20), number)) for number in range(80)}
    root = write_classes(tmp_path / "x", files)
    told: list[tuple[int, int]] = []
    many = scan_data(str(root), progress=lambda done, total, _: told.append((done, total)))
    monkeypatch.setattr("ofa.data.scan._threads", lambda: 1)
    alone = scan_data(str(root))
    assert many.facts == alone.facts
    assert torch.equal(many.keys, alone.keys)
    assert told[-1] == (160, 160)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_scan_knows_the_size_mode_and_format_of_every_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture((24, 18)), "JPEG", exif=exif)
    sixteen = encoded(Image.fromarray(np.full((9, 7), 300, np.uint16)))
    scan = scan_data(str(write_classes(tmp_path / "x", {"0.jpg": data, "1.png": sixteen, "2.txt": b"text"})))
    first, second = scan.facts[:2]
    assert (first.width, first.height, first.mode, first.format, first.bytes) == (18, 24, "RGB", "JPEG", len(data))
    assert (second.width, second.height, second.mode, second.format) == (7, 9, "I;16", "PNG")
    assert first.key == scan.facts[2].key == scan.keys[0].numpy().tobytes()
    assert names(scan.left_out, "no image") == ["2.txt", "2.txt"]
    assert len(scan_data("digits").facts) == 1797
    assert len(scan.images()) == 4


def test_known_images_are_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path / "x", {f"{number}.png": encoded(picture((20 + number, 20), number)) for number in range(5)})
    first = scan_data(str(root), memory=1)
    known = {each.key for each in first.facts[:5]}  # each content is there twice
    decoded: list[str] = []
    load = Image.Image.load
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: (decoded.append(self.format), load(self))[1])
    again = scan_data(str(root), memory=1, known=known)
    assert decoded == []
    assert [each.key for each in again.facts] == [each.key for each in first.facts]
    assert [(each.width, each.height) for each in again.facts] == [(each.width, each.height) for each in first.facts]


# -- classes ----------------------------------------------------------------------------------------------------------


def test_a_set_to_test_on_may_lack_classes_and_order_them_otherwise(tmp_path: Path) -> None:
    classes = ("zebra", "b", "a", "mole")
    data = load_data(str(two(tmp_path / "x")), classes=classes)
    assert data.class_names == classes
    assert data.labels.tolist() == [2, 2, 1, 1]
    (tmp_path / "x" / "mole").mkdir()
    assert names(load_data(str(tmp_path / "x"), classes=classes).left_out, "no class") == ["mole"]
    for file in (tmp_path / "x" / "a").iterdir():
        file.unlink()
    alone = load_data(str(tmp_path / "x"), classes=classes)
    assert alone.labels.tolist() == [1, 1]
    assert alone.pick(torch.tensor([0])).labels.tolist() == [1]
    with pytest.raises(DataError, match="must be among zebra, mole, but b is not"):
        load_data(str(tmp_path / "x"), classes=("zebra", "mole"))
    assert load_data("digits", classes=tuple("9876543210")).labels[:3].tolist() == [9, 8, 7]


def test_a_set_to_train_on_needs_images_in_every_folder(tmp_path: Path) -> None:
    root = two(tmp_path / "x")
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("no image")
    with pytest.raises(DataError, match=r"each class must have images, but .* has none in notes; add some or remove the folder"):
        load_data(str(root))


def test_what_is_left_out_is_said_by_kind() -> None:
    left_out = [LeftOut("a.png", "is empty"), *(LeftOut(f"{number}.txt", "is no image", "no image") for number in range(4))]
    assert left_out_sentences(left_out) == (
        "1 image cannot be read and is skipped: a.png (is empty)",
        "4 files are no images: 0.txt, 1.txt, 2.txt ...",
    )
    assert left_out_sentences(()) == ()
