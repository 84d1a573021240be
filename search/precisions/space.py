"""A space over precisions: one additional gene, which only a search sees.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from ofa.arch import Arch, Genes
from ofa.arrays import Rows
from ofa.choices import ROW_DTYPE
from ofa.errors import SearchError, SpaceError
from ofa.exporting.precision import PRECISIONS
from ofa.resolution import Resolution
from ofa.space import Gene, Number, Space

__all__ = ["GENE", "PrecisionSpace", "archs_of", "over_precisions", "precisions_of", "without_precisions"]

GENE = "precision"


@dataclass(frozen=True, kw_only=True)
class PrecisionSpace(Space):
    """A space over precisions, made by ``over_precisions``. Its last network gene is the number of bits of a weight.

    Attributes:
        of: the space without the gene.
        precisions: names of the gene's values, in order.
    """

    of: Space
    precisions: tuple[str, ...]

    @cached_property
    def column(self) -> int:
        """The gene's column in a row."""
        return 1 + len(self.of.network)

    def without(self, rows_NC: Rows) -> Rows:
        """The rows of the same networks in ``of``; [N, C - 1]."""
        return np.delete(rows_NC, self.column, axis=1)

    def rows_at(self, rows_NC: Rows, precision: str) -> Rows:
        """The same networks in one of the precisions."""
        changed_NC = rows_NC.copy()
        changed_NC[:, self.column] = ROW_DTYPE(self.precisions.index(precision))
        return changed_NC

    def in_precision(self, rows_NC: Rows) -> dict[str, np.ndarray[Any, np.dtype[np.intp]]]:
        """Indices of the networks of each precision that occurs."""
        found = {name: np.flatnonzero(rows_NC[:, self.column] == value) for value, name in enumerate(self.precisions)}
        return {name: index for name, index in found.items() if len(index)}

    def arch(self, row_C: Sequence[int]) -> Arch:
        """The network of a row, as an arch of ``of``."""
        return self.of.decode([value for column, value in enumerate(row_C) if column != self.column])

    @property
    def parts(self) -> tuple[Self, ...]:
        """One space for each precision."""
        return tuple(self.restrict(precision=[bits]) for bits in self.network[-1].values)

    def is_part_of(self, other: Space, *, any_classes: bool = False) -> bool:
        """As ``Space.is_part_of``, for networks and precisions."""
        same = isinstance(other, PrecisionSpace) and set(self.precisions) <= set(other.precisions)
        return same and self.of.is_part_of(without_precisions(other), any_classes=any_classes)

    def lower(self, arch: Arch) -> tuple[Any, ...]:
        """The blocks of a network, which are the same in every precision."""
        genes = Genes({name: value for name, value in arch.network.items() if name != GENE})
        return self.of.lower(replace(arch, network=genes))

    def restrict(
        self, *, resolution: Iterable[Resolution] | None = None, depth: Iterable[int] | None = None, **genes: Iterable[Number] | None
    ) -> Self:
        """As ``Space.restrict``; ``precision`` takes the bits to keep."""
        bits, known = genes.pop(GENE, None), dict(zip(self.network[-1].values, self.precisions, strict=True))
        kept = sorted(set(known if bits is None else bits))
        if not kept or not set(kept) <= set(known):
            raise SpaceError(f"precision must keep some of {list(known)} bits in {self.name}, but got {kept}; choose among them")
        names = tuple(known[each] for each in kept)
        return type(self)(**_fields(self.of.restrict(resolution=resolution, depth=depth, **genes), names))


def over_precisions(space: Space, precisions: Iterable[str]) -> PrecisionSpace:
    """A space whose networks come in these precisions.

    Raises:
        SearchError: ``precisions`` is empty, two precisions have equally many bits per weight, or the space has a gene ``precision``.
        ExportError: a precision is unknown.
    """
    names = tuple(sorted(precisions, key=lambda name: PRECISIONS.get(name).bits))
    bits = [PRECISIONS.get(name).bits for name in names]
    if not names or len(set(bits)) < len(bits):
        listed = ", ".join(f"{name} ({each} bits)" for name, each in zip(names, bits, strict=True)) or "none"
        raise SearchError(f"precisions of a search must differ in the bits of a weight, but they are {listed}; leave one table out")
    if GENE in space.gene_names:
        raise SearchError(
            f"a space that is searched over precisions must have no gene '{GENE}', but {space.name} has one; search with one table a device"
        )
    return PrecisionSpace(**_fields(space, names))


def _fields(space: Space, precisions: tuple[str, ...]) -> dict[str, Any]:
    gene = Gene(GENE, tuple(PRECISIONS.get(name).bits for name in precisions))
    known = {field.name: getattr(space, field.name) for field in fields(Space)}
    return {**known, "network": (*space.network, gene), "of": space, "precisions": precisions}


def without_precisions(space: Space) -> Space:
    """The space without the gene ``precision``."""
    return space.of if isinstance(space, PrecisionSpace) else space


def archs_of(space: Space, rows_NC: Rows) -> list[Arch]:
    """The archs of rows, without the gene ``precision``."""
    decode = space.arch if isinstance(space, PrecisionSpace) else space.decode
    return [decode(row) for row in rows_NC.tolist()]


def precisions_of(space: Space, rows_NC: Rows) -> list[str] | None:
    """The precision of each row; None if the space is not over precisions."""
    return [space.precisions[value] for value in rows_NC[:, space.column].tolist()] if isinstance(space, PrecisionSpace) else None
