"""Derives the choices of a space from groups and blocks: genes, stages with elastic depth, and the sizes that they decide."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ofa.adopting.writing import Written
from ofa.choices import Gene, Stage
from ofa.families.adopted import CLASSES, AdoptedBlock, ElasticSize
from ofa.groups import Group

__all__ = ["Choices", "Part", "choose"]

_MOST_GENES = 2
"""The most genes of a block: a latency table has a row for each combination of their values."""
_ROUND = 8
"""Numbers of channels are multiples of this, for the sake of vector units (Sandler et al. 2018)."""


@dataclass(frozen=True, eq=False)
class Part:
    """A block of the program.

    Attributes:
        written: its code.
        run: number of the run of skippable blocks that it belongs to; None for a block by itself.
    """

    written: Written
    run: int | None


@dataclass(frozen=True, eq=False)
class Choices:
    """The content of an adopted space.

    Attributes:
        codes: code of the distinct blocks, as lines.
        sizes: sizes of the groups in use, and of the classes.
        blocks: the blocks, in order.
        stages, network: the genes of stages and of the whole network.
    """

    codes: tuple[tuple[str, ...], ...]
    sizes: tuple[ElasticSize, ...]
    blocks: tuple[AdoptedBlock, ...]
    stages: tuple[Stage, ...]
    network: tuple[Gene, ...]


def choose(
    parts: Sequence[Part], groups: Mapping[str, Group], tensors: Mapping[str, Tensor], shares: Sequence[float], min_depth: int | None
) -> Choices:
    """Choose the genes of a space.

    Args:
        parts: the blocks of the program, in order.
        groups: the groups by name, without ``classes``.
        tensors: tensors of the model, by name.
        shares: shares of each group's units that networks may keep, ascending to 1.
        min_depth: least number of blocks of a run that networks keep; by default half of the run.

    Returns:
        The content of the space.
    """
    heads = {name for name, group in groups.items() if _are_heads(group, tensors[group.members[0].tensor])}
    return _Chooser(parts, groups, heads, shares, min_depth).choices()


class _Chooser:
    def __init__(
        self, parts: Sequence[Part], groups: Mapping[str, Group], heads: Container[str], shares: Sequence[float], min_depth: int | None
    ) -> None:
        self._parts, self._groups, self._heads, self._shares, self._min_depth = parts, groups, heads, shares, min_depth
        used = dict.fromkeys(name for part in parts for name in part.written.groups)
        holders: dict[str, set[int]] = {name: set() for name in used}
        for number, part in enumerate(parts):
            for name in part.written.groups:
                holders[name].add(number)
        # A block also holds a group whose units occur only in a size that it reshapes to.
        self._inner = {name for name, numbers in holders.items() if len(numbers) == 1 and name != CLASSES}
        self._across = [name for name in used if name not in self._inner and name != CLASSES]
        self._genes: dict[str, str] = {}

    def choices(self) -> Choices:
        places, stages = self._stages()
        names = {name: f"width{number}" for number, name in enumerate(self._across, 1)}
        self._genes.update(names if len(names) > 1 else dict.fromkeys(names, "width"))
        network = tuple(gene for name in self._across if (gene := self._gene(self._genes[name], [self._size(name)])))
        known = {gene.name for gene in network} | {gene.name for stage in stages for gene in stage.genes}
        used = dict.fromkeys(name for part in self._parts for name in part.written.groups)
        sizes = {name: self._size(name) for name in used}
        sizes = {name: size if size.gene in known else replace(size, gene="") for name, size in sizes.items()}
        codes = dict.fromkeys(part.written.text for part in self._parts)
        order = {text: number for number, text in enumerate(codes)}
        numbers = {name: number for number, name in enumerate(sizes)}
        blocks = tuple(
            AdoptedBlock(place, order[part.written.text], tuple(numbers[name] for name in part.written.groups), part.written.origin)
            for place, part in zip(places, self._parts, strict=True)
        )
        return Choices(tuple(tuple(text.split("\n")) for text in codes), tuple(sizes.values()), blocks, stages, network)

    def _stages(self) -> tuple[list[str], tuple[Stage, ...]]:
        """The place of each block, and the stages: runs of blocks, and single blocks.

        Blocks without choices at the beginning are the stem, at the end the head. A block without choices in between is a stage without
        genes, because modules are nested by their places.
        """
        genes = [self._block_genes(part) for part in self._parts]
        elastic = [number for number, part in enumerate(self._parts) if part.run is not None or genes[number]]
        first, last = (elastic[0], elastic[-1]) if elastic else (len(self._parts), len(self._parts))
        counts = Counter(part.run for part in self._parts)
        places, stages, rank = [], list[Stage](), 0
        for number, part in enumerate(self._parts):
            if not first <= number <= last:
                places.append(f"stem.{number}" if number < first else f"head.{number - last - 1}")
                continue
            rank = rank + 1 if part.run is not None and part.run == self._parts[number - 1].run else 0
            if rank == 0:
                most = 1 if part.run is None else counts[part.run]
                least = min(most, max(1, -(-most // 2) if self._min_depth is None else self._min_depth))
                stages.append(Stage(tuple(range(least, most + 1)), genes[number]))
            places.append(f"stages.{len(stages) - 1}.{rank}")
        return places, tuple(stages)

    def _block_genes(self, part: Part) -> tuple[Gene, ...]:
        """The genes of groups that occur only in this block."""
        own = [name for name in part.written.groups if name in self._inner]
        local = {model: name for name, model in part.written.names.items()}
        proposed = {name: "heads" if name in self._heads else _word(local.get(_tensor(name), _tensor(name))) for name in own}
        if len(own) > _MOST_GENES:
            proposed = {name: "heads" if word == "heads" else "inner" for name, word in proposed.items()}
        elif len(set(proposed.values())) < len(own):
            proposed = {name: f"{word}{number}" for number, (name, word) in enumerate(proposed.items(), 1)}
        self._genes.update(proposed)
        words = dict.fromkeys(proposed.values())
        found = (self._gene(word, [self._size(name) for name in own if proposed[name] == word]) for word in words)
        return tuple(gene for gene in found if gene is not None)

    def _gene(self, name: str, sizes: Sequence[ElasticSize]) -> Gene | None:
        """A gene with all shares (genes of one name have equal values everywhere); None if all shares keep the same units."""
        kept = {tuple(size.kept(share) for size in sizes) for share in self._shares}
        return Gene(name, tuple(self._shares)) if len(kept) > 1 else None

    def _size(self, name: str) -> ElasticSize:
        if name == CLASSES:
            return ElasticSize(CLASSES, 1, 1, "")
        group = self._groups[name]
        return ElasticSize(name, group.units, _multiple(group), self._genes[name])


def _tensor(group: str) -> str:
    return group.rpartition("[")[0]


def _are_heads(group: Group, first: Tensor) -> bool:
    """Whether a group's units are heads: its first tensor is a matrix, as of a linear layer, with several values for each unit."""
    return first.dim() == 2 and any(run.inner > 1 for run in group.members[0].runs if run.axis)


def _word(local: str) -> str:
    """A name for a gene, after the layer whose outputs are the group."""
    path = [part for part in local.split(".")[:-1] or local.split(".") if not part.isdigit()]
    return re.sub(r"\W", "_", path[-1] if path else "inner").lower()


def _multiple(group: Group) -> int:
    """The number that a network's number of units must be a multiple of."""
    inner = min(run.inner for member in group.members for run in member.runs if run.axis)
    multiple = _ROUND // math.gcd(_ROUND, inner) if inner < _ROUND else 1
    return multiple if group.units >= 2 * multiple else 1
