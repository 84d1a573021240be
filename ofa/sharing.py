"""Weight sharing: how smaller tensors are taken from the tensors of the store, the store's layout, and the order of channels.

One rule per axis: a channel axis takes the leading channels, a kernel axis the central taps (with a transform), and a grid of positions
is interpolated. The same rule produces the views that are trained and the copies that are shipped.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise, product

import torch
from torch import nn

from ofa.arch import Arch
from ofa.blocks import Block, Role, resampled, sources
from ofa.blocks.runs import Run, Runs, gathered, kept_ranges, permuted
from ofa.families import lower
from ofa.groups import Group, Member
from ofa.space import Space

__all__ = [
    "ChannelGroup",
    "Gathered",
    "KernelTransform",
    "Resampled",
    "StoredTensor",
    "channel_groups",
    "layout",
    "order_within",
    "stretches",
    "trained_widths",
]

_ALIGNMENT = 16

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the store, at its largest size.

    Attributes:
        name: place and name within the block, such as ``stages.0.1.expand.conv.weight``.
        place: place of its block.
        role: the flat tensor that contains it: weights with decay, weights without decay, or batch-norm statistics.
        offset: start in its flat tensor, in values.
        shape: the largest shape.
        axes: for each dimension the block's channel axis, or None.
        kernels: all sizes of an elastic kernel, from the largest down; empty for a fixed kernel.
        is_transform: whether it is the matrix that transforms a kernel to the next smaller size.
        resampled: whether its last two dimensions are a position grid (for the largest images), interpolated for other image sizes.
        runs: for each dimension its runs, if it is more than leading channels; empty if no dimension is.
        lengths: largest lengths of the axes of ``runs``.
    """

    name: str
    place: str
    role: Role
    offset: int
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    kernels: tuple[int, ...] = ()
    is_transform: bool = False
    resampled: bool = False
    runs: tuple[Runs, ...] = ()
    lengths: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def counted(self) -> frozenset[str]:
        """All channel axes among the dimensions."""
        return frozenset(axis for axis in self.axes if axis) | {run.axis for runs in self.runs for run in runs if run.axis}

    @property
    def end(self) -> int:
        """End in its flat tensor, in values."""
        return self.offset + math.prod(self.shape)

    @property
    def slot_end(self) -> int:
        """Start of the next tensor: the next multiple of 16 values (a cache line of float32), so that views are aligned."""
        return -(-self.end // _ALIGNMENT) * _ALIGNMENT

    def steps(self, kernel: int) -> Iterator[tuple[int, str]]:
        """The steps from the stored kernel down to size ``kernel``: the size after each step, and the name of its stored matrix."""
        for large, small in pairwise(self.kernels):
            if small >= kernel:
                yield small, f"{self.name}_{large}to{small}"

    def view(self, tensor: torch.Tensor, shape: tuple[int, ...], lengths: Mapping[str, int]) -> torch.Tensor:
        """The view of the stored tensor for a smaller shape: leading channels and, of a kernel, the taps that its first transform reads.

        Args:
            tensor: the stored tensor.
            shape: the smaller shape.
            lengths: of the axes of the smaller tensor's block.
        """
        for dim, axis in enumerate(self.axes):
            if axis is not None and shape[dim] != self.shape[dim]:
                tensor = tensor.narrow(dim, 0, shape[dim])
        for dim, ranges in self._ranges(lengths):
            tensor = tensor.narrow(dim, ranges[0][0], ranges[-1][1] - ranges[0][0])
        first = next(self.steps(shape[-1]), None) if self.kernels else None
        return tensor if first is None else _crop(tensor, first[0])

    def transform(self, shape: tuple[int, ...], lengths: Mapping[str, int], matrices: Iterable[nn.Parameter]) -> nn.Module | None:
        """The module that computes a tensor of ``shape`` from its ``view``; None if the view is the tensor.

        Args:
            shape: the smaller shape.
            lengths: of the axes of the smaller tensor's block.
            matrices: stored matrices of the ``steps``, in order.
        """
        if self.resampled:
            return None if shape[-2:] == self.shape[-2:] else Resampled(*shape[-2:])
        gaps = tuple((dim, ranges) for dim, ranges in self._ranges(lengths) if len(ranges) > 1)
        if gaps:
            return Gathered(gaps)
        used = list(matrices)
        return KernelTransform(used) if used else None

    def order(self, axis: str, order: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(dimension, index) pairs that permute the units of an axis, for all dimensions that contain them."""
        for dim, counted in enumerate(self.axes):
            if counted == axis:
                yield dim, order
        for dim, runs in enumerate(self.runs):
            if any(run.axis == axis for run in runs):
                yield dim, permuted(runs, axis, order, self.lengths)

    def _ranges(self, lengths: Mapping[str, int]) -> Iterator[tuple[int, Ranges]]:
        for dim, runs in enumerate(self.runs):
            if any(run.axis for run in runs):
                yield dim, tuple(kept_ranges(runs, self.lengths, lengths))


def stretches(
    stored: Iterable[StoredTensor], frozen: Container[str], factors: Mapping[str, float]
) -> dict[tuple[Role, float], list[slice]]:
    """The trained parts of the flat tensors, merged into as few slices as possible.

    Args:
        stored: all tensors of a store, in the order of ``layout``.
        frozen: names of frozen tensors.
        factors: learning-rate multipliers by tensor name; 1 for all others.

    Returns:
        Slices by flat tensor and learning-rate multiplier.
    """
    found: dict[tuple[Role, float], list[slice]] = {}
    for tensor in stored:
        if tensor.name not in frozen:
            parts = found.setdefault((tensor.role, factors.get(tensor.name, 1.0)), [])
            joins = bool(parts) and parts[-1].stop == tensor.offset
            parts.append(slice(parts.pop().start if joins else tensor.offset, tensor.slot_end))
    return found


@lru_cache(maxsize=64)
def layout(space: Space) -> tuple[StoredTensor, ...]:
    """All tensors that a supernet of ``space`` stores, each at its largest shape in any block, in network order.

    A convolution with an elastic kernel also has one matrix for each step from a kernel size to the next smaller one.
    """
    first: dict[str, tuple[str, Block, str]] = {}
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for place, block in _blocks(space):
        for local, shape in block.shapes.items():
            first.setdefault(f"{place}.{local}", (place, block, local))
            shapes.setdefault(f"{place}.{local}", set()).add(shape)
    stored: list[StoredTensor] = []
    ends: dict[Role, int] = {}

    def store(tensor: StoredTensor) -> None:
        stored.append(replace(tensor, offset=ends.get(tensor.role, 0)))
        ends[tensor.role] = stored[-1].slot_end

    for name, (place, block, local) in first.items():
        spec = block.tensors[local]
        rules = [block.axes[dim].rule if isinstance(dim, str) else None for dim in spec.dims]
        runs = tuple(() if isinstance(dim, str | int) else dim for dim in spec.dims)
        axes = tuple(str(dim) if rule == "leading" else None for dim, rule in zip(spec.dims, rules, strict=True))
        sizes = sorted({shape[-1] for shape in shapes[name]}, reverse=True) if "centre" in rules else []
        kernels = tuple(sizes) if len(sizes) > 1 else ()
        largest = tuple(map(max, zip(*shapes[name], strict=True)))
        tensor = StoredTensor(name, place, spec.role, 0, largest, axes, kernels, resampled="resampled" in rules)
        if any(runs):
            tensor = replace(tensor, runs=runs, lengths=block.lengths)
        store(tensor)
        for small, matrix in tensor.steps(0):
            # No weight decay: it would pull the matrix to zero, while the neutral transform is the identity.
            store(StoredTensor(matrix, place, "undecayed", 0, (small**2, small**2), (None, None), is_transform=True))
    return tuple(stored)


def _crop(weight_OIKK: torch.Tensor, kernel: int) -> torch.Tensor:
    """View of a weight's central ``kernel`` x ``kernel`` taps."""
    margin = (weight_OIKK.shape[-1] - kernel) // 2
    return weight_OIKK[..., margin : margin + kernel, margin : margin + kernel] if margin else weight_OIKK


class KernelTransform(nn.Module):
    """Kernel transform: central taps times a learned matrix, once per step (Cai et al., "Once-for-All", ICLR 2020, section 3.3).

    Args:
        matrices: one parameter [k*k, k*k] per step, from the largest kernel size down.
    """

    def __init__(self, matrices: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(matrices)

    def forward(self, weight_OIKK: torch.Tensor) -> torch.Tensor:
        """Transform a weight [O, I, K, K], with K at least the first step's size, to [O, I, k, k] of the last step's size."""
        for matrix in self.matrices:
            side = math.isqrt(matrix.shape[0])
            taps = _crop(weight_OIKK, side).flatten(2)
            weight_OIKK = nn.functional.linear(taps, matrix).unflatten(2, (side, side))
        return weight_OIKK


class Gathered(nn.Module):
    """Gathers ranges of fused dimensions (such as concatenated heads), as smaller networks need; gradients scatter back.

    Args:
        ranges: (dimension, ranges) pairs; each range is (begin, end).
    """

    def __init__(self, ranges: Iterable[tuple[int, Ranges]]) -> None:
        super().__init__()
        self.ranges = tuple((dim, tuple((begin - parts[0][0], end - parts[0][0]) for begin, end in parts)) for dim, parts in ranges)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Concatenate the ranges of each dimension."""
        for dim, parts in self.ranges:
            tensor = gathered(tensor, dim, parts)
        return tensor


class Resampled(nn.Module):
    """Interpolates position embeddings to another grid (``ofa.blocks.resampled``).

    Args:
        rows: of the new grid.
        columns: of the new grid.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, grid_DHW: torch.Tensor) -> torch.Tensor:
        """Interpolate a grid [D, H, W] to [D, rows, columns]."""
        return resampled(grid_DHW, self.rows, self.columns)


# -- the order of channels --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelGroup:
    """Channel axes of the whole network that are coupled: they must have one common order.

    Attributes:
        axes: the coupled (place, axis) pairs.
        unit: number of channels that move together; all channel counts are multiples of it.
        group: the tensors of the largest network along these axes.
    """

    axes: tuple[tuple[str, str], ...]
    unit: int
    group: Group


@lru_cache(maxsize=64)
def channel_groups(space: Space) -> tuple[ChannelGroup, ...]:
    """The groups of channels with elastic counts in ``space``; never the image channels or the classes."""
    widths = trained_widths(space)
    parent = {member: member for member in widths}

    def root(member: tuple[str, str]) -> tuple[str, str]:
        while parent[member] != member:
            member = parent[member]
        return member

    def tie(one: tuple[str, str], other: tuple[str, str]) -> None:
        parent[root(one)] = root(other)

    own = space.ties()
    for pair in own or ():
        tie(*pair)
    # The block that feeds a place depends on the depth of the stages, so every depth is lowered.
    for depth in range(max((len(stage.depths) for stage in space.stages), default=1) if own is None else 0):
        lowered = lower(space, space.uniform(resolution=-1, depth=depth, genes={}))
        for placed, feeding in zip(lowered, sources(lowered), strict=True):
            for one, other in placed.block.ties:
                tie((placed.name, one), (placed.name, other))
            for place in feeding:
                tie((place, "out"), (placed.name, "in"))
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for member in parent:
        groups.setdefault(root(member), []).append(member)
    blocks = {placed.name: placed.block for placed in lower(space, space.largest())}
    return tuple(_group(axes, blocks) for axes in groups.values() if any(len(widths[axis]) > 1 for axis in axes))


def _group(axes: Sequence[tuple[str, str]], blocks: Mapping[str, Block]) -> ChannelGroup:
    """The group of coupled axes, from the blocks of the largest network."""
    known = [(place, axis, blocks[place].axes[axis]) for place, axis in axes if axis in blocks[place].axes]
    unit = math.lcm(*(found.unit for _, _, found in known))
    own = ".".join(axes[0])
    members = tuple(
        Member(f"{place}.{name}", dim, runs, "reads" if dim == spec.ranks else "scales" if spec.scales else "follows", place)
        for place, axis, _ in known
        for name, spec in blocks[place].tensors.items()
        for dim, counted in enumerate(spec.dims)
        if (runs := _runs(counted, axis, blocks[place].lengths, Run(own, inner=unit)))
    )
    length = max((found.length for _, _, found in known), default=0)
    return ChannelGroup(tuple(axes), unit, Group(own, length // unit, members))


def _runs(counted: str | int | Runs, axis: str, lengths: Mapping[str, int], own: Run) -> Runs:
    """The runs of a dimension as seen by the group of ``axis``, whose units are ``own``; empty if the dimension has none of them."""
    if isinstance(counted, str | int):
        return (own,) if counted == axis else ()
    if all(run.axis != axis for run in counted):
        return ()
    return tuple(
        Run(own.axis, run.outer, run.inner * own.inner) if run.axis == axis else Run("", 1, run.length(lengths)) for run in counted
    )


def trained_widths(space: Space) -> dict[tuple[str, str], frozenset[int]]:
    """For each (place, axis), all channel counts that archs of ``space`` have there."""
    widths: dict[tuple[str, str], set[int]] = {}
    for place, block in _blocks(space):
        for name, axis in block.axes.items():
            if axis.rule == "leading":
                widths.setdefault((place, name), set()).add(axis.length)
    return {member: frozenset(counts) for member, counts in widths.items()}


def order_within(scores_U: torch.Tensor, boundaries: Iterable[int], unit: int = 1) -> torch.Tensor:
    """Sort channels by importance, without moving any across a boundary.

    Args:
        scores_U: importance of each unit of channels [U].
        boundaries: channel counts of widths that are already trained; the set of channels below each stays the same.
        unit: number of channels that move together; all boundaries are multiples of it.

    Returns:
        The old index of each channel, most important first within each section [U * unit].
    """
    ends = sorted({0, *(boundary // unit for boundary in boundaries), len(scores_U)})
    order_U = torch.cat([start + torch.argsort(scores_U[start:end], descending=True, stable=True) for start, end in pairwise(ends)])
    return (order_U.unsqueeze(1) * unit + torch.arange(unit, device=order_U.device)).flatten()


@lru_cache(maxsize=64)
def _blocks(space: Space) -> tuple[tuple[str, Block], ...]:
    """(place, block) pairs that together show every tensor and every axis length of the space; the largest arch's pairs come first."""
    archs = (space.largest(), *_uniform_archs(space))
    return tuple(dict.fromkeys((placed.name, placed.block) for arch in archs for placed in lower(space, arch)))


def _uniform_archs(space: Space) -> Iterator[Arch]:
    """Archs that together show every kernel size and every channel count of the space.

    A block's channels depend on its own genes and on the network's genes. So it is enough that all blocks take the same indices, in
    every combination with a common index of all network genes.
    """
    block_genes = dict.fromkeys(gene.name for stage in space.stages for gene in stage.genes)
    counts = [max(len(g.values) for stage in space.stages for g in stage.genes if g.name == name) for name in block_genes]
    network_count = max((len(gene.values) for gene in space.network), default=1)
    choices: Iterable[tuple[int, ...]] = product(*(range(count) for count in counts), range(network_count))
    if space.ties() is not None:  # each channel count depends on a single gene
        choices = ((index,) * (len(counts) + 1) for index in range(max((*counts, network_count))))
    for *indices, network_index in choices:
        genes = dict(zip(block_genes, indices, strict=True)) | {gene.name: network_index for gene in space.network}
        yield space.uniform(resolution=-1, depth=-1, genes=genes)
