"""Space: the choices. It knows its size, samples, enumerates neighbours, and encodes archs as rows of integers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np

from ofa.arch import Arch, Genes
from ofa.errors import ArchError, SpaceError, nearest

__all__ = ["ROW_DTYPE", "Gene", "Rows", "Space", "Stage"]

Number = int | float

ROW_DTYPE = np.int8
"""Of encoded archs by the million; no gene has more values than it holds."""

Rows = np.ndarray[Any, np.dtype[Any]]
"""Encoded archs, [N, C]: integers of any kind."""


@dataclass(frozen=True)
class Gene:
    """A named choice among ``values``, in ascending order."""

    name: str
    values: tuple[Number, ...]

    def __post_init__(self) -> None:
        if not self.values or list(self.values) != sorted(set(self.values)):
            raise SpaceError(
                f"the values of a gene must ascend without repeats, but {self.name} has {list(self.values)}; sort them and drop repeats"
            )


@dataclass(frozen=True)
class Stage:
    """A run of blocks: how many there may be, and the genes that each block chooses by itself."""

    depths: tuple[int, ...]
    genes: tuple[Gene, ...]

    def __post_init__(self) -> None:
        Gene("depth", self.depths)


@dataclass(frozen=True, kw_only=True)
class Space:
    """All networks that one supernet contains.

    A family derives from this class and adds what all of its networks share (widths, strides, activations).

    Attributes:
        name: the name that archs, tables and weights refer to.
        resolutions: sides of the square input in pixels, ascending.
        stages: the elastic stages, from the input to the output.
        network: genes that belong to no single block, such as a stage's width.
        num_classes: length of the logits.
    """

    name: str
    resolutions: tuple[int, ...]
    stages: tuple[Stage, ...]
    network: tuple[Gene, ...] = ()
    num_classes: int = 1000

    def __post_init__(self) -> None:
        Gene("resolution", self.resolutions)
        if self.num_classes < 2:
            raise SpaceError(f"a classifier needs at least 2 classes, but num_classes is {self.num_classes}; count the labels of your data")

    # A space is a key of caches that every training step asks, and hashing all of its fields would cost more than the answer. The
    # families take this hash over by name, because a dataclass otherwise writes one of its own.
    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.resolutions, self.stages, self.network, self.num_classes))

    def __hash__(self) -> int:
        return self._hash

    # -- what there is ------------------------------------------------------------------------------------------------

    @cached_property
    def columns(self) -> tuple[Gene, ...]:
        """The genes in the order of an encoded row: resolution, network genes, then stage by stage depth and blocks."""
        columns = [Gene("resolution", self.resolutions), *self.network]
        for s, stage in enumerate(self.stages):
            columns.append(Gene(f"stages.{s}.depth", stage.depths))
            columns += [Gene(f"stages.{s}.{b}.{gene.name}", gene.values) for b in range(stage.depths[-1]) for gene in stage.genes]
        return tuple(columns)

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
            depth: index of each stage's depth.
            genes: index by gene name. A gene that is not named, or has no value at its index, takes its largest.
        """

        def chosen(choices: tuple[Gene, ...]) -> Genes:
            return Genes({gene.name: gene.values[min(genes.get(gene.name, -1), len(gene.values) - 1)] for gene in choices})

        network = chosen(self.network)
        stages = tuple((chosen(stage.genes),) * stage.depths[depth] for stage in self.stages)
        return Arch(self.name, self.resolutions[resolution], stages, network)

    def largest(self, resolution: int | None = None) -> Arch:
        """The arch with the largest value of every gene; ``resolution`` in pixels, the largest by default."""
        return self._at(self.uniform(resolution=-1, depth=-1, genes={}), resolution)

    def smallest(self, resolution: int | None = None) -> Arch:
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

    # -- rows of integers ---------------------------------------------------------------------------------------------

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """The index of each column's value; 0 for the genes of skipped blocks.

        Raises:
            ArchError: ``arch`` is not a point of this space.
        """
        self.check(arch)
        row = [self.resolutions.index(arch.resolution), *(gene.values.index(arch.network[gene.name]) for gene in self.network)]
        for stage, blocks in zip(self.stages, arch.stages, strict=True):
            row.append(stage.depths.index(len(blocks)))
            row += [gene.values.index(block[gene.name]) for block in blocks for gene in stage.genes]
            row += [0] * ((stage.depths[-1] - len(blocks)) * len(stage.genes))
        return tuple(row)

    def decode(self, row: Sequence[int]) -> Arch:
        """The arch of a row; the columns of skipped blocks are ignored.

        Raises:
            ArchError: the row has another length, or an index beyond its gene's values.
        """
        if len(row) != len(self.columns) or any(not 0 <= i < n for i, n in zip(row, self.cardinalities, strict=False)):
            raise ArchError(
                f"a row of {self.name} must have {len(self.columns)} indices below {self.cardinalities.tolist()}, "
                f"but got {list(row)}; make rows with Space.encode"
            )
        values = iter(row)
        resolution = self.resolutions[next(values)]
        network = Genes({gene.name: gene.values[next(values)] for gene in self.network})
        stages = []
        for stage, table in zip(self.stages, self._genes_by_index, strict=True):
            depth, width = stage.depths[next(values)], len(stage.genes)
            slots = [table[tuple(next(values) for _ in range(width))] for _ in range(stage.depths[-1])]
            stages.append(tuple(slots[:depth]))
        return Arch(self.name, resolution, tuple(stages), network)

    @cached_property
    def _genes_by_index(self) -> tuple[dict[tuple[int, ...], Genes], ...]:
        """Per stage the genes of a block by their indices, so that decoding makes no new objects."""
        return tuple(
            {
                index: Genes({gene.name: gene.values[i] for gene, i in zip(stage.genes, index, strict=True)})
                for index in np.ndindex(*(len(gene.values) for gene in stage.genes))
            }
            for stage in self.stages
        )

    @cached_property
    def _known_genes(self) -> tuple[frozenset[Genes], ...]:
        return tuple(frozenset(table.values()) for table in self._genes_by_index)

    @cached_property
    def cardinalities(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """How many values each column has."""
        return np.array([len(gene.values) for gene in self.columns], dtype=np.int64)

    # -- many archs as one array, [N, C]: a row an arch, a column a gene ------------------------------------------------

    def encode_all(self, archs: Sequence[Arch]) -> Rows:
        """The rows of archs; errors as ``encode``."""
        return np.array([self.encode(arch) for arch in archs], dtype=ROW_DTYPE).reshape(len(archs), len(self.columns))

    def sample_rows(self, count: int, rng: np.random.Generator) -> Rows:
        """Rows of archs drawn as ``sample`` draws them."""
        return self.canonical(rng.integers(self.cardinalities, size=(count, len(self.columns)), dtype=ROW_DTYPE))

    def sample_leaning_rows(self, count: int, rng: np.random.Generator) -> Rows:
        """Rows of archs of all sizes: in each, all genes lean to the small or the large side by one common amount.

        Genes that are drawn independently give networks of middling size only.
        """
        lean_N1 = rng.random((count, 1))
        return self.canonical(rng.binomial(self.cardinalities - 1, lean_N1).astype(ROW_DTYPE))

    def neighbour_rows(self, rows_NC: Rows) -> Rows:
        """Canonical rows of all archs that differ in one gene from one of ``rows_NC``, each once; the latter may be among them.

        Where a stage grows, its new blocks have the smallest value of every gene, or the largest.
        """
        largest_C = (self.cardinalities - 1).astype(ROW_DTYPE)
        bases = np.concatenate([rows_NC, np.where(self.active(rows_NC), rows_NC, largest_C)]).astype(ROW_DTYPE)
        found = []
        for column, count in enumerate(self.cardinalities.tolist()):
            for value in range(count):
                changed = bases[bases[:, column] != value].copy()
                changed[:, column] = value
                found.append(changed)
        # A change in a block that is not there changes nothing.
        return np.unique(self.canonical(np.concatenate(found)), axis=0)

    def active(self, rows_NC: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each column of each row belongs to a block that is there; [N, C]."""
        if not self._block_columns.size:
            return np.ones(rows_NC.shape, dtype=np.bool_)
        active_NC = np.ones(rows_NC.shape, dtype=np.bool_)
        active_NC[:, self._block_columns] = rows_NC[:, self._depth_columns] >= self._least_depths
        return active_NC

    def canonical(self, rows_NC: Rows) -> Rows:
        """The rows as ``encode`` gives them: 0 in the columns of skipped blocks, so that equal networks are equal rows."""
        return np.where(self.active(rows_NC), rows_NC, 0).astype(rows_NC.dtype, copy=False)

    @cached_property
    def _blocks(self) -> tuple[tuple[int, int, int], ...]:
        """Of each column that belongs to a block: itself, the column of its stage's depth, and the least index there at which it counts."""
        found, column = [], 1 + len(self.network)
        for stage in self.stages:
            depth_column = column
            column += 1
            for slot in range(stage.depths[-1]):
                least = next(index for index, depth in enumerate(stage.depths) if depth > slot)
                found += [(column + gene, depth_column, least) for gene in range(len(stage.genes))]
                column += len(stage.genes)
        return tuple(found)

    @cached_property
    def _block_columns(self) -> np.ndarray[Any, np.dtype[np.intp]]:
        return np.array([column for column, _, _ in self._blocks], dtype=np.intp)

    @cached_property
    def _depth_columns(self) -> np.ndarray[Any, np.dtype[np.intp]]:
        return np.array([depth for _, depth, _ in self._blocks], dtype=np.intp)

    @cached_property
    def _least_depths(self) -> Rows:
        return np.array([least for _, _, least in self._blocks], dtype=ROW_DTYPE)

    def rows_in(self, other: Space, rows_NC: Rows) -> Rows:
        """The rows of the same archs in another space of the same name, of which this one is a part (``restrict``) or which it contains.

        Raises:
            ArchError: a column of ``other`` lacks a value that a row has.
        """
        if self is other:
            return rows_NC
        sources_C, tables = _translation(self, other)
        translated_NC = np.where(sources_C >= 0, rows_NC[:, sources_C], ROW_DTYPE(0))
        for column, table in tables.items():
            translated_NC[:, column] = table[translated_NC[:, column]]
        translated_NC = other.canonical(translated_NC)
        strange = np.flatnonzero((translated_NC[:, list(tables)] < 0).any(axis=1))
        if len(strange):
            other.check(self.decode(rows_NC[strange[0]].tolist()))  # raises, and says what is wrong
        return translated_NC

    # -- validity -----------------------------------------------------------------------------------------------------

    def check(self, arch: Arch) -> None:
        """Raise ArchError, naming the gene and its values, unless ``arch`` is a point of this space."""
        if arch.space != self.name:
            raise ArchError(f"an arch must name its space, but this is {self.name} and the arch says {arch.space}; load the space it names")
        _check_value("resolution", arch.resolution, self.resolutions, self.name)
        if len(arch.stages) != len(self.stages):
            raise ArchError(f"{self.name} has {len(self.stages)} stages, but the arch has {len(arch.stages)}; give each stage its blocks")
        _check_genes("network", arch.network, self.network, self.name)
        for s, (stage, known, blocks) in enumerate(zip(self.stages, self._known_genes, arch.stages, strict=True)):
            _check_value(f"the depth of stages.{s}", len(blocks), stage.depths, self.name)
            for b, block in enumerate(blocks):
                if block not in known:
                    _check_genes(f"stages.{s}.{b}", block, stage.genes, self.name)

    def __contains__(self, arch: Arch) -> bool:
        try:
            self.check(arch)
        except ArchError:
            return False
        return True

    # -- smaller spaces -----------------------------------------------------------------------------------------------

    def restrict(
        self, *, resolution: Iterable[int] | None = None, depth: Iterable[int] | None = None, **genes: Iterable[Number] | None
    ) -> Self:
        """The space of the same name with fewer choices, which is how a training phase says what is free.

        Args:
            resolution: the resolutions to keep, in pixels.
            depth: which of each stage's depths to keep, by index from the shallowest (stages may differ in their depths).
            genes: by gene name the values to keep.

        Raises:
            SpaceError: a name or value is not among the choices.
        """
        if unknown := set(genes) - set(self.gene_names):
            name = sorted(unknown)[0]
            raise SpaceError(f"'{name}' must be a gene of {self.name}; {nearest(name, ['resolution', 'depth', *self.gene_names])}")

        def kept(gene: Gene) -> Gene:
            return Gene(gene.name, _subset(gene.name, genes.get(gene.name), gene.values, self.name))

        def shortened(stage: Stage) -> Stage:
            # A stage of one depth has nothing to choose, whatever the others keep.
            indices = range(len(stage.depths)) if len(stage.depths) > 1 else (0,)
            chosen = _subset("depth", depth if len(indices) > 1 else None, indices, self.name)
            return Stage(tuple(stage.depths[int(i)] for i in chosen), tuple(kept(gene) for gene in stage.genes))

        resolutions = tuple(int(r) for r in _subset("resolution", resolution, self.resolutions, self.name))
        stages, network = tuple(map(shortened, self.stages)), tuple(map(kept, self.network))
        return replace(self, resolutions=resolutions, stages=stages, network=network)

    def _at(self, arch: Arch, resolution: int | None) -> Arch:
        if resolution is None:
            return arch
        _check_value("resolution", resolution, self.resolutions, self.name)
        return replace(arch, resolution=resolution)


@lru_cache(maxsize=64)
def _translation(space: Space, other: Space) -> tuple[np.ndarray[Any, np.dtype[np.intp]], dict[int, Rows]]:
    """From which column each of ``other`` comes, and what becomes of each index in those whose values differ; -1 for what is lacking."""
    own = {gene.name: column for column, gene in enumerate(space.columns)}
    sources_C = np.array([own.get(gene.name, -1) for gene in other.columns], dtype=np.intp)
    tables = {}
    for column, (gene, source) in enumerate(zip(other.columns, sources_C.tolist(), strict=True)):
        if source >= 0 and space.columns[source].values != gene.values:
            index = {value: i for i, value in enumerate(gene.values)}
            tables[column] = np.array([index.get(value, -1) for value in space.columns[source].values], dtype=ROW_DTYPE)
    return sources_C, tables


def _check_value(what: str, value: Number, allowed: Sequence[Number], space: str) -> None:
    if value not in allowed:
        raise ArchError(f"{what} must be one of {list(allowed)} in {space}, but got {value}; choose one of them")


def _check_genes(where: str, genes: Genes, expected: Sequence[Gene], space: str) -> None:
    if len(genes) != len(expected) or any(gene.name not in genes for gene in expected):
        raise ArchError(
            f"{where} must have the genes {[gene.name for gene in expected]} in {space}, but has {list(genes)}; name each of them once"
        )
    for gene in expected:
        _check_value(f"{where}.{gene.name}", genes[gene.name], gene.values, space)


def _subset(name: str, wanted: Iterable[Number] | None, values: Sequence[Number], space: str) -> tuple[Number, ...]:
    """Those of ``values`` that are wanted, which is all if ``wanted`` is None."""
    if wanted is None:
        return tuple(values)
    kept = tuple(sorted(set(wanted)))
    if not kept or not set(kept) <= set(values):
        raise SpaceError(f"{name} must keep some of {list(values)} in {space}, but got {list(kept)}; choose among them")
    return kept
