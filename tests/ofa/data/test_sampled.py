from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from ofa.data.items import DatasetItems, FileItems, ParquetItems
from ofa.data.sampled import sampled
from ofa.data.source import Source


def source(items: object, labels: torch.Tensor | None) -> Source:
    return Source(items=items, labels=labels, class_names=("a", "b", "c"))  # type: ignore[arg-type]


def test_a_source_of_few_items_is_whole() -> None:
    whole = source(FileItems([Path(str(number)) for number in range(10)]), torch.zeros(10, dtype=torch.int64))
    assert sampled(whole, 10) is whole


def test_items_are_at_even_distances_and_each_class_has_some() -> None:
    labels = torch.tensor([0] * 900 + [1] * 3 + [2] * 97)
    some = sampled(source(FileItems([Path(str(number)) for number in range(1000)]), labels), 20)
    assert isinstance(some.items, FileItems)
    numbers = [int(path.name) for path in some.items.paths]
    assert some.labels is not None
    assert some.labels.tolist() == labels[numbers].tolist()
    assert set(range(0, 1000, 50)) <= set(numbers)
    assert {900, 901, 902} <= set(numbers)
    assert int((some.labels == 2).sum()) >= 8
    assert numbers == sorted(set(numbers))


def test_items_of_a_dataset_and_of_rows_are_the_same_ones() -> None:
    values = torch.arange(40)
    dataset = DatasetItems(TensorDataset(values[:, None, None].to(torch.uint8).expand(-1, 4, 4), values), "mine:data")
    some = sampled(source(dataset, None), 4)
    assert some.labels is None
    assert [int(np.asarray(some.items.content(number))[0, 0]) for number in range(len(some.items))] == [0, 10, 20, 30]

    class Rows(ParquetItems):
        def __len__(self) -> int:
            return 40

        def content(self, number: int) -> bytes:
            return str(number).encode()

    rows = sampled(source(Rows((), "image", "some.parquet"), None), 4).items
    assert [rows.content(number) for number in range(len(rows))] == [b"0", b"10", b"20", b"30"]
    assert rows.name(3) == "some.parquet row 30"
    assert rows.parallel
