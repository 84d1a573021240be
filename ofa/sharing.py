"""How a block's tensors lie in the store: leading slices of channels, the centre of a kernel with its transform, channel order.

One rule for every tensor: an axis of channels takes the leading ones, an axis of the kernel the centre. The same rule makes the
views that are trained and the copies that are shipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import Literal

import torch
from torch import nn

from ofa.arch import Arch
from ofa.blocks import Block
from ofa.families import lower
from ofa.space import Space

__all__ = [
    "ChannelGroup",
    "KernelTransform",
    "StoredTensor",
    "channel_groups",
    "crop",
    "importance",
    "kernel_steps",
    "layout",
    "leading",
    "order_within",
    "tensor_axes",
    "trained_widths",
    "transform_name",
]

Kind = Literal["decayed", "undecayed", "statistics"]

KERNEL_AXIS = "kernel"
_ALIGNMENT = 16
_NORM_TENSORS: dict[str, Kind] = {
    "weight": "undecayed",
    "bias": "undecayed",
    "running_mean": "statistics",
    "running_var": "statistics",
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the store at its largest.

    Attributes:
        name: place and name within the block, such as ``stages.0.1.expand.conv.weight``.
        kind: which flat tensor it lies in: weights that decay, those that do not, or batch-norm statistics.
        offset: where it begins in its flat tensor, in values.
        shape: its largest shape.
        axes: what each axis counts: a block-local axis of channels, ``kernel``, or None for what never varies.
    """

    name: str
    kind: Kind
    offset: int
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]

    @property
    def end(self) -> int:
        """Where it ends in its flat tensor."""
        return self.offset + math.prod(self.shape)

    @property
    def slot_end(self) -> int:
        """Where the next one begins: at the next whole cache line, so that no view is out of step with the vector units."""
        return -(-self.end // _ALIGNMENT) * _ALIGNMENT

    @property
    def is_transform(self) -> bool:
        """Whether it is the matrix that leads from a kernel to a smaller one."""
        return self.axes == (None, None)


def tensor_axes(block: Block) -> dict[str, tuple[Kind, tuple[str | None, ...]]]:
    """By name within the block: the kind of each tensor, and what its axes count."""
    tensors: dict[str, tuple[Kind, tuple[str | None, ...]]] = {}
    for layer in block.layers:
        inputs = None if layer.depthwise else layer.inputs
        stem, kernel = (layer.name, ()) if layer.linear else (f"{layer.name}.conv", (KERNEL_AXIS, KERNEL_AXIS))
        tensors[f"{stem}.weight"] = ("decayed", (layer.outputs, inputs, *kernel))
        if layer.bias:
            tensors[f"{stem}.bias"] = ("undecayed", (layer.outputs,))
        if layer.norm:
            tensors |= {f"{layer.name}.norm.{name}": (kind, (layer.outputs,)) for name, kind in _NORM_TENSORS.items()}
    return tensors


@lru_cache(maxsize=64)
def layout(space: Space) -> tuple[StoredTensor, ...]:
    """Every tensor that a supernet of ``space`` stores, in the order of the network.

    The largest arch has the largest value of every tensor. A convolution whose kernel is elastic also has one matrix for each
    step from a kernel to the next smaller one.
    """
    steps = kernel_steps(space)
    stored: list[StoredTensor] = []
    ends: dict[Kind, int] = {"decayed": 0, "undecayed": 0, "statistics": 0}

    def store(name: str, kind: Kind, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> None:
        stored.append(StoredTensor(name, kind, ends[kind], shape, axes))
        ends[kind] = stored[-1].slot_end

    for placed in lower(space, space.largest()):
        kernels = {layer.name: layer.kernel for layer in placed.block.layers}
        for local, (kind, axes) in tensor_axes(placed.block).items():
            name = f"{placed.name}.{local}"
            lengths = {**placed.block.channels, KERNEL_AXIS: kernels.get(local.removesuffix(".conv.weight"), 1)}
            store(name, kind, tuple(1 if axis is None else lengths[axis] for axis in axes), axes)
            for large, small in steps.get(name, ()):
                # Decaying a matrix pulls it to zero, but doing nothing is the identity; so it does not decay.
                store(transform_name(name, large, small), "undecayed", (small**2, small**2), (None, None))
    return tuple(stored)


# -- slices -----------------------------------------------------------------------------------------------------------


def leading(tensor: torch.Tensor, axes: Sequence[str | None], channels: Mapping[str, int]) -> torch.Tensor:
    """The view of a stored tensor that keeps the leading channels of every axis."""
    for dim, axis in enumerate(axes):
        if axis is not None and channels.get(axis, tensor.shape[dim]) != tensor.shape[dim]:
            tensor = tensor.narrow(dim, 0, channels[axis])
    return tensor


def crop(weight_OIKK: torch.Tensor, kernel: int) -> torch.Tensor:
    """The view of a weight's central ``kernel`` x ``kernel`` taps."""
    margin = (weight_OIKK.shape[-1] - kernel) // 2
    return weight_OIKK[..., margin : margin + kernel, margin : margin + kernel] if margin else weight_OIKK


class KernelTransform(nn.Module):
    """Makes a small kernel of a large one: the centre, times a learned matrix, once for each step (Cai et al. 2020, section 3.3).

    Args:
        matrices: one parameter [k*k, k*k] for each step, from the larger kernels to the smaller.
    """

    def __init__(self, matrices: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(matrices)

    def forward(self, weight_OIKK: torch.Tensor) -> torch.Tensor:
        """The weight [O, I, k, k] of the last step, from one at least as large as the first step's."""
        for matrix in self.matrices:
            side = math.isqrt(matrix.shape[0])
            taps = crop(weight_OIKK, side).flatten(2)
            weight_OIKK = nn.functional.linear(taps, matrix).unflatten(2, (side, side))
        return weight_OIKK


def transform_name(weight: str, large: int, small: int) -> str:
    """Name of the stored matrix that leads from one kernel size of a weight to the next smaller."""
    return f"{weight}_{large}to{small}"


@lru_cache(maxsize=64)
def kernel_steps(space: Space) -> dict[str, tuple[tuple[int, int], ...]]:
    """By name of each weight whose kernel is elastic: the steps (larger, smaller) from its largest kernel down."""
    kernels: dict[str, set[int]] = {}
    for arch in _uniform_archs(space):
        for placed in lower(space, arch):
            for layer in placed.block.layers:
                if not layer.linear:
                    kernels.setdefault(f"{placed.name}.{layer.name}.conv.weight", set()).add(layer.kernel)
    return {name: tuple(pairwise(sorted(sizes, reverse=True))) for name, sizes in kernels.items() if len(sizes) > 1}


# -- the order of channels --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelGroup:
    """Axes of channels all over the network that must keep one common order.

    Attributes:
        members: the (place, axis) pairs that belong together.
    """

    members: tuple[tuple[str, str], ...]


@lru_cache(maxsize=64)
def channel_groups(space: Space) -> tuple[ChannelGroup, ...]:
    """The groups of channels whose number is elastic in ``space``; the image's channels and the classes are never among them."""
    lowered = lower(space, space.largest())
    parent: dict[tuple[str, str], tuple[str, str]] = {
        (placed.name, axis): (placed.name, axis) for placed in lowered for axis in placed.block.channels
    }

    def root(member: tuple[str, str]) -> tuple[str, str]:
        while parent[member] != member:
            member = parent[member]
        return member

    def tie(one: tuple[str, str], other: tuple[str, str]) -> None:
        parent[root(one)] = root(other)

    for before, after in pairwise(lowered):
        tie((before.name, "out"), (after.name, "in"))
    for placed in lowered:
        for one, other in placed.block.tied_axes:
            tie((placed.name, one), (placed.name, other))
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for member in parent:
        groups.setdefault(root(member), []).append(member)
    widths = trained_widths(space)
    return tuple(ChannelGroup(tuple(members)) for members in groups.values() if any(len(widths[member]) > 1 for member in members))


def trained_widths(space: Space) -> dict[tuple[str, str], frozenset[int]]:
    """By (place, axis): every number of channels that some arch of ``space`` has there."""
    widths: dict[tuple[str, str], set[int]] = {}
    for arch in _uniform_archs(space):
        for placed in lower(space, arch):
            for axis, count in placed.block.channels.items():
                widths.setdefault((placed.name, axis), set()).add(count)
    return {member: frozenset(counts) for member, counts in widths.items()}


def importance(block: Block, axis: str, weights: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """How much each channel of an axis matters: the L1 norm of the weights that read it, or None if no layer does.

    Args:
        block: the block.
        axis: one of its axes of channels.
        weights: the block's stored tensors by their names within the block.
    """
    total: torch.Tensor | None = None
    for reader in block.importance.get(axis, ()):
        layer = next(layer for layer in block.layers if layer.name == reader)
        weight = weights[reader + (".weight" if layer.linear else ".conv.weight")]
        norm = weight.abs().sum(dim=[d for d in range(weight.dim()) if d != 1])
        total = norm if total is None else total + norm
    return total


def order_within(importance_C: torch.Tensor, boundaries: Iterable[int]) -> torch.Tensor:
    """The order of channels, most important first, that moves none across a boundary.

    Args:
        importance_C: one value for each channel.
        boundaries: the widths at which slices that are already trained end; each keeps its set of channels.
    """
    ends = sorted({0, *boundaries, len(importance_C)})
    segments = [start + torch.argsort(importance_C[start:end], descending=True, stable=True) for start, end in pairwise(ends)]
    return torch.cat(segments)


def _uniform_archs(space: Space) -> Iterator[Arch]:
    """Archs that between them show every kernel and every number of channels that occurs anywhere in the space.

    A block's channels follow from its own genes and from the genes of the network, so it is enough that all blocks take the
    same genes, in every combination with equal choices of the network's.
    """
    block_genes = dict.fromkeys(gene.name for stage in space.stages for gene in stage.genes)
    counts = [max(len(g.values) for stage in space.stages for g in stage.genes if g.name == name) for name in block_genes]
    network_count = max((len(gene.values) for gene in space.network), default=1)
    for *indices, network_index in product(*(range(count) for count in counts), range(network_count)):
        genes = dict(zip(block_genes, indices, strict=True)) | {gene.name: network_index for gene in space.network}
        yield space.uniform(resolution=-1, depth=-1, genes=genes)
