from __future__ import annotations

import pytest
import torch

from ofa.data import Augmentation, ImageData, make_batch
from ofa.errors import DataError

GRADIENT = torch.arange(16).float().view(1, 1, 1, 16).expand(8, 3, 16, 16) * 15


@pytest.fixture
def pictures() -> ImageData:
    labels = torch.arange(32) % 4
    images = (labels.view(-1, 1, 1, 1) * 60 + torch.randint(0, 20, (32, 3, 16, 16), generator=torch.Generator().manual_seed(0))).byte()
    return ImageData(images=images, labels=labels, class_names=tuple("abcd"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crops_lie_within_the_image_and_keep_their_share_of_it() -> None:
    boxes = Augmentation(crop_scale=0.3).boxes(500, generator())
    assert boxes is not None
    for part in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.7)):
        middle_B2, size_B2 = boxes.within(part)
        assert torch.allclose(size_B2, boxes.size_B2 * torch.tensor(part))
        assert (middle_B2 - size_B2 / 2).min() > -1e-6
        assert (middle_B2 + size_B2 / 2).max() < 1 + 1e-6
    area, ratio = boxes.size_B2.prod(1), boxes.size_B2[:, 0] / boxes.size_B2[:, 1]
    assert 0.28 < area.min() < 0.4
    assert area.max() <= 1
    assert 0.7 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.4
    assert Augmentation().boxes(4, generator()) is None


def test_a_crop_is_that_part_of_the_image(pictures: ImageData) -> None:
    augmentation = Augmentation(crop_scale=0.2)
    boxes = augmentation.boxes(8, generator(3))
    assert boxes is not None
    crops = boxes.within((1.0, 1.0))
    cropped = augmentation(GRADIENT.contiguous(), generator(), crops, 16)
    middle = cropped.mean((1, 2, 3)) / 15
    assert torch.allclose(middle, crops[0][:, 0] * 16 - 0.5, atol=0.3)
    assert make_batch(pictures, torch.arange(5), resolution=12, augmentation=augmentation, generator=generator())[0].shape == (5, 3, 12, 12)


@pytest.mark.parametrize("augmentation", [Augmentation(colour=0.4), Augmentation(rand_augment=2), Augmentation(colour=0.2, rand_augment=1)])
def test_grey_images_stay_grey_whatever_is_drawn(augmentation: Augmentation) -> None:
    x_B1HW = torch.rand(4, 1, 10, 16, generator=generator())
    changed = [augmentation.recolour(x_B1HW, generator(seed)) for seed in range(20)]
    assert all(each.shape == x_B1HW.shape for each in changed)
    assert sum(torch.equal(each, x_B1HW) for each in changed) < 5


def test_colours_change_and_alpha_does_not() -> None:
    x_B4HW = torch.rand(4, 4, 10, 16, generator=generator())
    changed = Augmentation(colour=0.4).recolour(x_B4HW, generator(1))
    assert torch.equal(changed[:, :3], Augmentation(colour=0.4).recolour(x_B4HW[:, :3], generator(1)))
    assert torch.equal(changed[:, 3], x_B4HW[:, 3])


@pytest.mark.parametrize(
    ("augmentation", "channels", "words"),
    [
        (Augmentation(colour=0.4), 5, "needs images of 1, 3 or 4 channels, but these have 5; set colour = 0"),
        (Augmentation(rand_augment=2), 4, "RandAugment needs images of 1 or 3 channels, but these have 4; set rand_augment = 0"),
    ],
)
def test_channels_without_colours_are_refused(augmentation: Augmentation, channels: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        augmentation.recolour(torch.rand(2, channels, 8, 8), generator())


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(colour=0.4), Augmentation(rand_augment=2), Augmentation(colour=0.3, rand_augment=1, rand_augment_magnitude=20)],
)
def test_colours_change_within_bounds_and_by_the_seed_alone(augmentation: Augmentation, pictures: ImageData) -> None:
    def made(seed: int) -> torch.Tensor:
        return make_batch(pictures, torch.arange(32), resolution=16, augmentation=augmentation, generator=generator(seed))[0]

    before = torch.get_rng_state()
    plain, _ = make_batch(pictures, torch.arange(32), resolution=16)
    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert (made(1) != plain).flatten(1).any(1).float().mean() > 0.5
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in pictures.normalization)
    shown = made(1) * std + mean
    assert shown.min() > -0.01
    assert shown.max() < 1.01
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_are_the_shares_of_the_images(kind: str, pictures: ImageData) -> None:
    augmentation = Augmentation(**{kind: 1.0})  # type: ignore[arg-type]
    index = torch.arange(32)
    x, targets = make_batch(pictures, index, resolution=16, augmentation=augmentation, generator=generator(4))
    plain, labels = make_batch(pictures, index, resolution=16)
    assert targets.shape == (32, 4)
    torch.testing.assert_close(targets.sum(1), torch.ones(32))
    assert (targets.gather(1, labels[:, None]) < 1).any()
    # Brightness tells the class, so the blend's brightness is the blend of the labels.
    levels = torch.stack([plain[labels == label].mean() for label in range(4)])
    assert (x.mean((1, 2, 3)) - targets @ levels).abs().max() < 0.1


def test_a_share_of_the_batches_is_mixed(pictures: ImageData) -> None:
    augmentation = Augmentation(mixup=0.3, cutmix=0.2)
    made = [make_batch(pictures, torch.arange(4), resolution=16, augmentation=augmentation, generator=generator(s))[1] for s in range(100)]
    assert 30 < sum(y.ndim == 2 for y in made) < 70


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"crop_scale": 0}, "crop_scale must be"),
        ({"colour": 1.5}, "colour must be"),
        ({"mixup": 0.7, "cutmix": 0.7}, "sum to at most 1"),
        ({"rand_augment_magnitude": 31}, r"0\.\.30"),
    ],
)
def test_impossible_values_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Augmentation(**settings)  # type: ignore[arg-type]
