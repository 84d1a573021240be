"""Batches that are made on the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from ofa.data import Augmentation, BatchPlan, ImageData, load_batches, load_data, make_batch
from ofa.data.transfer import moved
from ofa.randomness import borrowed_randomness
from ofa.resolution import Resolution

pytestmark = pytest.mark.gpu

GEOMETRY = Augmentation(shift=0.1, scale=0.1, flip=True)
CROPS = Augmentation(crop_scale=0.4, flip=True)


@pytest.mark.parametrize("augmentation", [None, GEOMETRY, CROPS], ids=["plain", "moved", "cropped"])
@pytest.mark.parametrize("resolution", [16, 12, (12, 20)])
def test_a_batch_is_that_of_the_cpu(
    augmentation: Augmentation | None, resolution: Resolution, pictures: ImageData, device: torch.device
) -> None:
    plans = [BatchPlan(torch.arange(number, number + 32), resolution, number) for number in range(4)]
    here, there = (list(load_batches(pictures, plans, augmentation=augmentation, device=place)) for place in (device, "cpu"))
    for (x_BCHW, y_B), (other_BCHW, labels_B) in zip(here, there, strict=True):
        assert x_BCHW.device == y_B.device == device
        assert x_BCHW.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(x_BCHW.cpu(), other_BCHW, atol=1e-3, rtol=0)
        assert torch.equal(y_B.cpu(), labels_B)
    again = list(load_batches(pictures, plans[2:], augmentation=augmentation, device=device))
    assert torch.equal(again[0][0], here[2][0])


def test_a_set_in_memory_is_copied_to_the_device_once(pictures: ImageData, device: torch.device) -> None:
    there = pictures.on(device)
    assert there.images.device == there.labels.device == device
    assert pictures.on(device) is there
    assert there.on(device) is there
    assert there.normalization == pictures.normalization


def test_page_locked_memory_is_fetched_from(device: torch.device) -> None:
    tensor = torch.arange(2**20).view(2, 2**19)
    assert torch.equal(moved(tensor, device).cpu(), tensor)
    if device.type == "cuda":
        assert moved(tensor, torch.device("cpu")) is tensor
        assert moved(there := tensor.to(device), device) is there


# A process that uses a GPU has threads, which Python from 3.12 on warns of when workers are forked.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_images_that_workers_read_arrive(device: torch.device, tmp_path: Path) -> None:
    for name, level in (("dark", 20), ("light", 200)):
        (tmp_path / name).mkdir()
        for number, side in enumerate((20, 24, 28, 32)):  # of several sizes, so that they stay encoded and are read by workers
            Image.new("RGB", (side, 24), (level + 3 * number, level, level)).save(tmp_path / name / f"{number}.png")
    data = load_data(str(tmp_path))
    assert not isinstance(data, ImageData)
    plans = [BatchPlan(torch.arange(8), 16, seed) for seed in range(3)]
    here, there = (list(load_batches(data, plans, augmentation=CROPS, device=place, workers=2)) for place in (device, "cpu"))
    for (x_BCHW, y_B), (other_BCHW, labels_B) in zip(here, there, strict=True):
        assert x_BCHW.device == device
        torch.testing.assert_close(x_BCHW.cpu(), other_BCHW, atol=1e-3, rtol=0)
        assert torch.equal(y_B.cpu(), labels_B)


@pytest.mark.parametrize("settings", [{"colour": 0.4}, {"rand_augment": 2}, {"colour": 0.3, "rand_augment": 1}])
def test_colours_change_on_the_device_by_the_seed_alone(settings: dict[str, float], pictures: ImageData, device: torch.device) -> None:
    pytest.importorskip("kornia")
    augmentation = Augmentation(**settings)  # type: ignore[arg-type]

    def made(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return make_batch(pictures, torch.arange(40), resolution=16, augmentation=augmentation, generator=generator, device=device)[0]

    states = torch.get_rng_state(), global_state(device)
    plain, _ = make_batch(pictures, torch.arange(40), resolution=16, device=device)
    assert made(1).device == device
    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert (made(1) != plain).any()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(global_state(device), states[1])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_are_the_shares_of_the_images(kind: str, pictures: ImageData, device: torch.device) -> None:
    pytest.importorskip("kornia")
    augmentation = Augmentation(**{kind: 1.0})  # type: ignore[arg-type]
    index = torch.arange(60)
    generator = torch.Generator().manual_seed(4)
    x_BCHW, targets_BK = make_batch(pictures, index, resolution=16, augmentation=augmentation, generator=generator, device=device)
    plain_BCHW, labels_B = make_batch(pictures, index, resolution=16, device=device)
    assert targets_BK.shape == (60, 10)
    assert targets_BK.device == device
    torch.testing.assert_close(targets_BK.sum(1), torch.ones(60, device=device))
    assert (targets_BK.gather(1, labels_B[:, None]) < 1).any()
    # Brightness tells the class, so the blend's brightness is the blend of the labels.
    levels_K = torch.stack([plain_BCHW[labels_B == label].mean() for label in range(10)])
    assert (x_BCHW.mean((1, 2, 3)) - targets_BK @ levels_K).abs().max() < 0.15


def test_lent_randomness_follows_the_generator_and_is_given_back(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn() -> torch.Tensor:
        with borrowed_randomness(generator, device):
            return torch.rand(4, device=device)

    before = global_state(device)
    first, again = drawn(), drawn()
    torch.rand(1, generator=generator)
    later = drawn()
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert torch.equal(global_state(device), before)


def global_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
