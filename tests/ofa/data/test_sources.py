"""Real files of every kind: what is read, and what is refused with which words."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ofa.data import (
    Augmentation,
    BatchPlan,
    EncodedImages,
    ImageData,
    batches,
    default_workers,
    load_batches,
    load_data,
    make_batch,
    measure_loader,
    split,
)
from ofa.errors import DataError

RNG = np.random.default_rng(0)


def picture(label: int, size: tuple[int, int] = (12, 12)) -> Image.Image:
    """A picture whose brightness tells its class."""
    noise = RNG.integers(0, 20, (size[1], size[0], 3))
    return Image.fromarray((60 * label + noise).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_folder(root: Path, sizes: list[tuple[int, int]], each: int = 6) -> Path:
    for label, name in enumerate(("ant", "bee", "cat")):
        (root / name).mkdir(parents=True)
        for number in range(each):
            picture(label, sizes[number % len(sizes)]).save(root / name / f"{number}.{'png' if number % 2 else 'JPG'}")
    return root


def write_parquet(path: Path, rows: list[tuple[bytes | None, int]], names: list[str] | None = None, column: str = "image") -> Path:
    images = pa.array([{"bytes": data, "path": None} for data, _ in rows], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({column: images, "label": pa.array([label for _, label in rows], pa.int64())})
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)
    return path


# -- what is read -----------------------------------------------------------------------------------------------------


def test_images_of_one_size_in_a_folder_are_read_into_memory(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "photos", [(12, 12)])))
    assert isinstance(data, ImageData)
    assert data.class_names == ("ant", "bee", "cat")
    assert data.images.shape == (18, 3, 12, 12)
    assert torch.equal(data.labels, torch.arange(3).repeat_interleave(6))
    assert default_workers(data) == 0


def test_images_of_many_sizes_stay_encoded_and_give_the_middle_square(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "photos", [(12, 12), (40, 20), (15, 31)])))
    assert isinstance(data, EncodedImages)
    assert default_workers(data) >= 1
    x, y = make_batch(data, torch.tensor([0, 7, 17]), resolution=10)
    assert x.shape == (3, 3, 10, 10)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == [0, 1, 2]
    assert x[0].mean() < x[1].mean() < x[2].mean()


def test_parquet_in_the_layout_of_hugging_face(tmp_path: Path) -> None:
    rows = [(encoded(picture(label)), label) for label in (1, 0, 1, 0)]
    data = load_data(str(write_parquet(tmp_path / "a.parquet", rows, ["no", "yes"])))
    assert isinstance(data, ImageData)
    assert data.class_names == ("no", "yes")
    assert data.labels.tolist() == [1, 0, 1, 0]
    for shard in range(2):
        write_parquet(tmp_path / f"{shard}.parquet", rows, column="img")
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        (tmp_path / f"{shard}.parquet").rename(tmp_path / "shards" / f"{shard}.parquet")
    both = load_data(str(tmp_path / "shards"))
    assert len(both) == 8
    assert both.class_names == ("0", "1")


def test_what_does_not_fit_in_memory_is_streamed_and_gives_the_same(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "a.parquet", [(encoded(picture(label % 3)), label % 3) for label in range(9)]))
    here, there = load_data(path), load_data(path, memory=100)
    assert isinstance(here, ImageData)
    assert isinstance(there, EncodedImages)
    index = torch.tensor([4, 2, 8])
    assert torch.equal(here.read(index, 12).x_BCHW, there.read(index, 12).x_BCHW)


DATASET = """
import numpy as np
import torch


class Squares(torch.utils.data.Dataset):
    classes = ["dark", "light"]

    def __len__(self):
        return 8

    def __getitem__(self, number):
        label = number % 2
        image = torch.full((3, 9, 9), 200 * label, dtype=torch.uint8) + number
        return (image if number < 4 else image.permute(1, 2, 0).numpy()), label


squares = Squares()


class Words(Squares):
    def __getitem__(self, number):
        return "a picture", number % 2


class NoPairs(Squares):
    def __getitem__(self, number):
        return 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_squares.py").write_text(DATASET)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_squares"


@pytest.mark.parametrize("attribute", ["squares", "Squares"])
def test_any_dataset_is_named_by_its_module(attribute: str, module: str) -> None:
    data = load_data(f"{module}:{attribute}")
    assert data.class_names == ("dark", "light")
    assert data.labels.tolist() == [0, 1] * 4
    assert data.read(torch.tensor([5]), 9).x_BCHW.unique().tolist() == [205]


def test_no_image_is_in_two_parts(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "photos", [(12, 12), (14, 12)])))
    parts = split(data, (0.5, 0.25, 0.25), torch.Generator().manual_seed(0))
    rows = [row for part in parts for row in part.rows.tolist()]
    assert sorted(rows) == list(range(18))
    assert len({part.normalization for part in parts}) == 1


# -- loading ahead ----------------------------------------------------------------------------------------------------


def test_workers_change_nothing(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "photos", [(30, 20), (16, 24)])))
    augmentation = Augmentation(crop_scale=0.3, flip=True, shift=0.1, colour=0.2, mixup=0.5)
    plans = [BatchPlan(torch.arange(number, number + 6), 16, seed=number) for number in range(8)]
    before = torch.get_rng_state()
    here, there = (list(load_batches(data, plans, augmentation=augmentation, workers=workers)) for workers in (0, 2))
    assert len(here) == 8
    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
    assert torch.equal(torch.get_rng_state(), before)
    again = list(load_batches(data, plans[5:], augmentation=augmentation))
    assert torch.equal(again[0][0], here[5][0])


