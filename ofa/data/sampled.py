"""A sample of a source, for quick overviews and estimates."""

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
"""Least number of items of a class: enough for each part of a split."""


def sampled(source: Source, most: int) -> Source:
    """A source with about ``most`` items: evenly spaced ones, and the first few of each class.

    Args:
        source: the whole source; it is returned as it is if it has at most ``most`` items.
        most: number of items, not counting items added for rare classes.
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
    """A selection of another source's items."""

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
