"""A part of a source in place of all of it, where only an impression is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Subset

from ofa.data.items import DatasetItems, FileItems, Items
from ofa.data.labels import strata
from ofa.data.reading import Content
from ofa.data.source import Source

__all__ = ["sampled"]

_LEAST_OF_A_CLASS = 8
"""Items: enough for each part of a split to have some."""


def sampled(source: Source, most: int) -> Source:
    """The source with about ``most`` of its items: those at even distances, and the first few of each class.

    Args:
        source: whole; it is given back where it has no more items.
        most: items, but for those that a class of few items needs.
    """
    count = len(source.items)
    if count <= most:
        return source
    chosen = torch.arange(most) * count // most
    if source.labels is not None:
        chosen = torch.unique(torch.cat([chosen, _first_of_each(strata(source.labels))]))
    labels = None if source.labels is None else source.labels[chosen]
    return replace(source, items=_chosen(source.items, chosen.tolist()), labels=labels)


def _first_of_each(labels: Tensor) -> Tensor:
    """The indices of the first items of each label."""
    order = torch.sort(labels, stable=True).indices
    ranked = labels[order]
    starts = torch.searchsorted(ranked, ranked)
    return order[torch.arange(len(order)) - starts < _LEAST_OF_A_CLASS]


def _chosen(items: Items, numbers: Sequence[int]) -> Items:
    if isinstance(items, FileItems):
        return FileItems([items.paths[number] for number in numbers])
    if isinstance(items, DatasetItems):
        return DatasetItems(Subset(items.dataset, numbers), items.source)
    return _Rows(items, tuple(numbers))


@dataclass(frozen=True)
class _Rows:
    """Some of the items of another source."""

    items: Items
    numbers: tuple[int, ...]

    @property
    def parallel(self) -> bool:
        return self.items.parallel

    def __len__(self) -> int:
        return len(self.numbers)

    def content(self, number: int) -> Content:
        return self.items.content(self.numbers[number])

    def name(self, number: int) -> str:
        return self.items.name(self.numbers[number])
