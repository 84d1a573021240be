"""What an adopted space lets networks choose, told of its elastic sizes and of its stages."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ofa.blocks import TracedBlock
from ofa.families.adopted import CLASSES, AdoptedSpace

__all__ = ["ElasticDepth", "SizeFacts", "depths_of", "sizes_of"]


@dataclass(frozen=True, kw_only=True)
class SizeFacts:
    """An elastic size of a space.

    Attributes:
        name: of the first tensor that has it, with its dimension.
        gene: that decides it; empty where every share of so few units leaves all of them.
        stage: whose gene that is, from 0; None for a gene of the whole network.
        units: channels or heads in the model as it came.
        choices: how many of them networks may have, ascending.
        blocks: places of the blocks that have it.
        tensors: of the supernet that have it.
    """

    name: str
    gene: str
    stage: int | None
    units: int
    choices: tuple[int, ...]
    blocks: tuple[str, ...]
    tensors: int


@dataclass(frozen=True, kw_only=True)
class ElasticDepth:
    """A stage of which networks may have fewer blocks.

    Attributes:
        stage: its number, from 0.
        blocks: in the model as it came.
        choices: how many of them networks may have, ascending.
        origins: what the names of each block's tensors begin with in the model.
    """

    stage: int
    blocks: int
    choices: tuple[int, ...]
    origins: tuple[str, ...]


def sizes_of(space: AdoptedSpace) -> tuple[SizeFacts, ...]:
    """The elastic sizes, in the order in which the model has them."""
    shared = {gene.name: gene.values for gene in space.network}
    places: dict[int, list[str]] = {number: [] for number in range(len(space.sizes))}
    stages: dict[int, int] = {}
    tensors = Counter[int]()
    for block in space.blocks:
        code = TracedBlock(in_channels=1, out_channels=1, code="\n".join(space.codes[block.code]), sizes=block.sizes)
        for axis, number in zip(code.axes, block.sizes, strict=True):
            places[number].append(block.place)
            tensors[number] += sum(
                any(run.axis == axis for dim in spec.dims if isinstance(dim, tuple) for run in dim) for spec in code.tensors.values()
            )
            if block.stage is not None:
                stages[number] = block.stage[0]
    found = []
    for number, size in enumerate(space.sizes):
        if size.name == CLASSES:
            continue
        stage = None if size.gene in shared or not size.gene else stages[number]
        known = shared if stage is None else {gene.name: gene.values for gene in space.stages[stage].genes}
        choices = tuple(dict.fromkeys(size.kept(float(value)) for value in known.get(size.gene, (1,))))
        found.append(
            SizeFacts(
                name=size.name,
                gene=size.gene,
                stage=stage,
                units=size.units,
                choices=choices,
                blocks=tuple(places[number]),
                tensors=tensors[number],
            )
        )
    return tuple(found)


def depths_of(space: AdoptedSpace) -> tuple[ElasticDepth, ...]:
    """The stages with elastic depth."""
    origins: dict[int, list[str]] = {}
    for block in space.blocks:
        if block.stage is not None:
            origins.setdefault(block.stage[0], []).append(block.origin)
    return tuple(
        ElasticDepth(stage=number, blocks=stage.depths[-1], choices=stage.depths, origins=tuple(origins[number]))
        for number, stage in enumerate(space.stages)
        if len(stage.depths) > 1
    )
