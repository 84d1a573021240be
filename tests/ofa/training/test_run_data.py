"""What is made of a run's data when they have changed since it began."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.data import ImageData, split
from ofa.errors import DataError
from ofa.training import Recipe, first_data
from ofa.training.matching import parts_of_new
from tests.ofa.training.run_photos import NAMES, MakeRecipe, again, contents, contents_of, names_of, photos, picture, same, shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


@pytest.fixture
def recipe(folder: Path, recipe_of: MakeRecipe) -> Recipe:
    return replace(recipe_of("ofa-mbv3-tiny"), data=str(folder), fractions=(0.5, 0.25, 0.25))


# -- first ------------------------------------------------------------------------------------------------------------


def test_nothing_is_said_of_data_that_did_not_change(recipe: Recipe) -> None:
    begun = first_data(recipe)
    found = again(begun, recipe)
    assert same(begun.splits, recipe.load_splits())
    assert same(begun.splits, found.splits)
    assert not found.changes.changed
    assert found.changes.sentences() == begun.changes.sentences() == ()


def test_the_digits_are_found_again(recipe_of: MakeRecipe) -> None:
    recipe = recipe_of("ofa-mbv3-tiny", seed=4)
    begun = first_data(recipe)
    found = again(begun, recipe)
    assert same(begun.splits, found.splits)
    assert all(torch.equal(mine.images, theirs.images) for mine, theirs in zip(begun.splits, found.splits, strict=True))


def test_copies_go_to_one_part(recipe: Recipe, folder: Path) -> None:
    for number in range(12):
        for copy in range(3):
            shutil.copy(folder / "ant" / f"{number:03}.png", folder / "ant" / f"copy {copy} {number}.png")
    splits = first_data(recipe).splits
    parts = [set(contents(part)) for part in splits]
    assert not parts[0] & parts[1]
    assert not parts[2] & (parts[0] | parts[1])
    assert sum(map(len, splits)) == 72
    assert [names_of(part).count("ant") for part in splits] == [24, 12, 12]  # shares of images, and not of different ones


def test_a_class_needs_different_images_for_all_parts(recipe: Recipe, folder: Path) -> None:
    for path in (folder / "bee").iterdir():
        shutil.copy(folder / "bee" / "000.png", folder / "temporary.png")
        (folder / "temporary.png").rename(path)
    with pytest.raises(DataError, match="'bee' has 1 different ones among 12"):
        first_data(recipe)


def test_a_set_without_copies_is_split_as_ever() -> None:
    images = torch.randint(0, 256, (400, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = ImageData(images=images, labels=torch.arange(400) % 3, class_names=NAMES)
    digest = hashlib.sha256()
    for part in split(data, (0.6, 0.2, 0.1), torch.Generator().manual_seed(5)):
        digest.update(part.images.numpy().tobytes())
    assert digest.hexdigest()[:16] == "a498c348c1c3253a"  # of the version before copies were looked for


def test_one_image_under_two_classes_is_told(recipe: Recipe, folder: Path) -> None:
    shutil.copy(folder / "ant" / "003.png", folder / "cat" / "ant.png")
    begun = first_data(recipe)
    assert begun.changes.ambiguous == 1
    assert "1 image is there under more than one class" in begun.changes.sentences()[0]
    assert same(begun.splits, again(begun, recipe).splits)


def test_images_to_test_on_that_were_trained_on_are_told(recipe: Recipe, tmp_path: Path, folder: Path) -> None:
    photos(tmp_path / "others", 4, first=500)
    shutil.copy(folder / "bee" / "004.png", tmp_path / "others" / "bee" / "known.png")
    apart = replace(recipe, test_data=str(tmp_path / "others"), fractions=(0.75, 0.25, 0.0))
    begun = first_data(apart)
    assert len(begun.splits.test) == 13
    assert begun.changes.sentences()[0].startswith("1 image of the test data is also among the images to train or to select on")
    assert again(begun, apart).changes.leaked == 1
    assert not again(begun, apart).changes.changed


# -- later ------------------------------------------------------------------------------------------------------------


def test_added_images_move_no_other(recipe: Recipe, folder: Path) -> None:
    begun = first_data(recipe)
    for number in range(40):
        picture(7000 + number).save(folder / "ant" / f"000 {number}.png")
    found = again(begun, recipe)
    for before, now in zip(begun.splits, found.splits, strict=True):
        assert contents(now)[: len(before)] == contents(before)
        assert len(now) > len(before)
        assert now.normalization == before.normalization
    assert sum(found.changes.added.values()) == 40
    assert "40 images are new" in found.changes.sentences()[0]


def test_where_a_new_image_goes_depends_on_it_alone(recipe: Recipe, folder: Path) -> None:
    """Neither on its name, nor on the others."""
    begun = first_data(recipe)
    picture(1).save(folder / "ant" / "new.png")
    parts = {}
    for number in range(20):
        picture(7000 + number).save(folder / "cat" / f"{number} new.png")
        found = again(begun, recipe)
        key = contents_of(folder / "cat" / f"{number} new.png")
        parts[number] = [key in contents(part) for part in found.splits]
        (folder / "cat" / f"{number} new.png").rename(folder / "cat" / f"z{number}.png")
    found = again(begun, recipe)
    for number, before in parts.items():
        assert before == [contents_of(folder / "cat" / f"z{number}.png") in contents(part) for part in found.splits]
        assert sum(before) == 1


def test_the_part_of_a_new_image_is_the_same_on_every_machine() -> None:
    keys = np.frombuffer(b"".join(bytes([first, 0, 0, 0, 0, 0, 0, 0] + [255] * 8) for first in (0, 127, 128, 191, 192, 255)), np.uint8)
    assert parts_of_new(keys.reshape(-1, 16), (0.5, 0.25, 0.25)).tolist() == [0, 0, 1, 1, 2, 2]
    assert parts_of_new(keys.reshape(-1, 16), (0.25, 0.25)).tolist() == [0, 1, 2, 2, 2, 2]
    assert parts_of_new(np.full((1, 16), 255, np.uint8), (0.7, 0.15, 0.15)).tolist() == [2]


def test_a_copy_of_a_known_image_goes_where_that_is(recipe: Recipe, folder: Path) -> None:
    begun = first_data(recipe)
    for path in sorted((folder / "ant").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    found = again(begun, recipe)
    assert found.changes.added == {"train": 6, "selection": 3, "test": 3}
    assert [set(contents(part)) for part in found.splits] == [set(contents(part)) for part in begun.splits]


def test_files_may_be_called_anything(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    begun = first_data(recipe)
    for number, path in enumerate(sorted(folder.glob("*/*"))):
        path.rename(path.with_name(f"{(number * 7) % 36}.png"))
    folder.rename(tmp_path / "elsewhere")
    found = again(begun, recipe, data=str(tmp_path / "elsewhere"))
    assert same(begun.splits, found.splits)
    assert not found.changes.changed


def test_an_image_that_was_moved_to_another_class_is_told(recipe: Recipe, folder: Path) -> None:
    begun = first_data(recipe)
    (folder / "ant" / "003.png").rename(folder / "cat" / "ant.png")
    found = again(begun, recipe)
    assert sum(found.changes.relabelled.values()) == 1
    assert "1 image is of another class now" in found.changes.sentences()[0]
    assert [contents(part) for part in found.splits] == [contents(part) for part in begun.splits]
    assert sum(names_of(part).count("cat") for part in found.splits) == 13


def test_images_that_are_gone_are_told(recipe: Recipe, folder: Path) -> None:
    begun = first_data(recipe)
    (folder / "ant" / "003.png").unlink()
    (folder / "bee" / "003.png").unlink()
    found = again(begun, recipe)
    assert sum(found.changes.removed.values()) == 2
    assert "2 images are gone" in found.changes.sentences()[0]
    assert sum(map(len, found.splits)) == 34


def test_a_part_may_lose_all_images_of_a_class(recipe: Recipe, folder: Path) -> None:
    begun = first_data(recipe)
    tested = set(contents(begun.splits.test))
    for path in [*folder.glob("ant/*"), *folder.glob("bee/*")]:
        if contents_of(path) in tested:
            path.unlink()
    found = again(begun, recipe)
    assert names_of(found.splits.test) == ["cat"] * 3
    assert found.changes.removed == {"test": 6}


def test_a_part_without_images_is_refused(recipe: Recipe, folder: Path) -> None:
    begun = first_data(recipe)
    tested = set(contents(begun.splits.test))
    for path in folder.glob("*/*"):
        if contents_of(path) in tested:
            path.unlink()
    with pytest.raises(DataError, match="none of its images of the test part left"):
        again(begun, recipe)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "ant").rename(root / "dog"), r"lacks 'ant' and has 'dog' besides \(the images of 'ant' are in 'dog' now\)"),
        (lambda root: photos(root / "more", 3, ("dog",), 9000) and (root / "more" / "dog").rename(root / "dog"), "has 'dog' besides;"),
        (lambda root: shutil.rmtree(root / "bee"), "lacks 'bee';"),
        (lambda root: swap(root / "ant", root / "cat"), "the images of 'ant' are in 'cat' now, the images of 'cat' are in 'ant' now"),
        (lambda root: merge(root / "ant", root / "bee"), r"lacks 'ant' \(the images of 'ant' are in 'bee' now\)"),
        (lambda root: encode_again(root), "has 0 of its 36 images"),
        (lambda root: [path.unlink() for path in sorted(root.glob("*/*")) if path.name > "004.png"], "has 15 of its 36 images"),
    ],
)
def test_other_classes_and_other_sets_are_refused(recipe: Recipe, folder: Path, change: Callable[[Path], object], sentence: str) -> None:
    begun = first_data(recipe)
    change(folder)
    shutil.rmtree(folder / "more", ignore_errors=True)
    for exact in (False, True):
        with pytest.raises(DataError, match=sentence) as told:
            again(begun, recipe, exact=exact)
        assert "train a new run" in str(told.value)


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("third"))
    other.rename(one)
    one.with_name("third").rename(other)


def merge(one: Path, other: Path) -> None:
    for path in list(one.iterdir()):
        path.rename(other / f"{one.name} {path.name}")
    one.rmdir()


def encode_again(root: Path) -> None:
    for path in list(root.glob("*/*")):
        with Image.open(path) as image:
            image.load()
        path.unlink()
        image.save(path.with_suffix(".bmp"))


# -- a run that goes on -----------------------------------------------------------------------------------------------


def test_a_run_goes_on_with_the_images_it_began_with(recipe: Recipe, folder: Path) -> None:
    begun = first_data(recipe)
    picture(7000).save(folder / "ant" / "000 new.png")
    shutil.copy(folder / "cat" / "001.png", folder / "cat" / "copy.png")
    found = again(begun, recipe, exact=True)
    assert same(begun.splits, found.splits)
    assert "2 images are new and left out" in found.changes.sentences()[0]


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.rename(path.parents[1] / "cat" / "moved.png")])
def test_a_run_does_not_go_on_without_its_images(recipe: Recipe, folder: Path, change: Callable[[Path], object]) -> None:
    begun = first_data(recipe)
    trained = contents(begun.splits.train)
    tested = contents(begun.splits.test)
    files = {contents_of(path): path for path in folder.glob("[ab]*/*")}
    change(files[next(key for key in tested if key in files)])
    assert again(begun, recipe, exact=True).changes.changed
    change(files[next(key for key in trained if key in files)])
    with pytest.raises(DataError, match="must be resumed with the images that it began with"):
        again(begun, recipe, exact=True)


# -- other sources ----------------------------------------------------------------------------------------------------


def test_classes_in_another_order_are_taken_by_name(recipe: Recipe, tmp_path: Path) -> None:
    labels, seeds = [number % 3 for number in range(36)], list(range(36))
    path = shard(tmp_path / "train.parquet", labels, NAMES, seeds)
    apart = replace(recipe, data=str(path))
    begun = first_data(apart)
    order = (2, 0, 1)
    shard(path, [order[label] for label in labels], tuple(NAMES[order.index(number)] for number in range(3)), seeds)
    found = again(begun, apart)
    assert same(begun.splits, found.splits)
    assert found.splits.train.class_names == NAMES
    assert "its classes are listed in another order" in found.changes.sentences()[0]


def test_names_that_changed_places_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    """Only the list in the metadata is another; or, where there are no names, only the numbers."""
    labels, seeds = [number % 3 for number in range(36)], list(range(36))
    for names in (NAMES, None):
        path = shard(tmp_path / "train.parquet", labels, names, seeds)
        apart = replace(recipe, data=str(path))
        begun = first_data(apart)
        shard(path, [(2, 0, 1)[label] for label in labels], names, seeds)
        with pytest.raises(DataError, match="has their images under other names"):
            again(begun, apart)


def test_a_test_set_may_lack_classes(recipe: Recipe, tmp_path: Path) -> None:
    tests = photos(tmp_path / "others", 4, first=500)
    apart = replace(recipe, test_data=str(tests), fractions=(0.75, 0.25, 0.0))
    shutil.rmtree(tests / "ant")
    begun = first_data(apart)
    assert set(names_of(begun.splits.test)) == {"bee", "cat"}
    assert same(begun.splits, again(begun, apart).splits)
    shutil.rmtree(tests / "cat")
    assert set(names_of(again(begun, apart).splits.test)) == {"bee"}
    (tests / "bee").rename(tests / "dog")
    with pytest.raises(DataError, match="dog"):
        again(begun, apart)


def test_a_test_set_of_its_own_is_compared_too(recipe: Recipe, tmp_path: Path) -> None:
    tests = photos(tmp_path / "others", 4, first=500)
    apart = replace(recipe, test_data=str(tests), fractions=(0.75, 0.25, 0.0))
    begun = first_data(apart)
    picture(7000).save(tests / "ant" / "new.png")
    (tests / "bee" / "000.png").unlink()
    found = again(begun, apart)
    assert (found.changes.added, found.changes.removed) == ({"test": 1}, {"test": 1})
    assert same(begun.splits, again(begun, apart, exact=True).splits._replace(test=begun.splits.test))
    for name in NAMES:
        shutil.rmtree(tests / name)
    photos(tests, 4, first=600)
    with pytest.raises(DataError, match=r"has 0 of its 12 images .* --test-data PATH"):
        again(begun, apart)


class Drawn:
    """A dataset in code, of pictures by their seeds."""

    classes = NAMES
    seeds: tuple[int, ...] = tuple(range(36))

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return picture(self.seeds[number]), self.seeds[number] % 3


def test_a_dataset_in_code_is_compared_by_its_pixels(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = replace(recipe, data=f"{__name__}:Drawn")
    begun = first_data(apart)
    monkeypatch.setattr(Drawn, "seeds", tuple(reversed(Drawn.seeds)))
    assert same(begun.splits, again(begun, apart).splits)
    monkeypatch.setattr(Drawn, "seeds", (*Drawn.seeds[1:], 700))
    found = again(begun, apart)
    assert (sum(found.changes.added.values()), sum(found.changes.removed.values())) == (1, 1)
    monkeypatch.setattr(Drawn, "classes", ("bee", "ant", "cat"))
    with pytest.raises(DataError, match="has their images under other names"):
        again(begun, apart)


def test_what_the_fractions_leave_over_stays_so(recipe: Recipe, folder: Path) -> None:
    few = replace(recipe, fractions=(0.25, 0.25, 0.25))
    begun = first_data(few)
    assert begun.record is not None
    assert begun.record.counts == {"train": 9, "selection": 9, "test": 9, "unused": 9}
    assert same(begun.splits, again(begun, few).splits)
    assert not again(begun, few).changes.changed
