"""Describes the choices of an adopted space: its elastic sizes, and its stages with elastic depth."""

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
        name: name and dimension of the first tensor that has it.
        gene: the gene that decides it; empty if there are so few units that every share keeps all of them.
        stage: number of the gene's stage, from 0; None for a gene of the whole network.
        units: number of channels or heads in the original model.
        choices: the numbers of units that networks may have, ascending.
        blocks: places of the blocks that have it.
        tensors: number of the supernet's tensors that have it.
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
    """A stage with elastic depth.

    Attributes:
        stage: number of the stage, from 0.
        blocks: number of its blocks in the original model.
        choices: the numbers of blocks that networks may have, ascending.
        origins: for each block, the common prefix of its tensors' names in the model.
    """

    stage: int
    blocks: int
    choices: tuple[int, ...]
    origins: tuple[str, ...]


def sizes_of(space: AdoptedSpace) -> tuple[SizeFacts, ...]:
    """The elastic sizes of a space, in the model's order."""
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
