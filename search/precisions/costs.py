"""What follows from networks alone, for their files in a number format: bytes of weights above all.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ofa.arrays import Floats, Rows
from ofa.costs import COSTS, FLOAT32, NumberFormat
from ofa.exporting.precision import PRECISIONS
from ofa.row_costs import costs_of
from ofa.space import Space
from search.precisions.space import PrecisionSpace

__all__ = ["costs_in_files", "number_format"]


def number_format(precision: str) -> NumberFormat:
    """How many bytes constants take in files of a precision; float32 of one that is unknown here, as a table of others may name."""
    return PRECISIONS.get(precision).stored if precision in PRECISIONS else FLOAT32


def costs_in_files(space: Space, rows_NC: Rows, names: Sequence[str], precisions: Iterable[str]) -> dict[str, Floats]:
    """Costs of encoded archs by name [N], as their files have them.

    Args:
        space: of the networks; over precisions, each network counts in its own.
        rows_NC: the networks.
        names: of ``ofa.costs.COSTS``.
        precisions: those of all files of a network, where the space does not say it: the largest counts, and float32 where there are none.
    """
    of_formats = [name for name in names if COSTS.get(name).in_format is not None]
    plain = [name for name in names if name not in of_formats]
    if isinstance(space, PrecisionSpace):
        inner_NC = space.without(rows_NC)
        found = costs_of(space.of)(inner_NC, plain)
        found |= {name: np.empty(len(rows_NC)) for name in of_formats}
        for precision, index in space.in_precision(rows_NC).items() if of_formats else ():
            for name, values in costs_of(space.of, number_format(precision))(inner_NC[index], of_formats).items():
                found[name][index] = values
        return found
    found = costs_of(space)(rows_NC, plain)
    formats = dict.fromkeys(map(number_format, precisions)) or {FLOAT32: None}
    files = [costs_of(space, each)(rows_NC, of_formats) for each in formats] if of_formats else []
    return found | {name: np.max([each[name] for each in files], axis=0) for name in of_formats}
