"""Inputs of any height and width: the part of an image that they show, and the same from memory and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ofa.data import Augmentation, BatchPlan, EncodedImages, ImageData, ImageRule, Images, load_batches, load_data, make_batch
from ofa.data.reading import fitting_part
from ofa.data.rule import Fit
from ofa.resolution import Resolution, parse_resolution, sides
from tests.ofa.data.pictures import encoded, picture, write_classes

SIDES = st.integers(1, 400)
INPUTS: list[Resolution] = [(12, 20), (30, 8), 16]


@given(SIDES, SIDES, st.tuples(SIDES, SIDES))
def test_the_part_that_is_shown_is_the_largest_of_the_inputs_aspect_ratio_in_the_middle(
    width: int, height: int, size: tuple[int, int]
) -> None:
    rows, columns = size
    left, top, across, down = fitting_part(width, height, "crop", parse_resolution(size))
    assert across == width or down == height
    assert 0 <= width - across - 2 * left <= 1
    assert 0 <= height - down - 2 * top <= 1
    assert abs(across * rows - down * columns) <= max(rows, columns) / 2 or min(across, down) == 1  # to the nearest pixel
    assert fitting_part(width, height, "stretch", parse_resolution(size)) == (0, 0, width, height)


def loaded(root: Path, images: dict[str, Image.Image], memory: int, channels: int = 3, fit: Fit = "crop") -> Images:
    folder = root / str(memory)
    if not folder.exists():
        write_classes(folder, {name: encoded(image) for name, image in images.items()})
    return load_data(str(folder), memory=memory, channels=channels, rule=ImageRule(channels=channels, fit=fit))


@pytest.mark.parametrize("resolution", INPUTS)
@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_cut_or_stretched_to_the_input_as_by_pillow(channels: int, fit: Fit, resolution: Resolution, tmp_path: Path) -> None:
    pictures = {f"{seed}.png": picture((48, 36), seed).convert("RGBA") for seed in range(2)}
    here, there = (loaded(tmp_path, pictures, memory, channels, fit) for memory in (2**30, 1))
    assert isinstance(here, ImageData)
    assert isinstance(there, EncodedImages)
    height, width = sides(resolution)
    across, down = (48, 36) if fit == "stretch" else (min(48, round(36 * width / height)), min(36, round(48 * height / width)))
    left, top = (48 - across) // 2, (36 - down) // 2
    mode = {1: "L", 3: "RGB", 4: "RGB"}[channels]
    cut = pictures["0.png"].convert(mode).crop((left, top, left + across, top + down))
    expected = torch.from_numpy(np.asarray(cut.resize((width, height), Image.Resampling.BILINEAR)).astype(np.float32))
    for data in (here, there):
        x_BCHW = data.read(torch.arange(4), resolution).x_BCHW
        assert x_BCHW.shape == (4, channels, height, width)
        shown = x_BCHW[0, 0] if channels == 1 else x_BCHW[0, :3].permute(1, 2, 0)
        assert (shown - expected).abs().max() < 1.01  # Pillow rounds after each direction
        assert channels != 4 or (x_BCHW[:, 3] > 254.9).all()


@pytest.mark.parametrize("memory", [2**30, 1])
@pytest.mark.parametrize("resolution", INPUTS)
def test_random_crops_have_the_aspect_ratio_of_the_input_but_for_a_third(resolution: Resolution, memory: int, tmp_path: Path) -> None:
    across, down = np.meshgrid(np.arange(240, dtype=np.uint8), np.arange(180, dtype=np.uint8))
    places = Image.fromarray(np.stack([across, down, across], axis=2))  # every pixel says where it is
    data = loaded(tmp_path, {f"{number}.png": places for number in range(20)}, memory)
    height, width = sides(resolution)
    x_BCHW = data.read(torch.arange(40), resolution, Augmentation(crop_scale=0.3), torch.Generator().manual_seed(0)).x_BCHW
    width_B = (x_BCHW[:, 0, :, -2] - x_BCHW[:, 0, :, 1]).mean(1) * width / (width - 3)
    height_B = (x_BCHW[:, 1, -2] - x_BCHW[:, 1, 1]).mean(1) * height / (height - 3)
    ratio_B = width_B / height_B * height / width
    assert 0.7 < ratio_B.min() < 0.85  # to the pixels that the ends are rounded to
    assert 1.2 < ratio_B.max() < 1.4
    _, _, *part = fitting_part(240, 180, "crop", resolution)
    share_B = width_B * height_B / (part[0] * part[1])
    assert 0.25 < share_B.min() < 0.45
    assert 0.8 < share_B.max() < 1.05


def test_batches_of_many_resolutions_are_the_same_from_workers(tmp_path: Path) -> None:
    data = loaded(tmp_path, {f"{seed}.png": picture((48, 36), seed) for seed in range(3)}, memory=1)
    plans = [BatchPlan(torch.arange(3) + number, resolution, number) for number, resolution in enumerate(INPUTS)]
    augmentation = Augmentation(crop_scale=0.5, flip=True, shift=0.1)
    here, there = (list(load_batches(data, plans, augmentation=augmentation, workers=workers)) for workers in (0, 1))
    for plan, (x_BCHW, _), (other_BCHW, _) in zip(plans, here, there, strict=True):
        assert x_BCHW.shape == (3, 3, *sides(plan.resolution))
        assert torch.equal(x_BCHW, other_BCHW)


def test_a_pair_of_equal_sides_is_the_square(tmp_path: Path) -> None:
    data = loaded(tmp_path, {f"{seed}.png": picture((48, 36), seed) for seed in range(2)}, memory=1)
    (x_BCHW, _), (other_BCHW, _) = (make_batch(data, torch.arange(4), resolution=size) for size in (16, (16, 16)))
    assert torch.equal(x_BCHW, other_BCHW)
