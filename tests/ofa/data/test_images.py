from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ofa.data import Augmentation, ImageData, batch_indices, batches, digits, load_data, make_batch, split
from ofa.errors import DataError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 40, classes: int = 4, side: int = 8) -> ImageData:
    """Random pictures whose classes take turns."""
    return ImageData(
        images=torch.randint(0, 256, (count, 3, side, side), generator=generator(), dtype=torch.uint8),
        labels=torch.arange(count) % classes,
        class_names=tuple("abcdefgh"[:classes]),
    )


@pytest.fixture(scope="module")
def scans() -> ImageData:
    return digits()


def test_digits_are_real_scans_in_three_equal_channels(scans: ImageData) -> None:
    assert scans.images.shape == (1797, 3, 8, 8)
    assert torch.equal(scans.images[:, 0], scans.images[:, 2])
    assert int(scans.images.max()) == 255
    assert scans.class_names == tuple("0123456789")
    assert scans.num_classes == 10


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load_data("digit")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": torch.zeros(4, 3, 8, 8)}, "uint8"),
        ({"images": torch.zeros(4, 8, 8, dtype=torch.uint8)}, r"\[N, C, H, W\]"),
        ({"labels": torch.tensor([0, 1, 0])}, "one an image"),
        ({"labels": torch.tensor([0, 1, 2, 1])}, r"0\.\.1 .* first 2 at image 2"),
        ({"labels": torch.tensor([0, 1, -1, 1])}, "first -1 at image 2"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, "all 4 images are of 'cat'"),
        ({"images": torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "labels": torch.zeros(0, dtype=torch.int64)}, "must have images"),
        ({"mean": (0.5,), "std": (0.5,)}, r"one value a channel \(3\)"),
    ],
)
def test_bad_data_is_refused_with_the_rule_and_the_value(changes: dict[str, object], words: str) -> None:
    good: dict[str, object] = {
        "images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0, 1]),
        "class_names": ("cat", "dog"),
    }
    with pytest.raises(DataError, match=words):
        ImageData(**{**good, **changes})  # type: ignore[arg-type]


def test_constant_images_cannot_be_normalized() -> None:
    data = ImageData(images=torch.zeros(4, 3, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 1, 0, 1]), class_names=("a", "b"))
    with pytest.raises(DataError, match="must vary"):
        next(batches(data, batch_size=2, resolution=8))


def test_normalization_is_the_mean_and_deviation_of_the_images(scans: ImageData) -> None:
    mean, std = scans.normalization
    values = scans.images.double().div(255).transpose(0, 1).flatten(1)
    assert mean == pytest.approx(values.mean(1).tolist())
    assert std == pytest.approx(values.std(1, correction=0).tolist())


# -- splitting ---------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_split_are_disjoint_and_stratified(scans: ImageData) -> None:
    numbered = ImageData(images=_numbered(len(scans)), labels=scans.labels, class_names=scans.class_names)
    parts = split(numbered, (0.7, 0.15, 0.15), generator())
    assert sorted(torch.cat([_numbers(part) for part in parts]).tolist()) == list(range(len(scans)))
    totals = torch.bincount(scans.labels)
    for part, fraction in zip(parts, (0.7, 0.15, 0.15), strict=True):
        assert (torch.bincount(part.labels) - fraction * totals).abs().max() <= 1


def test_a_split_is_decided_by_its_generator() -> None:
    first, again, other = (split(pictures(), (0.5, 0.5), generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_all_parts_are_normalized_by_the_first() -> None:
    train, test = split(pictures(), (0.5, 0.5), generator())
    assert train.normalization == test.normalization
    alone = ImageData(images=train.images, labels=train.labels, class_names=train.class_names)
    assert train.normalization == alone.normalization


def test_a_given_normalization_is_kept() -> None:
    data = pictures()
    given = ImageData(images=data.images, labels=data.labels, class_names=data.class_names, mean=(0.4,) * 3, std=(0.2,) * 3)
    assert split(given, (0.5, 0.5), generator())[1].normalization == ((0.4,) * 3, (0.2,) * 3)


def test_every_part_gets_an_image_of_every_class() -> None:
    parts = split(pictures(12), (0.9, 0.05, 0.05), generator())
    assert [torch.bincount(part.labels).tolist() for part in parts] == [[1] * 4] * 3


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(DataError, match="'d' has 2 in all"):
        split(pictures(11), (0.6, 0.2, 0.2), generator())


@pytest.mark.parametrize("fractions", [(), (0.5, 0.0), (0.9, 0.2), (-0.1, 0.5)])
def test_impossible_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="fractions of a split"):
        split(pictures(), fractions, generator())


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [5, 8, 20])
def test_batches_have_the_resolution_in_channels_last_order(resolution: int) -> None:
    x, y = next(batches(pictures(), batch_size=16, resolution=resolution))
    assert x.shape == (16, 3, resolution, resolution)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == [i % 4 for i in range(16)]


