"""What a run knows of its data: the record beside its recipe."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ofa.data import Splits
from ofa.errors import DataError, FileError, RecipeError
from ofa.training import Recipe, begin_run, continue_run, first_data, load_run, own_recipe, save_run
from ofa.training.matching import match_images
from ofa.training.record import PARTS, RECORD, DataRecord
from tests.ofa.training.run_photos import MakeRecipe, again, contents_of, photos, same, shard
from tests.resealed import write_parquet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


@pytest.fixture
def recipe(folder: Path, recipe_of: MakeRecipe) -> Recipe:
    return replace(recipe_of("ofa-mbv3-tiny"), data=str(folder), fractions=(0.5, 0.25, 0.25))


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_record_is_read_back_as_it_was(recipe: Recipe, tmp_path: Path) -> None:
    record = first_data(recipe).record
    assert record is not None
    record.save(tmp_path)
    loaded = DataRecord.load(tmp_path)
    assert loaded is not None
    assert loaded.facts == record.facts
    assert loaded.digest == record.digest
    for name in ("keys", "parts", "labels"):
        assert np.array_equal(getattr(loaded, name), getattr(record, name))
    assert DataRecord.load(tmp_path / "photos") is None


def test_the_record_knows_its_keys(recipe: Recipe, folder: Path) -> None:
    record = first_data(recipe).record
    assert record is not None
    assert record.known == {contents_of(path) for path in folder.glob("*/*")}


def test_images_are_read_as_when_the_run_began(recipe: Recipe, folder: Path) -> None:
    """A white that no format fixes stays what it was, whatever image comes later."""
    for path in list(folder.glob("*/*")):
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image)[..., 0].astype(np.int32) * 200).save(path.with_suffix(".tiff"))
        path.unlink()
    begun = first_data(recipe)
    assert begun.record is not None
    assert begun.record.facts.rule.integer_white == 65535
    Image.fromarray(np.full((8, 8), 200_000, np.int32)).save(folder / "ant" / "brighter.tiff")
    with pytest.raises(DataError, match=r"brighter\.tiff"):
        again(begun, recipe)
    found = again(begun, replace(recipe, unreadable="skip"))
    assert same(begun.splits, found.splits)
    assert found.splits.train.rule == begun.record.facts.rule


def test_the_digest_is_of_contents_and_classes(recipe: Recipe, folder: Path) -> None:
    def digest() -> str:
        record = first_data(recipe).record
        assert record is not None
        return record.digest

    before = digest()
    (folder / "ant" / "003.png").rename(folder / "ant" / "zzz.png")
    assert digest() == before
    (folder / "ant" / "zzz.png").rename(folder / "bee" / "zzz.png")
    assert digest() != before


def test_a_record_that_cannot_be_trusted_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    record = first_data(recipe).record
    assert record is not None
    record.save(tmp_path)
    path = tmp_path / RECORD
    table, whole = pq.read_table(path), path.read_bytes()

    def told(changed: pa.Table | bytes, **values: object) -> str:
        if isinstance(changed, bytes):
            path.write_bytes(changed)
        else:
            write_parquet(changed, path, **values)
        with pytest.raises(FileError) as error:
            DataRecord.load(tmp_path)
        return str(error.value)

    assert "must have schema 2 or older, but has 3" in told(table, schema=3)
    assert "must be the data record of a run, but is a front" in told(table, kind="front")
    assert "is another Parquet file" in told(table.replace_schema_metadata(None))
    assert "must be a whole data record" in told(whole[: len(whole) // 2])
    assert "must be a whole data record" in told(b"")
    assert "must be a whole data record" in told(table, facts={})
    assert "its checksum is gone" in told(table, seal=None)
    assert "do not match its digest" in told(table.slice(1).replace_schema_metadata(table.schema.metadata))
    assert "has the columns" in told(table.drop_columns(["part"]))


# -- in a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(recipe: Recipe, tmp_path: Path) -> Path:
    begin_run(tmp_path / "run", recipe, first_data(recipe).record)
    save_run(tmp_path / "run", recipe.build_supernet(3), recipe, ())
    return tmp_path / "run"


def test_a_run_finds_its_images(run: Path, recipe: Recipe) -> None:
    assert same(load_run(run).load_data().splits, recipe.load_splits())


def test_a_run_without_a_record_says_so(run: Path, recipe: Recipe) -> None:
    (run / RECORD).unlink()
    found = load_run(run).load_data()
    assert same(found.splits, recipe.load_splits())
    assert "this run has no record of its data" in found.changes.sentences()[0]


def test_a_supernet_of_other_classes_is_refused(run: Path, recipe: Recipe) -> None:
    save_run(run, recipe.build_supernet(7), recipe, ())
    for _ in range(2):  # with the record, and without
        with pytest.raises(DataError, match="must have one output a class, but it has 7 and the data has 3 classes"):
            load_run(run).load_data()
        (run / RECORD).unlink(missing_ok=True)


def test_a_run_that_begins_leaves_nothing_of_an_earlier_one(run: Path, recipe: Recipe) -> None:
    begin_run(run, recipe)
    assert sorted(path.name for path in run.iterdir()) == ["config.toml", "metrics.jsonl"]


def test_a_run_works_from_any_folder(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path)
    typed = replace(recipe, data="photos")
    begun = first_data(typed)
    begin_run("run", typed, begun.record)
    save_run("run", typed.build_supernet(3), typed, ())
    monkeypatch.chdir(tmp_path / "away")
    assert load_run("../run").recipe.data == str(tmp_path / "photos")
    assert same(load_run("../run").load_data().splits, begun.splits)
    # What was typed leads nowhere from here, and so means what it meant; unless there is something else of that name.
    assert own_recipe("../run", typed).data == str(tmp_path / "photos")
    assert continue_run("../run", typed, write=False) == (None, ())
    photos(tmp_path / "away" / "photos", 3, first=600)
    with pytest.raises(RecipeError):
        continue_run("../run", typed, write=False)


def test_lines_that_are_no_paths_stay_as_they_are(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shard(tmp_path / "train-0.parquet", [0, 1], None, [1, 2])
    lines = {
        "digits": "digits",
        "package.module:attribute": "package.module:attribute",
        "train-*.parquet": f"{tmp_path}/train-*.parquet",
        "photos/": f"{tmp_path}/photos",
        f"../{tmp_path.name}/train-0.parquet": f"{tmp_path}/train-0.parquet",
    }
    for line, expected in lines.items():
        begin_run("run", replace(recipe, data=line))
        assert Recipe.load("run/config.toml").data == expected


def test_images_that_moved_are_named(run: Path, folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=rf"there is no '{folder}' any more; say where they are now with --data PATH"):
        load_run(run).load_data()
    assert not load_run(run).load_data(data=str(tmp_path / "moved")).changes.changed
    with pytest.raises(DataError, match="has 0 of its 36 images"):
        load_run(run).load_data(data=str(photos(tmp_path / "wrong", first=600)))


# -- many -------------------------------------------------------------------------------------------------------------


def test_the_time_to_match_many_images_does_not_grow_with_their_square() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (200_000, 16), dtype=np.uint8)
    labels = rng.integers(0, 1000, len(keys))
    order = rng.permutation(len(keys))
    started = time.process_time()
    match = match_images(keys[:-10], labels[:-10], keys[order], labels[order])
    assert time.process_time() - started < 20  # a second or two; comparing each with each takes hours
    assert np.array_equal(order[match.present_R], np.arange(len(keys) - 10))
    assert match.added_P.sum() == 10
    assert not match.relabelled_R.any()


def test_copies_are_matched_one_to_one() -> None:
    keys = np.repeat(np.arange(3, dtype=np.uint8), 16).reshape(3, 16)
    recorded, present = [0, 0, 0, 1, 2], [1, 0, 0, 0, 0, 2]
    match = match_images(keys[recorded], np.array([0, 0, 1, 0, 0]), keys[present], np.array([0, 0, 0, 0, 0, 4]))
    assert match.present_R.tolist() == [1, 2, 3, 0, 5]
    assert match.relabelled_R.tolist() == [False, False, True, False, True]
    assert match.added_P.tolist() == [False] * 4 + [True, False]
    assert all(number >= 0 for number in match.known_P)


def test_every_part_has_a_name() -> None:
    assert PARTS[: len(Splits._fields)] == Splits._fields
    assert os.sep not in RECORD
