"""Labels of any number of classes an image, from files to batches."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ofa.data import Augmentation, ImageData, load_data, split
from ofa.data.labels import label_sets, strata
from ofa.data.sampled import sampled
from ofa.data.sheet import contact_sheet
from ofa.data.source import Source
from ofa.data.sources import DATA
from ofa.errors import DataError
from tests.ofa.data.pictures import encoded, picture

IMAGES = [encoded(picture(seed=seed)) for seed in range(6)]
LISTS = [[1], [], [0, 2], [2], [0, 1, 2], [0]]
EXPECTED = [[k in labels for k in range(3)] for labels in LISTS]
NAMES = ("cat", "dog", "emu")


def write(path: Path, labels: Any, metadata: dict[str, Any] | None = None, images: Any = IMAGES) -> str:
    table = pa.table({"image": images, "labels": labels})
    if metadata is not None:
        features = {"info": {"features": {"labels": metadata}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)
    return str(path)


def many(count: int = 200, seed: int = 0) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(count, 4, generator=generator) < torch.tensor([0.6, 0.3, 0.1, 0.05])
    images = torch.randint(0, 255, (count, 3, 4, 4), generator=generator).to(torch.uint8)
    return ImageData(images=images, labels=labels, class_names=("a", "b", "c", "d"))


@pytest.mark.parametrize("kind", ["numbers", "large", "words", "coded", "names"])
def test_columns_of_lists_are_read(kind: str, tmp_path: Path) -> None:
    words = [[NAMES[number] for number in numbers] for numbers in LISTS]
    columns = {
        "numbers": pa.array(LISTS, pa.list_(pa.int64())),
        "large": pa.array(LISTS, pa.large_list(pa.int16())),
        "words": pa.array(words, pa.list_(pa.string())),
        "coded": pa.array(words, pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "names": pa.array(LISTS, pa.list_(pa.int64())),
    }
    sequence = {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "Sequence"}
    data = load_data(write(tmp_path / "set.parquet", columns[kind], sequence if kind == "names" else None))
    assert data.labels.dtype == torch.bool
    assert data.labels.tolist() == EXPECTED
    assert data.class_names == (NAMES if kind in ("words", "coded", "names") else ("0", "1", "2"))


def test_files_number_their_classes_by_name(tmp_path: Path) -> None:
    for name, numbers, names in (("a", LISTS, NAMES), ("b", [[2 - n for n in each] for each in LISTS], NAMES[::-1])):
        sequence = {"feature": {"names": list(names)}}
        write(tmp_path / f"{name}.parquet", pa.array(numbers, pa.list_(pa.int64())), sequence)
    assert load_data(str(tmp_path)).labels.tolist() == EXPECTED * 2
    known = load_data(str(tmp_path / "a.parquet"), classes=("emu", "fox", "dog", "cat"))
    assert known.labels.tolist() == [[c, False, b, a] for a, b, c in EXPECTED]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (pa.array([[0], None, [1], [2], [0], [1]], pa.list_(pa.int64())), "with 1 missing; give each image its class, or a list"),
        (pa.array([[0], [None], [1], [2], [0], [1]], pa.list_(pa.int64())), "with 1 missing"),
        (pa.array([[0.5]] * 6), "must hold a whole number or a word in every row, or a list of them, but holds double"),
        (pa.array([[0], [-1], [1], [2], [0], [1]]), r"labels must lie in 0\.\.2 for 3 classes, but 1 do not, first -1"),
        (pa.array([[]] * 6, pa.list_(pa.int64())), "must show at least 2 classes, but 0 have images"),
    ],
)
def test_lists_that_cannot_be_labels_are_told(labels: pa.Array, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        load_data(write(tmp_path / "set.parquet", labels))


def test_files_of_lists_and_of_single_classes_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", LISTS)
    write(tmp_path / "b.parquet", [0, 1, 2, 0, 1, 2])
    with pytest.raises(DataError, match="must all hold lists or all hold single classes as labels"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    "labels",
    [LISTS, [np.array(row, np.int64) for row in EXPECTED], [torch.tensor(row) for row in EXPECTED]],
    ids=["lists", "arrays", "tensors"],
)
@pytest.mark.parametrize("listed", [False, True])
def test_datasets_give_lists_or_arrays(labels: Any, listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pictures:
        classes = NAMES
        targets = labels if listed else None

        def __len__(self) -> int:
            return 6

        def __getitem__(self, number: int) -> Any:
            return picture(seed=number), labels[number]

    module = types.ModuleType("pictures_of_many")
    module.Pictures = Pictures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    data = load_data("pictures_of_many:Pictures")
    assert data.labels.tolist() == EXPECTED
    assert data.class_names == NAMES


def test_every_part_of_a_split_has_its_share_of_every_class() -> None:
    data = many()
    parts = split(data, (0.6, 0.2, 0.2), torch.Generator().manual_seed(0))
    assert sum(map(len, parts)) == len(data)
    keys = [{key.numpy().tobytes() for key in part.keys} for part in parts]
    assert not keys[0] & keys[1]
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        share = part.labels.sum(0) / data.labels.sum(0)
        assert ((share - fraction).abs() < 0.1).all()


def test_what_is_too_rare_for_every_part_is_trained_on() -> None:
    data = many(40)
    labels = torch.cat([data.labels[:, :3], torch.arange(40)[:, None] == 7], 1)
    train, *others = split(ImageData(images=data.images, labels=labels, class_names=data.class_names), (0.6, 0.2, 0.2), torch.Generator())
    assert int(train.labels[:, 3].sum()) == 1
    assert not any(part.labels[:, 3].any() for part in others)


def test_the_stratum_of_an_image_is_its_rarest_class() -> None:
    labels = torch.tensor([[True, True], [True, False], [False, False], [True, False]])
    assert strata(labels).tolist() == [1, 0, 2, 0]
    assert strata(torch.tensor([2, 0])).tolist() == [2, 0]


def test_a_part_of_a_set_has_some_images_of_each_class() -> None:
    data = many(400)
    with DATA.registered("many-labels", lambda channels: data):
        assert torch.equal(load_data("many-labels").labels, data.labels)
    source = Source(items=Numbers(400), labels=data.labels, class_names=data.class_names)
    few = sampled(source, 20).labels
    assert few is not None
    assert len(few) < 200
    assert (few.sum(0) >= 4).all()


class Numbers:
    """Items of which only the number is asked for."""

    parallel = True

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def content(self, number: int) -> bytes:
        raise NotImplementedError

    def name(self, number: int) -> str:
        return str(number)


def test_a_contact_sheet_shows_an_image_under_each_of_its_classes() -> None:
    data = many()
    assert [(strip.class_name, strip.images) for strip in contact_sheet(data, 8)] == [
        (name, int(count)) for name, count in zip(data.class_names, data.labels.sum(0), strict=True)
    ]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_have_the_shares_of_both(kind: str) -> None:
    data, generator = many(16), torch.Generator().manual_seed(0)
    plain = data.images.float()
    mixing = Augmentation(mixup=1.0) if kind == "mixup" else Augmentation(cutmix=1.0)
    _, targets = mixing.mix(plain, data.labels, 4, generator)
    single = torch.arange(16) % 4
    generator.manual_seed(0)
    _, of_single = mixing.mix(plain, single, 4, generator.manual_seed(0))
    assert targets.shape == (16, 4)
    assert torch.allclose(of_single.sum(1), torch.ones(16))
    both = torch.unique(targets[(targets > 0) & (targets < 1)])
    assert len(both)
    _, again = mixing.mix(plain, torch.nn.functional.one_hot(single, 4).bool(), 4, generator.manual_seed(0))
    torch.testing.assert_close(again, of_single)


def test_sets_of_labels_are_told_apart() -> None:
    sets, which = label_sets(torch.tensor(EXPECTED))
    assert [list(sets[number]) for number in which] == LISTS
    sets, which = label_sets(torch.tensor([1, 0, 1]))
    assert [sets[number] for number in which] == [(1,), (0,), (1,)]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.ones(2, 4), "labels must be int64"),
        (torch.ones(2, 3, dtype=torch.bool), r"must be bool of shape \[2, 4\], but are torch.bool of shape \[2, 3\]"),
        (torch.tensor([[True, False, False, False]] * 2), "must show at least 2 classes, but 1 have images"),
    ],
)
def test_wrong_labels_are_refused(labels: torch.Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ImageData(images=many(2).images, labels=labels, class_names=("a", "b", "c", "d"))
