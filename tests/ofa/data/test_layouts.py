"""Parquet files as Hugging Face's repositories and libraries write them, and datasets in code."""

from __future__ import annotations

import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ofa.data import load_data
from ofa.data.items import ParquetItems
from ofa.errors import DataError
from tests.ofa.data.pictures import encoded, picture

IMAGES = [encoded(picture(seed=seed)) for seed in range(6)]


def write(path: Path, images: Any, labels: Any, names: list[str] | None = None, image: str = "image") -> Path:
    table = pa.table({image: images, "label": labels})
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    "place",
    [
        "train-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "plain_text/train-00000-of-00001.parquet",
        "default/train/0000.parquet",
        "cifar10/train-0.parquet",
        "train/0000.parquet",
    ],
)
def test_repositories_are_read_wherever_their_files_lie(place: str, tmp_path: Path) -> None:
    write(tmp_path / place, IMAGES, [0, 1, 0, 1, 0, 1], ["cat", "dog"])
    (tmp_path / "README.md").write_text("# A set")
    (tmp_path / ".gitattributes").write_text("")
    data = load_data(str(tmp_path))
    assert len(data) == 6
    assert data.class_names == ("cat", "dog")


def test_parts_and_configurations_are_not_mixed(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / "parts" / "default" / part / "0000.parquet", IMAGES, [0, 1, 0, 1, 0, 1])
    with pytest.raises(DataError, match=r"has train, test files; name the training files, for example '.*default/train'"):
        load_data(str(tmp_path / "parts"))
    assert len(load_data(str(tmp_path / "parts" / "default" / "train"))) == 6
    for name in ("large", "small"):
        write(tmp_path / "several" / name / "train-0.parquet", IMAGES, [0, 1, 0, 1, 0, 1])
    with pytest.raises(DataError, match=r"of one configuration, but .* has large, small; name one of them, for example '.*several/large'"):
        load_data(str(tmp_path / "several"))


def test_images_are_bytes_or_paths_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number, data in enumerate(IMAGES):
        (tmp_path / "files" / f"{number}.png").write_bytes(data)
    paths = [f"files/{number}.png" for number in range(6)]
    labels = [0, 1, 0, 1, 0, 1]
    structs = [{"bytes": data if number % 2 else None, "path": paths[number]} for number, data in enumerate(IMAGES)]
    kinds = {
        "bytes": pa.array(IMAGES, pa.large_binary()),
        "paths": pa.array(paths),
        "structs": pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    }
    keys = [load_data(str(write(tmp_path / f"{name}.parquet", column, labels))).keys for name, column in kinds.items()]
    assert torch.equal(keys[0], keys[1])
    assert torch.equal(keys[0], keys[2])
    (tmp_path / "files" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 are not: .*paths\.parquet row 3 \(does not exist\)"):
        load_data(str(tmp_path / "paths.parquet"))


def test_labels_are_numbers_or_words(tmp_path: Path) -> None:
    words = ["dog", "cat", "dog", "emu", "cat", "dog"]
    for name, column in {"words": pa.array(words), "coded": pa.array(words).dictionary_encode()}.items():
        data = load_data(str(write(tmp_path / f"{name}.parquet", IMAGES, column)))
        assert data.class_names == ("cat", "dog", "emu")
        assert data.labels.tolist() == [1, 0, 1, 2, 0, 1]
    flags = load_data(str(write(tmp_path / "flags.parquet", IMAGES, [True, False] * 3)))
    assert flags.labels.tolist() == [1, 0] * 3
    with pytest.raises(DataError, match="a word in every row, or a list of them, but holds double"):
        load_data(str(write(tmp_path / "floats.parquet", IMAGES, [0.5] * 6)))


def test_shards_number_their_classes_by_name(tmp_path: Path) -> None:
    write(tmp_path / "x" / "0.parquet", IMAGES[:3], [0, 1, 0], ["cat", "dog"])
    write(tmp_path / "x" / "1.parquet", IMAGES[3:], [0, 1, 1], ["dog", "cat"])
    data = load_data(str(tmp_path / "x"))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 0]
    for names, words in ((["dog", "emu"], "'1.parquet' has dog, emu"), (None, "'1.parquet' has none")):
        write(tmp_path / "x" / "1.parquet", IMAGES[3:], [0, 1, 1], names)
        with pytest.raises(DataError, match=rf"must name the same classes, but '0.parquet' has cat, dog and {words}"):
            load_data(str(tmp_path / "x"))
    write(tmp_path / "x" / "1.parquet", IMAGES[3:], ["cat", "dog", "dog"], ["cat", "dog"])
    with pytest.raises(DataError, match="must all hold numbers or all hold words"):
        load_data(str(tmp_path / "x"))


def test_parquet_to_test_on_may_lack_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "test.parquet", IMAGES, [1] * 6, ["dog", "cat"])
    data = load_data(str(path), classes=("cat", "emu", "dog"))
    assert data.labels.tolist() == [0] * 6
    assert data.num_classes == 3
    with pytest.raises(DataError, match="at least 2 classes"):
        load_data(str(path))
    with pytest.raises(DataError, match="must be among cat, emu, but dog is not"):
        load_data(str(path), classes=("cat", "emu"))
    bad = write(tmp_path / "bad.parquet", IMAGES, [7] * 6, ["dog", "cat"])
    with pytest.raises(DataError, match="labels must lie in"):
        load_data(str(bad), classes=("cat", "dog"))


