"""Transfer: a table for a new device from another device's table and about ten whole networks measured on the new device.

Shape suffixes: N networks, U blocks, K units of cost, T terms.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from latency_tables.calibrate import table_resolutions
from latency_tables.correction import COVERAGE, Correction
from latency_tables.estimate import Estimator
from latency_tables.from_networks import UNITS, check_networks, estimated_table, fit_costs, units_of
from latency_tables.info import Estimated
from latency_tables.robust import jackknife_width
from latency_tables.table import LatencyTable
from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.cost import weight_bytes
from ofa.errors import OfaError, TableError
from ofa.families import lower
from ofa.inventory import blocks_of_space
from ofa.reading.rows import open_csv
from ofa.schema import to_json
from ofa.space import Space

__all__ = ["LEAST_NETWORKS", "read_measurements", "transfer_table"]


LEAST_NETWORKS = 5
"""With fewer networks of the new device the quality of the table cannot be judged."""

TERMS = ("source", "call", *UNITS)
_SHRINKAGE = 1e-3  # variance of the measurements over the variance of a term, as shares of the latency: 1 % against 30 %
_BETTER = 0.75  # further terms must reduce the leave-one-out error to at most this share of the scaled source's
_UNDISTURBED = 0.8  # share of the networks with the smallest residuals that the error is computed from
_COLUMNS = ("arch", "measured_ms")


def transfer_table(
    source: LatencyTable, space: Space, archs: Sequence[Arch], measured_ms: Sequence[float], *, origin: Mapping[str, Any]
) -> LatencyTable:
    """Estimate the table of a new device.

    The latency of a network is modelled as the source's estimate times a factor, plus costs for the call, each block, each layer, each MAC,
    each value written and each weight. All costs are non-negative, so all blocks are. All costs but the factor are shrunk to zero. They
    are dropped unless they clearly improve leave-one-out predictions over the factor alone; with the factor alone the new table ranks
    networks exactly as the source does. The fit is robust to some disturbed networks.

    The rows are the estimated contributions of blocks to a network (``repeats`` is 0, percentiles are unknown), and the correction adds the
    cost of the call. Its interval is the wider of two: the jackknife quantile of the left-out networks, and Student's interval.

    Args:
        source: a table of another device, calibrated or not, with the blocks of ``space``.
        space: the space of the networks.
        archs: at least 5 different networks; best about 10 from the fastest to the slowest (``sample_across_range``).
        measured_ms: measured latency of each network on the new device.
        origin: origin of the measurements: ``devices.describe`` of the device, or ``measured_elsewhere``.

    Returns:
        The table; its rows are estimates.

    Raises:
        TableError: too few networks, impossible latencies, a source of another space, or a source that lacks blocks of the networks.
        ArchError: a network is not of the space.
    """
    if source.correction is not None and source.correction.ms_per_weight_mib2:
        # The quadratic term is not additive over blocks, so rows cannot contain it; the fitted terms include weights anyway.
        source = source.with_info(calibration=None)
    sizes = table_resolutions(source, space, None)
    y_N = check_networks(archs, measured_ms, least=LEAST_NETWORKS)
    terms_NT = _terms(source, space, archs)
    fitted = _fit(terms_NT, y_N)
    blocks = [placed for placed in blocks_of_space(space, sizes) if placed in source]
    source_ms = _added_by_blocks(source, np.array([[source.latency_ms(placed), weight_bytes([placed])] for placed in blocks]))
    units_UK = np.array([units_of(placed.block, placed.input) for placed in blocks])
    ms_U = fitted.costs_T[0] * source_ms + units_UK @ fitted.costs_T[2:]
    correction = Correction(
        intercept_ms=float(fitted.costs_T[0] * _intercept(source) + fitted.costs_T[1]),
        slope=1.0,
        half_width=fitted.half_width,
        coverage=COVERAGE,
        nets=len(y_N),
        residuals=tuple(sorted(fitted.left_out_N.tolist(), key=abs)),
    )
    shares = np.mean(terms_NT * fitted.costs_T / y_N[:, None], axis=0)
    known = {"device": source.info.device, "date": source.info.date, "estimated": to_json(source.info.estimated)}
    how = Estimated(
        by="transfer",
        nets=len(y_N),
        source={"file": os.path.basename(source.source), **known},
        times_source=float(fitted.costs_T[0]),
        shares=dict(zip(TERMS, shares.tolist(), strict=True)),
    )
    networks = list(zip(archs, y_N.tolist(), strict=True))
    estimates = zip(blocks, ms_U.tolist(), strict=True)
    return estimated_table(space, sizes, estimates, correction, origin=origin, how=how, networks=networks)


def read_measurements(path: str | os.PathLike[str], space: Space) -> tuple[list[Arch], list[float]]:
    """Networks and their latencies in ms from a CSV file with the columns ``arch`` (JSON) and ``measured_ms``; others are ignored.

    Raises:
        FileError: the file is absent or unreadable.
        TableError: a column is missing, or a row is unreadable or not of the space; the message names its line.
    """
    archs, times = [], []
    with open_csv(path) as reader:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise TableError(f"measurements must have the columns {', '.join(_COLUMNS)}, but '{path}' lacks {', '.join(missing)}; add them")
        for row in reader:
            try:
                arch, ms = Arch.from_text(row["arch"] or ""), float(row["measured_ms"] or "")
                space.check(arch)
            except (OfaError, ValueError) as error:
                raise TableError(
                    f"each row must be a network of {space.name} and its time, but line {reader.line_num} of '{path}' is not: {error}"
                ) from error
            archs.append(arch)
            times.append(ms)
    return archs, times


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Costs of the terms in ms [T], leave-one-out relative residuals [N], and half width of the interval."""

    costs_T: Floats
    left_out_N: Floats
    half_width: float


