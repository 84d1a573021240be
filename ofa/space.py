"""Space: the choices, and what each of its archs is built of. It knows its size, samples, enumerates neighbours, and travels as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from ofa.arch import Arch, Genes
from ofa.choices import ROW_DTYPE, Gene, Number, Stage, check_ascending
from ofa.encoding import Encoding
from ofa.errors import ArchError, SpaceError, nearest
from ofa.files import write_json
from ofa.reading import read_json
from ofa.resolution import Resolution, ascending, parse_resolution, resolution_to_json, resolutions_to_json
from ofa.space_json import space_from_json, space_to_json

__all__ = ["ROW_DTYPE", "Gene", "Number", "Space", "Stage"]

_MOST = {"classes": 10**6, "channels": 1000, "stages": 100, "blocks": 1000}
"""Above all networks that are searched; what is made for each of more would never end."""


@dataclass(frozen=True, kw_only=True)
class Space(Encoding):
    """All networks that one supernet contains.

    A family derives from this class, adds what all of its networks share (widths, strides, activations) as fields, and says in
    ``lower`` what an arch is built of. It may be defined anywhere: in ``ofa.families``, or in a module of one's own.

    Attributes:
        name: the name that archs, tables and weights refer to.
        resolutions: of the input in pixels, ascending by area: the side of a square, or height and width.
        stages: the elastic stages, from the input to the output.
        network: genes that belong to no single block, such as a stage's width.
        num_classes: length of the logits.
        in_channels: channels of the images: 3 of colour, 1 of grey, or any other number.
    """

    name: str
    resolutions: tuple[Resolution, ...]
    stages: tuple[Stage, ...]
    network: tuple[Gene, ...] = ()
    num_classes: int = 1000
    in_channels: int = 3

    def __init_subclass__(cls) -> None:
        # A space is a key of caches that every training step asks, and hashing all of its fields would cost more than the answer. A
        # dataclass writes a hash of its own unless its class has one.
        if "__hash__" not in cls.__dict__:
            cls.__hash__ = Space.__hash__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        try:
            resolutions = tuple(map(parse_resolution, self.resolutions))
        except SpaceError as error:
            raise SpaceError(f"{self.name}: {error}") from error
        check_ascending("resolution", resolutions_to_json(resolutions), resolutions_to_json(ascending(resolutions)))
        object.__setattr__(self, "resolutions", resolutions)
        if self.num_classes < 2:
            raise SpaceError(f"a classifier needs at least 2 classes, but num_classes is {self.num_classes}; count the labels of your data")
        if self.in_channels < 1:
            raise SpaceError(f"images must have at least 1 channel, but in_channels is {self.in_channels}; 1 is grey, 3 is colour")
        counted = {"classes": self.num_classes, "channels": self.in_channels, "stages": len(self.stages)}
        counted["blocks"] = sum(stage.depths[-1] for stage in self.stages)
        for what, most in _MOST.items():
            if counted[what] > most:
                raise SpaceError(
                    f"networks must have at most {most} {what}, but the largest of {self.name} has {counted[what]}; take fewer"
                )

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.resolutions, self.stages, self.network, self.num_classes, self.in_channels))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        # String hashes differ between processes, so nothing that was computed travels.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    # -- what is built ------------------------------------------------------------------------------------------------

    def lower(self, arch: Arch) -> tuple[Any, ...]:
        """The blocks that ``arch`` is built of (``ofa.blocks.PlacedBlock``), from the image to the logits.

        Each family defines it. ``ofa.families.lower`` asks for it, checks what it answers, and remembers it. What stands at
        ``stages.S.B`` belongs to block B of stage S; all other places may have any names.

        Raises:
            ArchError: ``arch`` is not a point of the space.
            SpaceError: the class does not say what an arch is built of.
        """
        raise SpaceError(
            f"a space must say what its archs are built of, but {self.name} is a {type(self).__name__}; take a space of a family, or "
            "derive a class and define lower(self, arch)"
        )

    def ties(self) -> Iterable[tuple[tuple[str, str], tuple[str, str]]] | None:
        """Pairs of (place, axis) whose channels must keep one order; None where they follow from which block reads which."""
        return None

    # -- what there is ------------------------------------------------------------------------------------------------

    @cached_property
    def size(self) -> int:
        """The number of different networks, resolutions included."""
        size = len(self.resolutions) * math.prod(len(gene.values) for gene in self.network)
        for stage in self.stages:
            choices = math.prod(len(gene.values) for gene in stage.genes)
            size *= sum(choices**depth for depth in stage.depths)
        return size

    # -- archs --------------------------------------------------------------------------------------------------------

    def uniform(self, *, resolution: int, depth: int, genes: Mapping[str, int]) -> Arch:
        """The arch in which every choice is made by its index into the ascending values, negative counting from the end.

        Args:
            resolution: index of the resolution.
            depth: index of each stage's depth; a stage that has none at it takes its largest.
            genes: index by gene name. A gene that is not named, or has no value at its index, takes its largest.
        """

        def chosen(choices: tuple[Gene, ...]) -> Genes:
            return Genes({gene.name: gene.values[min(genes.get(gene.name, -1), len(gene.values) - 1)] for gene in choices})

        network = chosen(self.network)
        stages = tuple((chosen(stage.genes),) * stage.depths[min(depth, len(stage.depths) - 1)] for stage in self.stages)
        return Arch(self.name, self.resolutions[resolution], stages, network)

    def largest(self, resolution: Resolution | None = None) -> Arch:
        """The arch with the largest value of every gene; ``resolution`` in pixels, the largest by default."""
        return self._at(self.uniform(resolution=-1, depth=-1, genes={}), resolution)

    def smallest(self, resolution: Resolution | None = None) -> Arch:
        """The arch with the smallest value of every gene; ``resolution`` in pixels, the smallest by default."""
        return self._at(self.uniform(resolution=0, depth=0, genes=dict.fromkeys(self.gene_names, 0)), resolution)

    @cached_property
    def gene_names(self) -> tuple[str, ...]:
        """The names of all genes but resolution and depth, each once."""
        return tuple(dict.fromkeys([g.name for g in self.network] + [g.name for stage in self.stages for g in stage.genes]))

    def sample(self, rng: np.random.Generator) -> Arch:
        """An arch whose genes are drawn independently and uniformly (as in Cai et al., ICLR 2020, section 3.2)."""
        return self.decode(rng.integers(self.cardinalities).tolist())

    def neighbours(self, arch: Arch) -> Iterator[Arch]:
        """The archs that differ from ``arch`` in one gene, each once, as of ``neighbour_rows``."""
        yield from (found for found in map(self.decode, self.neighbour_rows(self.encode_all([arch])).tolist()) if found != arch)

    # -- validity -----------------------------------------------------------------------------------------------------

    def check(self, arch: Arch) -> None:
        """Raise ArchError, naming the gene and its values, unless ``arch`` is a point of this space."""
        if arch.space != self.name:
            raise ArchError(f"an arch must name its space, but this is {self.name} and the arch says {arch.space}; load the space it names")
        self._check_resolution(arch.resolution)
        if len(arch.stages) != len(self.stages):
            raise ArchError(f"{self.name} has {len(self.stages)} stages, but the arch has {len(arch.stages)}; give each stage its blocks")
        _check_genes("network", arch.network, self.network, self.name)
        for s, (stage, known, blocks) in enumerate(zip(self.stages, self._known_genes, arch.stages, strict=True)):
            _check_value(f"the depth of stages.{s}", len(blocks), stage.depths, self.name)
            for b, block in enumerate(blocks):
                if block not in known:
                    _check_genes(f"stages.{s}.{b}", block, stage.genes, self.name)

    def is_part_of(self, other: Space, *, any_classes: bool = False) -> bool:
        """Whether all networks of this space are networks of ``other``, built alike: it is ``other``, perhaps with fewer choices.

        Args:
            other: a space.
            any_classes: whether the numbers of classes may differ.
        """
        classes = other.num_classes if any_classes else self.num_classes
        if type(self) is not type(other):
            return False
        whole = replace(self, num_classes=classes, resolutions=other.resolutions, stages=other.stages, network=other.network)
        if whole != other:
            return False
        return (
            set(self.resolutions) <= set(other.resolutions)
            and len(self.stages) == len(other.stages)
            and all(set(own.depths) <= set(all_.depths) for own, all_ in zip(self.stages, other.stages, strict=True))
            and all(_are_among(own.genes, all_.genes) for own, all_ in zip(self.stages, other.stages, strict=True))
            and _are_among(self.network, other.network)
        )

    def __contains__(self, arch: Arch) -> bool:
        try:
            self.check(arch)
        except ArchError:
            return False
        return True

    # -- smaller spaces -----------------------------------------------------------------------------------------------

    def restrict(
        self, *, resolution: Iterable[Resolution] | None = None, depth: Iterable[int] | None = None, **genes: Iterable[Number] | None
    ) -> Self:
        """The space of the same name with fewer choices, which is how a training phase says what is free.

        Args:
            resolution: the resolutions to keep, in pixels.
            depth: which of each stage's depths to keep, by index from the shallowest. Stages may differ in their depths: an index beyond
                those of a stage stands for its deepest.
            genes: by gene name the values to keep.

        Raises:
            SpaceError: a name or value is not among the choices.
        """
        if unknown := set(genes) - set(self.gene_names):
            name = sorted(unknown)[0]
            raise SpaceError(f"'{name}' must be a gene of {self.name}; {nearest(name, ['resolution', 'depth', *self.gene_names])}")

        def kept(gene: Gene) -> Gene:
            return Gene(gene.name, _subset(gene.name, genes.get(gene.name), gene.values, self.name))

        most = max((len(stage.depths) for stage in self.stages), default=1)
        chosen = [int(index) for index in _subset("depth", depth, range(most), self.name)]

        def shortened(stage: Stage) -> Stage:
            indices = sorted({min(index, len(stage.depths) - 1) for index in chosen})
            return Stage(tuple(stage.depths[index] for index in indices), tuple(kept(gene) for gene in stage.genes))

        resolutions = self.resolutions if resolution is None else ascending(resolution)
        if not resolutions or not set(resolutions) <= set(self.resolutions):
            raise _no_subset("resolution", resolutions_to_json(resolutions), resolutions_to_json(self.resolutions), self.name)
        stages, network = tuple(map(shortened, self.stages)), tuple(map(kept, self.network))
        return replace(self, resolutions=resolutions, stages=stages, network=network)

    # -- files --------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The space as JSON values: its family, choices and fields.

        Raises:
            SpaceError: a field of the family is no number, text, tuple or dataclass of these.
        """
        return space_to_json(self)

    @staticmethod
    def from_json(value: Any, source: str = "a space") -> Space:
        """Read what ``to_json`` gave; nothing is imported because a value says so.

        Args:
            value: JSON values.
            source: words for where they come from.

        Raises:
            SpaceError: they are no whole space, or one of a newer version, or of a class that has not been imported.
        """
        return space_from_json(value, Space, source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the space as a JSON file.

        Raises:
            FileError: the folder cannot be written.
            SpaceError: as of ``to_json``.
        """
        write_json(self.to_json(), path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Space:
        """Read the space of a JSON file; errors as of ``from_json``, or FileError."""
        return space_from_json(read_json(path), Space, f"'{path}'")

    def _at(self, arch: Arch, resolution: Resolution | None) -> Arch:
        if resolution is None:
            return arch
        found = replace(arch, resolution=resolution)
        self._check_resolution(found.resolution)
        return found

    def _check_resolution(self, resolution: Resolution) -> None:
        if resolution not in self.resolutions:
            _check_value("resolution", resolution_to_json(resolution), resolutions_to_json(self.resolutions), self.name)


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(map(str, values))}]"


def _check_value(what: str, value: Number | str, allowed: Sequence[Number | str], space: str) -> None:
    if value not in allowed:
        raise ArchError(f"{what} must be one of {_listed(allowed)} in {space}, but got {value}; choose one of them")


def _check_genes(where: str, genes: Genes, expected: Sequence[Gene], space: str) -> None:
    if len(genes) != len(expected) or any(gene.name not in genes for gene in expected):
        raise ArchError(
            f"{where} must have the genes {[gene.name for gene in expected]} in {space}, but has {list(genes)}; name each of them once"
        )
    for gene in expected:
        _check_value(f"{where}.{gene.name}", genes[gene.name], gene.values, space)


def _are_among(genes: Sequence[Gene], others: Sequence[Gene]) -> bool:
    """Whether genes have the names of others, and no values beyond theirs."""
    return [gene.name for gene in genes] == [gene.name for gene in others] and all(
        set(gene.values) <= set(other.values) for gene, other in zip(genes, others, strict=True)
    )


def _subset(name: str, wanted: Iterable[Number] | None, values: Sequence[Number], space: str) -> tuple[Number, ...]:
    """Those of ``values`` that are wanted, which is all if ``wanted`` is None."""
    if wanted is None:
        return tuple(values)
    kept = tuple(sorted(set(wanted)))
    if not kept or not set(kept) <= set(values):
        raise _no_subset(name, kept, values, space)
    return kept


def _no_subset(name: str, kept: Sequence[object], values: Sequence[object], space: str) -> SpaceError:
    return SpaceError(f"{name} must keep some of {_listed(values)} in {space}, but got {_listed(kept)}; choose among them")
