"""Runs: the layout of fused dimensions, in which a smaller network's values are not simply the leading ones.

A dimension is a concatenation of runs. A run of an axis has ``outer x units x inner`` values, in this order. Example: the rows of a fused
query-key-value matrix are one run with 3 x heads x (channels of a head) values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Run", "Runs", "gathered", "kept_ranges", "length_of", "permuted"]


@dataclass(frozen=True)
class Run:
    """Consecutive values of a dimension that belong to one axis, or to none.

    Attributes:
        axis: name of the axis; empty for a fixed number of values.
        outer: number of repetitions of all units.
        inner: number of consecutive values per unit; without an axis, the number of all values.
    """

    axis: str
    outer: int = 1
    inner: int = 1

    def length(self, lengths: Mapping[str, int]) -> int:
        """The number of values, given the number of units of each axis."""
        return self.outer * self.inner * (lengths[self.axis] if self.axis else 1)


Runs = tuple[Run, ...]


def length_of(runs: Runs, lengths: Mapping[str, int]) -> int:
    """The length of a dimension, given the number of units of each axis."""
    return sum(run.length(lengths) for run in runs)


def kept_ranges(runs: Runs, full: Mapping[str, int], kept: Mapping[str, int]) -> list[tuple[int, int]]:
    """The (begin, end) ranges of a dimension that remain when every axis keeps its leading units, merged where they touch.

    Args:
        runs: of the dimension.
        full: number of units by axis, in the whole dimension.
        kept: number of remaining units by axis; all for an axis that is not named.
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
    """Merge consecutive ranges without a gap between them."""
    joined: list[tuple[int, int]] = []
    for begin, end in parts:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        elif end > begin:
            joined.append((begin, end))
    return joined


def permuted(runs: Runs, axis: str, order: Tensor, full: Mapping[str, int]) -> Tensor:
    """The index that permutes the values of a dimension by a new order of an axis's units.

    Args:
        runs: of the dimension.
        axis: the axis whose units are permuted.
        order: int64 [units], the old index of each unit.
        full: number of units by axis.

    Returns:
        int64 [length of the dimension], the old index of each value.
    """
    parts, offset = [], 0
    for run in runs:
        index = torch.arange(offset, offset + run.length(full), device=order.device)
        parts.append(index.view(run.outer, -1, run.inner)[:, order].flatten() if run.axis == axis else index)
        offset += len(index)
    return torch.cat(parts)


def gathered(tensor: Tensor, dim: int, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """The values of a tensor within ranges of one dimension, concatenated; a view if there is a single range."""
    pieces = [tensor.narrow(dim, begin, end - begin) for begin, end in ranges]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
