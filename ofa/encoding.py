"""Encoding: archs as rows of integers, singly or as arrays of millions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ofa.arch import Arch, Genes
from ofa.arrays import Rows
from ofa.choices import ROW_DTYPE, Gene, Number, Stage
from ofa.errors import ArchError
from ofa.resolution import Resolution, mean_side

__all__ = ["Column", "Encoding"]


@dataclass(frozen=True)
class Column:
    """One column of encoded archs; its entries are indices into ``values``.

    Attributes:
        name: such as ``resolution``, ``stages.0.depth`` or ``stages.0.1.kernel``.
        values: of the gene, ascending.
    """

    name: str
    values: tuple[Number, ...] | tuple[Resolution, ...]

    @property
    def numbers(self) -> tuple[float, ...]:
        """Each value as a number; for a resolution, the geometric mean of its sides in pixels."""
        return tuple(mean_side(value) if isinstance(value, tuple) else value for value in self.values)


class Encoding:
    """The base of a space that converts between archs and rows: one row per arch, one column per gene.

    Attributes:
        name: of the space.
        resolutions: of input images, ascending.
        stages: in order from the input.
        network: genes of the whole network.
    """

    name: str
    resolutions: tuple[Resolution, ...]
    stages: tuple[Stage, ...]
    network: tuple[Gene, ...]

    @abstractmethod
    def check(self, arch: Arch) -> None:
        """Raise ArchError unless ``arch`` is a point of the space."""

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in order: resolution, network genes, then for each stage its depth and the genes of its blocks."""
        columns = [Column("resolution", self.resolutions), *(Column(gene.name, gene.values) for gene in self.network)]
        for s, stage in enumerate(self.stages):
            columns.append(Column(f"stages.{s}.depth", stage.depths))
            columns += [Column(f"stages.{s}.{b}.{gene.name}", gene.values) for b in range(stage.depths[-1]) for gene in stage.genes]
        return tuple(columns)

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """Encode an arch.

        Returns:
            The index of each column's value; 0 for the genes of skipped blocks.

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
        """Decode a row; the columns of skipped blocks are ignored.

        Args:
            row: one index per column.

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
        """Per stage, the genes of a block by their indices, so that decoding creates no new objects."""
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
        """Number of values of each column; [C]."""
        return np.array([len(gene.values) for gene in self.columns], dtype=np.int64)

    # -- many archs as one array [N, C]: N archs, C columns -------------------------------------------------------------

    def encode_all(self, archs: Sequence[Arch]) -> Rows:
        """Encode many archs; [N, C].

        Raises:
            ArchError: an arch is not a point of this space.
        """
        return np.array([self.encode(arch) for arch in archs], dtype=ROW_DTYPE).reshape(len(archs), len(self.columns))

    def sample_rows(self, count: int, rng: np.random.Generator) -> Rows:
        """Canonical rows of ``count`` archs drawn as in ``sample``: every gene uniform and independent; [count, C]."""
        return self.canonical(rng.integers(self.cardinalities, size=(count, len(self.columns)), dtype=ROW_DTYPE))

    def sample_leaning_rows(self, count: int, rng: np.random.Generator) -> Rows:
        """Canonical rows of ``count`` archs that cover all sizes; [count, C].

        Independent genes give networks of medium size only. Here each arch draws one probability p, uniform in [0, 1), and each of
        its genes an index from the binomial distribution with p: all genes of an arch tend to the same side.
        """
        lean_N1 = rng.random((count, 1))
        return self.canonical(rng.binomial(self.cardinalities - 1, lean_N1).astype(ROW_DTYPE))

    def neighbour_rows(self, rows_NC: Rows) -> Rows:
        """Canonical rows of all archs that differ in one gene from one of ``rows_NC``, without repeats; [M, C].

        When a stage gets deeper, its new blocks have the smallest value of every gene, or the largest. The result may include rows
        of ``rows_NC``.
        """
        largest_C = (self.cardinalities - 1).astype(ROW_DTYPE)
        bases = np.concatenate([rows_NC, np.where(self.active(rows_NC), rows_NC, largest_C)]).astype(ROW_DTYPE)
        found = []
        for column, count in enumerate(self.cardinalities.tolist()):
            for value in range(count):
                changed = bases[bases[:, column] != value].copy()
                changed[:, column] = value
                found.append(changed)
        # Changes in skipped blocks vanish in canonical rows.
        return np.unique(self.canonical(np.concatenate(found)), axis=0)

    def active(self, rows_NC: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mask of the columns in use, i.e. not of a skipped block; [N, C]."""
        if not self._block_columns.size:
            return np.ones(rows_NC.shape, dtype=np.bool_)
        active_NC = np.ones(rows_NC.shape, dtype=np.bool_)
        active_NC[:, self._block_columns] = rows_NC[:, self._depth_columns] >= self._least_depths
        return active_NC

    def canonical(self, rows_NC: Rows) -> Rows:
        """The rows with 0 in the columns of skipped blocks, as ``encode`` gives them: equal networks have equal rows."""
        return np.where(self.active(rows_NC), rows_NC, 0).astype(rows_NC.dtype, copy=False)

    @cached_property
    def _blocks(self) -> tuple[tuple[int, int, int], ...]:
        """For each column of a block: the column, its stage's depth column, and the smallest depth index that includes the block."""
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

    def rows_in(self, other: Encoding, rows_NC: Rows) -> Rows:
        """Re-encode rows for a restricted (``restrict``) or enclosing space of the same name.

        Args:
            other: the space whose encoding is wanted.
            rows_NC: rows of this space.

        Returns:
            Canonical rows of ``other``, in the same order; [N, C'].

        Raises:
            ArchError: a row has a value that ``other`` lacks.
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


@lru_cache(maxsize=64)
def _translation(space: Encoding, other: Encoding) -> tuple[np.ndarray[Any, np.dtype[np.intp]], dict[int, Rows]]:
    """How to re-encode rows of ``space`` for ``other``.

    Returns:
        The source column in ``space`` of each column of ``other``, or -1; and for each column whose values differ, the new index of each
        old index, or -1 where ``other`` lacks the value.
    """
    own = {gene.name: column for column, gene in enumerate(space.columns)}
    sources_C = np.array([own.get(gene.name, -1) for gene in other.columns], dtype=np.intp)
    tables = {}
    for column, (gene, source) in enumerate(zip(other.columns, sources_C.tolist(), strict=True)):
        if source >= 0 and space.columns[source].values != gene.values:
            index = {value: i for i, value in enumerate(gene.values)}
            tables[column] = np.array([index.get(value, -1) for value in space.columns[source].values], dtype=ROW_DTYPE)
    return sources_C, tables
