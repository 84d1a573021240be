"""Space: the genes of a supernet, and the blocks of each arch. It counts, samples, enumerates neighbours, and converts to JSON."""

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
"""Limits above all networks in use; a file with larger numbers would make loops over them endless."""


@dataclass(frozen=True, kw_only=True)
class Space(Encoding):
    """All networks that one supernet contains.

    A family is a subclass. It adds the common properties of its networks (widths, strides, activations) as fields, and defines
    ``lower``, which returns the blocks of an arch. It may be in ``ofa.families`` or in a module of your own.

    Attributes:
        name: the name that archs, tables and weights refer to.
        resolutions: of the input in pixels, ascending by area: the side of a square, or (height, width).
        stages: the elastic stages, from the input to the output.
        network: genes of the whole network, which belong to no single block, such as a stage's width.
        num_classes: number of logits.
        in_channels: channels of the images: 3 for colour, 1 for grey, or any other number.

    Raises:
        SpaceError: a value is out of range, or the resolutions do not ascend.
    """

    name: str
    resolutions: tuple[Resolution, ...]
    stages: tuple[Stage, ...]
    network: tuple[Gene, ...] = ()
    num_classes: int = 1000
    in_channels: int = 3

    def __init_subclass__(cls) -> None:
        # Spaces are keys of caches that every training step reads, so their hash must be cheap. ``dataclass`` generates a hash over all
        # fields, which costs more than the look-up, unless the class defines ``__hash__`` itself.
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
        # String hashes differ between processes, so cached properties are not pickled.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    # -- blocks -------------------------------------------------------------------------------------------------------

    def lower(self, arch: Arch) -> tuple[Any, ...]:
        """The blocks of ``arch``, from the image to the logits.

        Each family defines it. Call ``ofa.families.lower`` instead, which checks and caches the result. The place ``stages.S.B`` is
        reserved for block B of stage S; other places may have any names.

        Returns:
            A tuple of ``ofa.blocks.PlacedBlock``.

        Raises:
            ArchError: ``arch`` is not a point of the space.
            SpaceError: the class does not define ``lower``.
        """
        raise SpaceError(
            f"a space must define the blocks of its archs, but {self.name} is a {type(self).__name__}; take a space of a family, or "
            "derive a class and define lower(self, arch)"
        )

    def ties(self) -> Iterable[tuple[tuple[str, str], tuple[str, str]]] | None:
        """Pairs of (place, axis) whose channels must have the same order; None (default) to derive them from the blocks' inputs."""
        return None

    # -- size ---------------------------------------------------------------------------------------------------------

    @cached_property
    def size(self) -> int:
        """Number of different networks; a network at two resolutions counts twice."""
        size = len(self.resolutions) * math.prod(len(gene.values) for gene in self.network)
        for stage in self.stages:
            choices = math.prod(len(gene.values) for gene in stage.genes)
            size *= sum(choices**depth for depth in stage.depths)
        return size

    # -- archs --------------------------------------------------------------------------------------------------------

    def uniform(self, *, resolution: int, depth: int, genes: Mapping[str, int]) -> Arch:
        """The arch with the same index for every gene of a name; indices refer to ascending values, negative ones count from the end.

        Args:
            resolution: index of the resolution.
            depth: index of each stage's depth; a stage with fewer depths takes its largest.
            genes: index by gene name; a gene that is not named, or has fewer values, takes its largest.
        """

        def chosen(choices: tuple[Gene, ...]) -> Genes:
            return Genes({gene.name: gene.values[min(genes.get(gene.name, -1), len(gene.values) - 1)] for gene in choices})

        network = chosen(self.network)
        stages = tuple((chosen(stage.genes),) * stage.depths[min(depth, len(stage.depths) - 1)] for stage in self.stages)
        return Arch(self.name, self.resolutions[resolution], stages, network)

    def largest(self, resolution: Resolution | None = None) -> Arch:
        """The arch with the largest value of every gene.

        Args:
            resolution: in pixels; the largest by default.

        Raises:
            ArchError: the space does not have the resolution.
        """
        return self._at(self.uniform(resolution=-1, depth=-1, genes={}), resolution)

    def smallest(self, resolution: Resolution | None = None) -> Arch:
        """The arch with the smallest value of every gene.

        Args:
            resolution: in pixels; the smallest by default.

        Raises:
            ArchError: the space does not have the resolution.
        """
        return self._at(self.uniform(resolution=0, depth=0, genes=dict.fromkeys(self.gene_names, 0)), resolution)

    @cached_property
    def gene_names(self) -> tuple[str, ...]:
        """Names of all genes except resolution and depth, without repeats."""
        return tuple(dict.fromkeys([g.name for g in self.network] + [g.name for stage in self.stages for g in stage.genes]))

    def sample(self, rng: np.random.Generator) -> Arch:
        """Draw an arch whose genes are independent and uniform (Cai et al., "Once-for-All", ICLR 2020, section 3.2)."""
        return self.decode(rng.integers(self.cardinalities).tolist())

    def neighbours(self, arch: Arch) -> Iterator[Arch]:
        """All archs that differ from ``arch`` in one gene, without repeats (see ``neighbour_rows``).

        Raises:
            ArchError: ``arch`` is not a point of this space.
        """
        yield from (found for found in map(self.decode, self.neighbour_rows(self.encode_all([arch])).tolist()) if found != arch)

    # -- validity -----------------------------------------------------------------------------------------------------

    def check(self, arch: Arch) -> None:
        """Check that ``arch`` is a point of this space.

        Raises:
            ArchError: it is not; the message names the gene and its values.
        """
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
        """Whether this space is ``other``, perhaps restricted to fewer choices.

        Args:
            other: a space.
            any_classes: whether the number of classes may differ.
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
        """The space of the same name with fewer choices, such as the elastic choices of one training phase.

        Args:
            resolution: the resolutions to keep, in pixels.
            depth: indices of the depths to keep in each stage, from the shallowest; an index too large for a stage means its deepest.
            genes: values to keep, by gene name.

        Raises:
            SpaceError: there is no such gene, or a value is not among its choices.
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
            SpaceError: a field of the family is not a number, text, tuple, or dataclass of these.
        """
        return space_to_json(self)

    @staticmethod
    def from_json(value: Any, source: str = "a space") -> Space:
        """Rebuild a space from ``to_json``; its class must already be imported, because a file never causes an import.

        Args:
            value: JSON values.
            source: their origin in words, for messages.

        Raises:
            SpaceError: the space is incomplete, of a newer version, or of a class that has not been imported.
        """
        return space_from_json(value, Space, source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the space as a JSON file.

        Raises:
            FileError: the file cannot be written.
            SpaceError: as in ``to_json``.
        """
        write_json(self.to_json(), path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Space:
        """Read a space from a JSON file.

        Raises:
            FileError: the file cannot be read or is not JSON.
            SpaceError: as in ``from_json``.
        """
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
    """Whether genes have the same names as ``others``, and only values of ``others``."""
    return [gene.name for gene in genes] == [gene.name for gene in others] and all(
        set(gene.values) <= set(other.values) for gene, other in zip(genes, others, strict=True)
    )


def _subset(name: str, wanted: Iterable[Number] | None, values: Sequence[Number], space: str) -> tuple[Number, ...]:
    """The wanted values, ascending; all values if ``wanted`` is None."""
    if wanted is None:
        return tuple(values)
    kept = tuple(sorted(set(wanted)))
    if not kept or not set(kept) <= set(values):
        raise _no_subset(name, kept, values, space)
    return kept


def _no_subset(name: str, kept: Sequence[object], values: Sequence[object], space: str) -> SpaceError:
    return SpaceError(f"{name} must keep some of {_listed(values)} in {space}, but got {_listed(kept)}; choose among them")