def test_a_loader_may_be_closed_early_and_measured(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "photos", [(30, 20), (16, 24)])))
    plans = [BatchPlan(torch.arange(6), 16, None)] * 10
    loader = load_batches(data, plans, workers=1)
    next(loader)
    loader.close()
    assert measure_loader(data, plans, workers=1) > 0
    assert sum(len(y) for _, y in batches(data, batch_size=5, resolution=8)) == 18


# -- what is refused --------------------------------------------------------------------------------------------------


def break_some(root: Path) -> Path:
    write_folder(root, [(12, 12)])
    (root / "bee" / "1.png").write_bytes(b"no picture at all")
    whole = (root / "cat" / "3.png").read_bytes()
    (root / "cat" / "3.png").write_bytes(whole[: len(whole) // 2])
    return root


def test_unreadable_images_are_counted_and_named(tmp_path: Path) -> None:
    root = break_some(tmp_path / "photos")
    with pytest.raises(DataError, match=r"2 of 18 are not: .*bee/1\.png \(has no content of an image\), .*cat/3\.png \(.*\); remove"):
        load_data(str(root))
    data = load_data(str(root), unreadable="skip")
    assert len(data) == 16
    assert [Path(name).name for name in data.skipped] == ["1.png", "3.png"]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_turns_out_to_be_broken_is_refused_or_left_out_of_its_batch(workers: int, tmp_path: Path) -> None:
    root = break_some(tmp_path / "photos")
    (root / "bee" / "1.png").unlink()
    (root / "cat" / "3.png").unlink()
    strict, lenient = (load_data(str(root), memory=100, unreadable=choice) for choice in ("refuse", "skip"))
    (root / "ant" / "1.png").write_bytes(b"overwritten since")
    assert isinstance(lenient, EncodedImages)
    plans = [BatchPlan(torch.arange(len(lenient)), 12, None)]
    ((x, y),) = load_batches(lenient.normalized(((0.5,) * 3, (0.5,) * 3)), plans, workers=workers)
    assert len(x) == len(y) == 15
    assert {Path(name).name for name in lenient.broken} == {"1.png"}
    with pytest.raises(DataError, match=r"must be readable, but .*ant/1\.png is not"):
        strict.read(torch.arange(len(strict)), 12)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has 0 folders and no images"):
        load_data(str(tmp_path / "empty"))
    (tmp_path / "single" / "only").mkdir(parents=True)
    picture(0).save(tmp_path / "single" / "only" / "a.png")
    with pytest.raises(DataError, match="has the one folder 'only'; add another class"):
        load_data(str(tmp_path / "single"))
    (tmp_path / "single" / "bare").mkdir()
    with pytest.raises(DataError, match="none in bare"):
        load_data(str(tmp_path / "single"))


def test_images_to_train_and_to_test_on_are_not_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    rows = [(encoded(picture(label)), label) for label in (0, 1, 2)]
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_parquet(folder / f"{name}.parquet", rows)
    for spec in (folder, folder.parent):
        with pytest.raises(DataError, match=r"has train, test files; name the training files, .*train\*\.parquet'"):
            load_data(str(spec))
    assert len(load_data(str(folder / "train*.parquet"))) == 6
    (folder / "test-00000-of-00001.parquet").unlink()
    assert len(load_data(str(folder.parent))) == 6
    write_folder(tmp_path / "photos" / "train", [(12, 12)])
    write_folder(tmp_path / "photos" / "val", [(12, 12)])
    with pytest.raises(DataError, match=r"'.*photos' has train, val; name one of them as data, for example '.*photos/train'"):
        load_data(str(tmp_path / "photos"))
    (tmp_path / "photos" / "val").rename(tmp_path / "photos" / "test")
    with pytest.raises(DataError, match=r"has train, test; name one of them as data, for example '.*photos/train'"):
        load_data(str(tmp_path / "photos"))


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    good = encoded(picture(0))
    (tmp_path / "text.parquet").write_text("no parquet")
    pq.write_table(pa.table({"picture": [good], "label": [0]}), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"image": [3], "label": [0]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"image": [good, good], "label": pa.array([0, None], pa.int64())}), tmp_path / "missing.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), tmp_path / "none.parquet")
    write_parquet(tmp_path / "range.parquet", [(good, 0), (good, 7)], ["a", "b"])
    write_parquet(tmp_path / "negative.parquet", [(good, 0), (good, -1), (good, 1)])
    for name, words in {
        "text": "must be a Parquet file",
        "columns": "must have a column image or img or pixel_values, but has picture, label",
        "numbers": "must hold encoded images or paths, but holds int64",
        "missing": "with 1 missing",
        "none": "has no rows",
        "range": r"labels must lie in 0\.\.1 for 2 classes, but 1 do not, first 7 at image 1",
        "negative": "first -1 at image 1",
    }.items():
        with pytest.raises(DataError, match=words):
            load_data(str(tmp_path / f"{name}.parquet"))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digit", "did you mean 'digits'"),
        ("no/such/place.parquet", "check the path"),
        ("no_such_module_here:thing", "No module named"),
        ("own_squares:absent", "has no attribute 'absent'"),
        ("own_squares:NoPairs", "must be .image, label."),
        ("own_squares:Words", r"one is a tuple of 2 \(str, int\)|one is str"),
    ],
)
def test_specs_that_name_nothing(spec: str, words: str, module: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data(spec)


def test_a_missing_image_is_unreadable(tmp_path: Path) -> None:
    rows: list[tuple[Any, int]] = [(encoded(picture(0)), 0), (None, 1), (encoded(picture(1)), 1)]
    with pytest.raises(DataError, match=r"1 of 3 are not: .* row 1"):
        load_data(str(write_parquet(tmp_path / "a.parquet", rows)))
