"""The blocks of a network as a directed acyclic graph, in execution order. Most networks are chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ofa.blocks.block import PlacedBlock

__all__ = ["last_readers", "segments", "sources", "with_liveness"]


def sources(lowered: Sequence[PlacedBlock]) -> list[tuple[str, ...]]:
    """For each block, the places whose outputs are added to form its input; empty for the first, which takes the network's input."""
    before = [(), *((placed.name,) for placed in lowered[:-1])]
    return [placed.inputs or previous for placed, previous in zip(lowered, before, strict=True)]


def last_readers(lowered: Sequence[PlacedBlock]) -> dict[str, int]:
    """By place, the index of the last block that reads its output."""
    return {name: number for number, names in enumerate(sources(lowered)) for name in names}


def segments(lowered: Sequence[PlacedBlock]) -> list[tuple[PlacedBlock, ...]]:
    """Cut the network wherever a single tensor is alive; in a chain every block is a segment."""
    last, alive = last_readers(lowered), set[str]()
    parts: list[list[PlacedBlock]] = [[]]
    for number, placed in enumerate(lowered):
        alive = {name for name in alive if last[name] >= number}
        if len(alive) == 1:
            parts.append([])
        parts[-1].append(placed)
        alive.add(placed.name)
    return [tuple(part) for part in parts]


def with_liveness(lowered: Sequence[PlacedBlock]) -> tuple[PlacedBlock, ...]:
    """Set ``beside`` and ``kept`` of the blocks: the values that stay alive while each block runs, other than its input and output."""
    last, alive = last_readers(lowered), dict[str, int]()
    result: list[PlacedBlock] = []
    for number, (placed, names) in enumerate(zip(lowered, sources(lowered), strict=True)):
        alive = {name: values for name, values in alive.items() if last[name] >= number}
        beside = sum(values for name, values in alive.items() if name not in names)
        result.append(replace(placed, beside=beside, kept=sum(last[name] > number for name in names)))
        alive[placed.name] = placed.block.output(placed.input).values
    return tuple(result)
