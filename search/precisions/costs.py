"""Device-independent costs of networks in a number format, such as the bytes of their weights.

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
    """Bytes of constants in files of a precision; float32 for an unknown precision, as a foreign table may name one."""
    return PRECISIONS.get(precision).stored if precision in PRECISIONS else FLOAT32


def costs_in_files(space: Space, rows_NC: Rows, names: Sequence[str], precisions: Iterable[str]) -> dict[str, Floats]:
    """Costs of encoded archs in their files' number format, by name; [N] each.

    Args:
        space: the space; if it is over precisions, each network counts in its own precision.
        rows_NC: encoded archs.
        names: names of costs in ``ofa.costs.COSTS``.
        precisions: precisions of a network's files, if the space is not over precisions. The largest file counts; float32 if empty.
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
