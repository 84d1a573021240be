"""Runs: what a dimension of a tensor is made of, where the values of an axis are not simply its leading ones.

A dimension is a sum of runs, as concatenated channels are; a run of an axis has ``outer x units x inner`` values in this order. The
queries, keys and values of attention in one matrix, for example, have 3 x heads x (values of a head).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Run", "Runs", "gathered", "kept_ranges", "length_of", "permuted"]


@dataclass(frozen=True)
class Run:
    """Values of a dimension that belong to one axis, or to none.

    Attributes:
        axis: its name; empty for values that stay.
        outer: how often the units follow each other.
        inner: values of a unit in a row; of no axis all of its values.
    """

    axis: str
    outer: int = 1
    inner: int = 1

    def length(self, lengths: Mapping[str, int]) -> int:
        """Its number of values where the axes have these numbers of units."""
        return self.outer * self.inner * (lengths[self.axis] if self.axis else 1)


Runs = tuple[Run, ...]


def length_of(runs: Runs, lengths: Mapping[str, int]) -> int:
    """The length of a dimension where the axes have these numbers of units."""
    return sum(run.length(lengths) for run in runs)


def kept_ranges(runs: Runs, full: Mapping[str, int], kept: Mapping[str, int]) -> list[tuple[int, int]]:
    """Begin and end of the values of a dimension that stay when every axis keeps its leading units, as few as can be.

    Args:
        runs: of the dimension.
        full: units by axis of the whole dimension.
        kept: units by axis that stay; an axis that is not named keeps all.
    """
    return _joined(_ranges(runs, full, kept))


def _ranges(runs: Runs, full: Mapping[str, int], kept: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    offset = 0
    for run in runs:
        each = run.length(full) // run.outer
        for begin in range(offset, offset + run.outer * each, each):
            yield begin, begin + (kept.get(run.axis, full[run.axis]) * run.inner if run.axis else run.inner)
        offset += run.outer * each


def _joined(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges, with neighbours that have no gap between them as one."""
    joined: list[tuple[int, int]] = []
    for begin, end in parts:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        elif end > begin:
            joined.append((begin, end))
    return joined


def permuted(runs: Runs, axis: str, order: Tensor, full: Mapping[str, int]) -> Tensor:
    """The index by which a dimension's values take the new order of an axis's units.

    Args:
        runs: of the dimension.
        axis: whose units change places.
        order: int64 [units], the old number of each unit.
        full: units by axis.
    """
    parts, offset = [], 0
    for run in runs:
        index = torch.arange(offset, offset + run.length(full), device=order.device)
        parts.append(index.view(run.outer, -1, run.inner)[:, order].flatten() if run.axis == axis else index)
        offset += len(index)
    return torch.cat(parts)


def gathered(tensor: Tensor, dim: int, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """The values of a tensor within ranges of one dimension; a view where there is one range."""
    pieces = [tensor.narrow(dim, begin, end - begin) for begin, end in ranges]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