def test_parquet_is_sent_to_other_processes_by_its_paths(tmp_path: Path) -> None:
    items = ParquetItems(
        (write(tmp_path / "a.parquet", IMAGES, [0] * 6), write(tmp_path / "b.parquet", IMAGES[::-1], [0] * 6)), "image", "both"
    )
    assert items.content(11) == IMAGES[0]
    sent = pickle.dumps(items)
    assert len(sent) < 500
    there = pickle.loads(sent)
    assert [there.content(number) for number in range(12)] == [*IMAGES, *IMAGES[::-1]]


# -- datasets in code -------------------------------------------------------------------------------------------------


class Listed:
    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        self.read: list[int] = []
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        self.read.append(number)
        if isinstance(self.items[number], Exception):
            raise self.items[number]
        return self.items[number]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(dataset: Any) -> str:
        module = types.ModuleType("own_data_here")
        module.data = dataset  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_data_here", module)
        return "own_data_here:data"

    return put


ARRAY = np.asarray(picture((10, 8)))


@pytest.mark.parametrize(
    "image",
    [
        picture((10, 8)),
        ARRAY,
        torch.from_numpy(ARRAY.copy()).permute(2, 0, 1),
        ARRAY.astype(np.uint16) * 257,
        ARRAY.astype(np.int32),
        ARRAY.astype(np.int64),
        ARRAY / 255,
        torch.from_numpy(ARRAY / np.float32(255)).permute(2, 0, 1),
        ARRAY.astype(">u2") * 257,
        encoded(picture((10, 8))),
        {"bytes": encoded(picture((10, 8))), "path": None},
    ],
    ids=["PIL", "uint8", "tensor", "uint16", "int32", "int64", "float64", "float tensor", "big-endian", "bytes", "struct"],
)
@pytest.mark.parametrize("memory", [2**30, 1])
def test_a_dataset_gives_images_of_any_form(image: Any, memory: int, named: Any) -> None:
    data = load_data(named(Listed([(image, number % 2) for number in range(4)])), memory=memory)
    x = data.read(torch.tensor([3]), 8).x_BCHW
    np.testing.assert_array_equal(x[0].permute(1, 2, 0).numpy(), ARRAY[:, 1:9])


@pytest.mark.parametrize("keys", [("image", "label"), ("img", "labels"), ("pixel_values", "fine_label")])
def test_items_may_be_dictionaries(keys: tuple[str, str], named: Any) -> None:
    features = {keys[1]: types.SimpleNamespace(names=["cat", "dog"])}
    dataset = Listed([{keys[0]: ARRAY, "id": 3, keys[1]: number % 2} for number in range(4)], features=features)
    data = load_data(named(dataset))
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.class_names == ("cat", "dog")
    assert dataset.read == [0, 1, 2, 3]  # each once


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (3, "one is int"),
        ((ARRAY, 0, "more"), r"one is a tuple of 3 \(ndarray \[8, 10, 3\], int, str\)"),
        ({"picture": ARRAY, "label": 0}, "one is a dictionary with picture, label"),
        (("a.png", 0), "images of .* must be PIL images, .* but one is str"),
        ((ARRAY, "cat"), r"must be \(image, label\) with a class index"),
        ((ARRAY, 0.5), r"class index, but one label is 0\.5; give whole numbers"),
        ((ARRAY, None), r"must be \(image, label\) with a class index"),
    ],
)
def test_items_of_other_shapes_are_refused_with_their_look(item: Any, words: str, named: Any) -> None:
    with pytest.raises(DataError, match=words):
        load_data(named(Listed([item] * 4)))


def test_what_a_dataset_raises_is_the_reason(named: Any) -> None:
    items: list[Any] = [(ARRAY, 0), KeyError("no such file"), (ARRAY, 1), (np.zeros((2, 2, 2, 2)), 1)]
    with pytest.raises(DataError, match=r"2 of 4 are not: .*\[1\] \(the dataset raises KeyError: 'no such file'\), .*\[3\] \(is an array"):
        load_data(named(Listed(items)))
    data = load_data(named(Listed(items)), unreadable="skip")
    assert data.labels.tolist() == [0, 1]


def test_any_number_of_channels_comes_from_arrays(named: Any) -> None:
    rng = np.random.default_rng(0)
    items = [(rng.integers(0, 2**16, (8, 8, 6)).astype(np.uint16), number % 2) for number in range(4)]
    data = load_data(named(Listed(items)), channels=6)
    assert data.read(torch.arange(4), 5).x_BCHW.shape == (4, 6, 5, 5)
    with pytest.raises(DataError, match="must have the 3 channels that the networks read, but one has 6"):
        load_data(named(Listed(items)))
    assert Image.fromarray(np.zeros((2, 2), np.uint8)).mode == "L"
