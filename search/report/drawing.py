"""Block diagrams of networks as compact JSON values: thousands of networks share a few hundred blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock
from ofa.families import AdoptedSpace, lower
from ofa.resolution import resolution_to_json, resolutions_to_json
from ofa.space import Space

__all__ = ["drawings"]

_ELASTIC = re.compile(r"stages\.(\d+)\.(\d+)")
"""Position of a block with genes of its own."""

_WORDS = {"squeeze_excite": "squeeze-excite", "residual": "residual", "downsample": "downsampling shortcut"}


def drawings(space: Space, archs: Sequence[Arch]) -> dict[str, Any]:
    """Values with which a page draws each of ``archs``.

    Returns:
        ``space`` (its name), ``slots`` (largest number of blocks by stage), ``blocks`` (distinct blocks with position and image size), and
        for every arch in order ``networks`` (indices of its blocks), ``resolutions`` in pixels and ``genes`` of the network.

    Raises:
        ArchError: an arch of another space.
    """
    origins = {block.place: block.origin for block in space.blocks} if isinstance(space, AdoptedSpace) else {}
    numbers: dict[tuple[Any, ...], int] = {}
    blocks: list[dict[str, Any]] = []
    networks = []
    for arch in archs:
        row = []
        for placed, genes in _with_genes(lower(space, arch), arch):
            key = (placed.name, placed.block, placed.input, tuple(genes.items()))
            if key not in numbers:
                numbers[key] = len(blocks)
                blocks.append(_described(placed, genes, origins.get(placed.name, "")))
            row.append(numbers[key])
        networks.append(row)
    return {
        "space": space.name,
        "slots": [stage.depths[-1] for stage in space.stages],
        "blocks": blocks,
        "networks": networks,
        "resolutions": resolutions_to_json(arch.resolution for arch in archs),
        "genes": [dict(arch.network) for arch in archs],
    }


def _with_genes(lowered: Iterable[PlacedBlock], arch: Arch) -> Iterable[tuple[PlacedBlock, dict[str, float]]]:
    for placed in lowered:
        elastic = _ELASTIC.fullmatch(placed.name)
        yield placed, dict(arch.stages[int(elastic[1])][int(elastic[2])]) if elastic else {}


def _described(placed: PlacedBlock, genes: dict[str, float], origin: str) -> dict[str, Any]:
    block = placed.block
    return {
        "name": placed.name,
        "kind": block.kind.replace("_", " "),
        "in": block.in_channels,
        "mid": getattr(block, "mid_channels", block.out_channels),
        "out": block.out_channels,
        "kernel": getattr(block, "kernel", None),
        "stride": getattr(block, "stride", 1),
        "from": resolution_to_json(placed.input.size),
        "to": resolution_to_json(block.output(placed.input).size),
        "macs": block.macs(placed.input),
        "params": block.params(),
        "genes": genes,
        "words": [*_words(block), *([f"{origin} of the model"] if origin else [])],
    }


def _words(block: Block) -> list[str]:
    words = [word for name, word in _WORDS.items() if getattr(block, name, False)]
    activation = getattr(block, "activation", None)
    return words if activation is None else [*words, str(activation).replace("_", "-")]