def _fit(terms_NT: Floats, measured_N: Floats) -> _Fit:
    typical_ms, scale_T = float(np.median(measured_N)), terms_NT.mean(axis=0)
    scale_T = np.where(scale_T > 0, scale_T, 1.0)
    shares_NT, y_N = terms_NT / scale_T, measured_N / typical_ms
    scaled, all_terms = (_left_out(shares_NT[:, :count], y_N) for count in (1, len(TERMS)))
    count = len(TERMS) if _error(all_terms) < _BETTER * _error(scaled) else 1
    left_out_N = all_terms if count > 1 else scaled
    costs_T = np.zeros(len(TERMS))
    costs_T[:count] = fit_costs(shares_NT[:, :count], y_N, _penalty(count))
    residuals_N = y_N / (shares_NT @ costs_T) - 1
    half_width = max(jackknife_width(left_out_N, COVERAGE), _student_width(residuals_N, int((costs_T > 0).sum())))
    return _Fit(costs_T=typical_ms * costs_T / scale_T, left_out_N=left_out_N, half_width=half_width)


def _left_out(terms_NT: Floats, y_N: Floats) -> Floats:
    """Leave-one-out relative residuals; [N]."""
    others = ~np.eye(len(y_N), dtype=bool)
    penalty = _penalty(terms_NT.shape[1])
    predicted = [terms_NT[i] @ fit_costs(terms_NT[others[i]], y_N[others[i]], penalty) for i in range(len(y_N))]
    residuals_N: Floats = y_N / np.asarray(predicted) - 1
    return residuals_N


def _penalty(count: int) -> Floats:
    """Penalty rows that shrink all terms but the source to zero."""
    return math.sqrt(_SHRINKAGE) * np.eye(count)[1:]


def _error(residuals_N: Floats) -> float:
    """Trimmed mean absolute error, without the worst networks."""
    return float(np.sort(np.abs(residuals_N))[: math.ceil(_UNDISTURBED * len(residuals_N))].mean())


def _student_width(residuals_N: Floats, terms: int) -> float:
    """Half width of Student's interval for a new network, under normal errors.

    With few networks and many terms residuals are correlated, so that their largest one underestimates the error.
    """
    freedom = max(1, len(residuals_N) - terms)
    spread = math.sqrt(float((residuals_N**2).sum()) / freedom * (1 + terms / len(residuals_N)))
    return float(student.ppf((1 + COVERAGE) / 2, freedom)) * spread


def _terms(source: LatencyTable, space: Space, archs: Sequence[Arch]) -> Floats:
    """Amount of each term in each network; [N, T]."""
    estimator = Estimator(space, source)
    units_NK = np.array([np.sum([units_of(placed.block, placed.input) for placed in lower(space, arch)], axis=0) for arch in archs])
    return np.column_stack([estimator.latencies_ms(archs), np.ones(len(archs)), units_NK])


def _added_by_blocks(source: LatencyTable, ms_and_bytes_U2: Floats) -> Floats:
    ms_U, bytes_U = ms_and_bytes_U2.T
    return ms_U if source.correction is None else source.correction.of_block(ms_U, bytes_U)


def _intercept(source: LatencyTable) -> float:
    return 0.0 if source.correction is None else source.correction.intercept_ms