def test_a_whole_pass_is_normalized() -> None:
    x = torch.cat([x for x, _ in batches(pictures(), batch_size=7, resolution=8)])
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_a_pass_without_a_generator_is_in_order_and_never_augmented() -> None:
    moved = Augmentation(shift=0.2, scale=0.2, flip=True)
    plain, asked = (torch.cat([x for x, _ in batches(pictures(), batch_size=16, resolution=8, augmentation=a)]) for a in (None, moved))
    assert torch.equal(plain, asked)


def test_a_shuffled_pass_meets_every_image_once() -> None:
    indices = batch_indices(40, 16, generator())
    assert [len(index) for index in indices] == [16, 16, 8]
    assert sorted(torch.cat(indices).tolist()) == list(range(40))
    assert torch.cat(indices).tolist() != list(range(40))


def test_a_short_last_batch_can_be_left_out_but_not_the_only_one() -> None:
    assert [len(index) for index in batch_indices(40, 16, drop_last=True)] == [16, 16]
    assert [len(index) for index in batch_indices(10, 16, drop_last=True)] == [10]
    with pytest.raises(DataError, match="batch_size is 0"):
        batch_indices(40, 0)


def test_one_image_alone_is_nothing_to_train_on() -> None:
    assert [len(index) for index in batch_indices(1, 16)] == [1]
    with pytest.raises(DataError, match=r"at least 2 images, because .*, but there are 1 images and batch_size is 16; raise the smaller"):
        batch_indices(1, 16, drop_last=True)


def _augmented(augmentation: Augmentation, seed: int = 0) -> tuple[Tensor, Tensor]:
    data, index = pictures(), torch.arange(16)
    plain, _ = make_batch(data, index, resolution=8)
    moved, _ = make_batch(data, index, resolution=8, augmentation=augmentation, generator=generator(seed))
    return plain, moved


def test_augmentation_moves_each_image_on_its_own_and_repeats_with_its_seed() -> None:
    plain, moved = _augmented(Augmentation(shift=0.1, scale=0.1))
    assert not torch.isclose(plain, moved).flatten(1).all(1).any()
    assert torch.equal(moved, _augmented(Augmentation(shift=0.1, scale=0.1))[1])
    assert not torch.equal(moved, _augmented(Augmentation(shift=0.1, scale=0.1), seed=1)[1])


def test_images_are_flipped_only_when_asked() -> None:
    plain, moved = _augmented(Augmentation(flip=True))
    kept = torch.isclose(plain, moved, atol=1e-5).flatten(1).all(1)
    flipped = torch.isclose(plain.flip(3), moved, atol=1e-5).flatten(1).all(1)
    assert (kept ^ flipped).all()
    assert 0 < int(flipped.sum()) < 16
    plain, moved = _augmented(Augmentation())
    assert torch.equal(plain, moved)


def test_a_shift_moves_by_at_most_its_share() -> None:
    spot = torch.zeros(16, 3, 20, 20, dtype=torch.uint8)
    spot[:, :, 10, 10] = 255
    data = ImageData(images=spot, labels=torch.arange(16) % 2, class_names=("a", "b"))
    x, _ = make_batch(data, torch.arange(16), resolution=20, augmentation=Augmentation(shift=0.1), generator=generator())
    brightest = x[:, 0].flatten(1).argmax(1)
    rows, columns = brightest // 20, brightest % 20
    assert int((rows - 10).abs().max()) in (1, 2)
    assert int((columns - 10).abs().max()) in (1, 2)


@pytest.mark.parametrize("changes", [{"shift": 1.0}, {"scale": -0.1}])
def test_an_impossible_augmentation_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(DataError, match=next(iter(changes))):
        Augmentation(**changes)


def _numbered(count: int) -> Tensor:
    """Images that tell their number by their first two pixels."""
    images = torch.randint(0, 256, (count, 3, 2, 2), generator=generator(), dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(count) // 256, torch.arange(count) % 256
    return images


def _numbers(data: ImageData) -> Tensor:
    return data.images[:, 0, 0, 0].long() * 256 + data.images[:, 0, 0, 1].long()
