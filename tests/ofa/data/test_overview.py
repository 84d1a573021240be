"""What is told of a data set: counts that add up, copies, and a warning for each thing that spoils training or its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ofa.data import Augmentation, ImageFacts, scan_data
from ofa.data.overview import PlacedImage, overview
from ofa.data.sheet import contact_sheet
from tests.photos import CLASSES, write_photos


def image(key: str, class_name: str = "cat", part: str = "train", size: tuple[int, int] = (64, 48), name: str = "") -> PlacedImage:
    facts = ImageFacts(name or f"{key}.png", key.encode(), *size, mode="RGB", format="PNG", bytes=100)
    return PlacedImage(facts, tuple(class_name.split("+")), part)


def test_counts_add_up() -> None:
    images = [image("a"), image("b", part="test"), image("c", "dog", "selection", (10, 90))]
    found = overview(images, ("cat", "dog", "cow"), 32)
    assert found.images == 3
    assert found.classes == {"cat": {"train": 1, "test": 1}, "dog": {"selection": 1}, "cow": {}}
    assert found.parts == {"train": 1, "test": 1, "selection": 1}
    assert found.formats == {"PNG": 3}
    assert (found.sizes.smallest, found.sizes.largest, found.sizes.distinct) == ((10, 90), (64, 48), 2)


def test_copies_are_found_across_classes_and_parts() -> None:
    images = [image("a", name="one"), image("a", "dog", name="two"), image("b", name="three"), image("b", part="test", name="four")]
    found = overview(images, ("cat", "dog"), 32)
    assert [(copies.names, copies.class_names, copies.parts) for copies in found.copies] == [
        (("one", "two"), ("cat", "dog"), ("train",)),
        (("three", "four"), ("cat",), ("test", "train")),
    ]
    classes, parts = (sentence for sentence in found.warnings if "copies" in sentence)
    assert "one and two" in classes
    assert "three and four" in parts


def test_copies_in_one_class_and_part_are_no_warning() -> None:
    found = overview([image("a"), image("a"), image("b", "dog")], ("cat", "dog"), 32)
    assert len(found.copies) == 1
    assert not any("copies" in sentence for sentence in found.warnings)


@pytest.mark.parametrize(("few", "warned"), [(2, True), (9, False)])
def test_uneven_classes_are_a_warning(few: int, warned: bool) -> None:
    images = [image(f"a{i}") for i in range(50)] + [image(f"b{i}", "dog") for i in range(few)]
    assert any("uneven" in sentence for sentence in overview(images, ("cat", "dog"), 32).warnings) == warned


def test_a_part_without_a_class_is_a_warning_unless_there_is_no_such_part() -> None:
    images = [image("a"), image("b", "dog"), image("c", part="test")]
    (said,) = overview(images, ("cat", "dog"), 32).warnings
    assert "test part has no images of 1 classes (dog)" in said


def test_mostly_small_images_are_a_warning() -> None:
    images = [image("a", size=(30, 30)), image("b", "dog", size=(31, 200)), image("c", size=(64, 64))]
    (said,) = overview(images, ("cat", "dog"), 64).warnings
    assert "2 of 3 images are smaller" in said


def test_a_strip_shows_what_a_network_reads(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 16, dirt=False)
    data = scan_data(str(tmp_path / "photos")).images()
    strips = contact_sheet(data, 24, each=4)
    assert [(strip.class_name, strip.images) for strip in strips] == [(name, 16) for name in CLASSES]
    for label, strip in enumerate(strips):
        shown = np.asarray(strip.evaluated)
        members = torch.nonzero(data.labels == label).flatten()[[0, 4, 8, 12]]
        read = data.read(members, 24).x_BCHW.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()
        for number in range(4):
            assert np.array_equal(shown[:, 26 * number : 26 * number + 24], read[number])
        assert strip.trained is None


def test_a_strip_shows_images_as_in_training_too(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 16, dirt=False)
    data = scan_data(str(tmp_path / "photos")).images()
    generator = torch.Generator().manual_seed(0)
    strip = contact_sheet(data, 24, each=3, classes=1, augmentation=Augmentation(flip=True, shift=0.2), generator=generator)[0]
    assert strip.trained is not None
    assert strip.trained.size == strip.evaluated.size
    assert not np.array_equal(np.asarray(strip.trained), np.asarray(strip.evaluated))
