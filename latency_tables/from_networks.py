"""A table from measured whole networks only: block costs are fitted so that their sums match the networks' latencies.

Shape suffixes: N networks, U blocks of the space, K units of cost, P places, Q costs of a unit at a place, T terms, R rows of a penalty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import nnls

from devices.timing import Timing
from latency_tables.correction import COVERAGE, Correction
from latency_tables.info import LONGEST_MS, Estimated, MeasuredNetwork, TableInfo
from latency_tables.robust import fit_relative, jackknife_width
from latency_tables.table import LatencyTable, row_of, rows_frame
from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.blocks import Block, PlacedBlock, Shape
from ofa.errors import TableError
from ofa.families import lower
from ofa.inventory import blocks_of_space
from ofa.parquet import now
from ofa.resolution import Resolution, ascending
from ofa.space import Space

__all__ = ["UNITS", "check_networks", "estimated_table", "fit_costs", "measured_elsewhere", "table_from_networks", "units_of"]


UNITS = ("block", "layer", "dense_mac", "depthwise_mac", "value", "weight")
"""Units of a block's cost: the block itself, its layers, its dense and depthwise MACs, values that its layers write, and weights."""

LEAST_NETWORKS = 20
_SHRINKAGES = (0.1, 1.0, 10.0)  # variance of the measurements over the variance of a place's costs, as shares
_FOLDS = 5
_UNSEEN = 1e-6  # weight of a place that no network uses: any positive value shrinks it to the common costs
_ITERATIONS = 20


def table_from_networks(
    space: Space,
    archs: Sequence[Arch],
    measured_ms: Sequence[float],
    *,
    origin: Mapping[str, Any],
    resolutions: Iterable[Resolution] | None = None,
) -> LatencyTable:
    """Estimate the latencies of blocks from measured whole networks alone.

    A block has a cost for itself, each layer, each MAC, each value written and each weight (``UNITS``). Each place (position in the
    network) of the space has non-negative costs of its own, which are shrunk to the common ones; cross-validation chooses the shrinkage.
    The interval is from the residuals of left-out networks.

    Args:
        space: the space of the networks.
        archs: the networks; a good table needs a hundred or more, of all sizes, for example random ones.
        measured_ms: measured latency of each network.
        origin: origin of the measurements: ``devices.describe`` of the device, or ``measured_elsewhere``.
        resolutions: input resolutions of the table in pixels; None for all of the space between the smallest and the largest network's.

    Returns:
        The table; its rows are estimates.

    Raises:
        TableError: fewer than 20 networks, or impossible latencies.
        ArchError: a network is not of the space.
        SpaceError: the space lacks a resolution.
    """
    y_N = check_networks(archs, measured_ms, least=LEAST_NETWORKS)
    seen = ascending(arch.resolution for arch in archs)
    known = ascending([*space.resolutions, *seen])
    between = known[known.index(seen[0]) : known.index(seen[-1]) + 1]
    sizes = ascending(set(between) & set(space.resolutions) if resolutions is None else resolutions)
    blocks = blocks_of_space(space, {*sizes, *seen})
    terms = _PlaceTerms(space, blocks, archs)
    shrinkage, residuals_N = min(((s, terms.left_out(y_N, s)) for s in _SHRINKAGES), key=lambda tried: float(np.abs(tried[1]).mean()))
    call_ms, ms_U = terms.fit(y_N, shrinkage)
    correction = Correction(
        intercept_ms=call_ms,
        slope=1.0,
        half_width=jackknife_width(residuals_N, COVERAGE),
        coverage=COVERAGE,
        nets=len(y_N),
        residuals=tuple(sorted(residuals_N.tolist(), key=abs)),
    )
    ms = dict(zip(((placed.block, placed.input) for placed in blocks), ms_U.tolist(), strict=True))
    chosen = [(placed, ms[placed.block, placed.input]) for placed in blocks_of_space(space, sizes)]
    how = Estimated(by="networks", nets=len(y_N), shrinkage=shrinkage)
    networks = list(zip(archs, y_N.tolist(), strict=True))
    return estimated_table(space, sizes, chosen, correction, origin=origin, how=how, networks=networks)


def estimated_table(
    space: Space,
    resolutions: Sequence[Resolution],
    blocks: Iterable[tuple[PlacedBlock, float]],
    correction: Correction,
    *,
    origin: Mapping[str, Any],
    how: Estimated,
    networks: Iterable[tuple[Arch, float]],
) -> LatencyTable:
    """A table of estimated blocks: ``median_ms`` is the estimated contribution of a block to a network, and ``repeats`` is 0.

    Args:
        space: the space of the blocks.
        resolutions: input resolutions of the table in pixels.
        blocks: blocks with their estimates in ms.
        correction: correction from their sum to networks.
        origin: origin of the measurements as of ``devices.describe``; names the device, its batch and its precision.
        how: method and data of the estimate.
        networks: the measured networks with their latencies in ms.

    Raises:
        TableError: ``origin`` names no device, batch or precision.
    """
    measured = tuple(MeasuredNetwork(arch=arch, measured_ms=ms) for arch, ms in networks)
    info = replace(TableInfo.of_origin(origin).with_space(space, resolutions), calibration=correction, networks=measured, estimated=how)
    batch, precision = info.conditions.batch, info.conditions.precision
    rows = [row_of(placed, _not_timed(ms), batch=batch, precision=precision) for placed, ms in blocks]
    return LatencyTable(rows_frame(rows), info)


def measured_elsewhere(device: Mapping[str, Any]) -> dict[str, Any]:
    """The origin of measurements without one: hardware and runtime version are ``unknown``, and the date is today's.

    Args:
        device: the fields of a ``Device`` (``to_json``), or at least ``name``, ``runtime``, ``precision`` and ``batch``.

    Returns:
        The origin, as JSON values.
    """
    unknown = dict.fromkeys(("runtime_version", "processor"), "unknown")
    return {"device": dict(device), **unknown, "date": now()}


@lru_cache(maxsize=65536)
def units_of(block: Block, shape: Shape) -> tuple[float, ...]:
    """Amount of each of ``UNITS`` in a block, for one input of that shape; [K]."""
    layers = block.layers(shape)
    macs = {of: sum(layer.macs for layer in layers if layer.depthwise == of) for of in (False, True)}
    written = sum(layer.output.values for layer in layers) if layers else block.output(shape).values
    weights = sum(layer.weights for layer in layers)
    return (1.0, float(len(layers)), float(macs[False]), float(macs[True]), float(written), float(weights))


def check_networks(archs: Sequence[Arch], measured_ms: Sequence[float], *, least: int) -> Floats:
    """The latencies of measured networks in ms, checked; [N].

    Raises:
        TableError: fewer than ``least`` different networks, or impossible latencies.
    """
    different = len(set(archs))
    if different < least:
        raise TableError(f"at least {least} different networks must be measured, but there are {different}; measure more of them")
    if len(measured_ms) != len(archs):
        raise TableError(f"each network must have one time, but there are {len(archs)} networks and {len(measured_ms)} times; give both")
    for number, ms in enumerate(measured_ms, start=1):
        if not 0 < ms < LONGEST_MS:
            raise TableError(
                f"a network's time must be above 0 and below {LONGEST_MS:g} ms, but network {number} of {len(archs)} has {ms}; "
                "measure it again"
            )
    return np.asarray(measured_ms, dtype=np.float64)


def fit_costs(terms_NT: Floats, measured_N: Floats, penalty_RT: Floats) -> Floats:
    """Non-negative costs [T] that fit the measurements.

    Least squares of the relative errors and of ``penalty @ costs``, robust to disturbed networks by Huber's loss (iteratively reweighted,
    with the non-negative least squares of Lawson and Hanson in each round).
    """
    nothing_R = np.zeros(len(penalty_RT))

    def solve(weighted_NT: Floats, target_N: Floats) -> Floats:
        left, right = np.vstack([weighted_NT, penalty_RT]), np.concatenate([target_N, nothing_R])
        return np.asarray(nnls(left, right, maxiter=100 * left.shape[1])[0], dtype=np.float64)

    return fit_relative(terms_NT, measured_N, solve, iterations=_ITERATIONS)


class _PlaceTerms:
    """Networks as sums of units by place, scaled so that a typical network has one of each unit over all places."""

    def __init__(self, space: Space, blocks: Sequence[PlacedBlock], archs: Sequence[Arch]) -> None:
        units_UK = np.array([units_of(placed.block, placed.input) for placed in blocks])
        places = list(dict.fromkeys(placed.name for placed in blocks))
        place_U = np.array([places.index(placed.name) for placed in blocks])
        numbers = {(placed.block, placed.input): number for number, placed in enumerate(blocks)}
        ids = [[numbers[placed.block, placed.input] for placed in lower(space, arch)] for arch in archs]
        scale_K = np.mean([units_UK[i].sum(axis=0) for i in ids], axis=0)
        units_UK = units_UK / np.where(scale_K > 0, scale_K, 1.0)
        at_place_UPK = units_UK[:, None, :] * (place_U[:, None] == np.arange(len(places)))[:, :, None]
        there_PK = at_place_UPK.any(axis=0)
        self._unit_Q = np.nonzero(there_PK)[1]
        self._terms_UQ = at_place_UPK[:, there_PK]
        self._terms_NQ = np.array([self._terms_UQ[i].sum(axis=0) for i in ids])

    def fit(self, measured_N: Floats, shrinkage: float) -> tuple[float, Floats]:
        """The cost of a call, and of each block [U], in ms."""
        call_ms, ms_Q = self._fit(np.arange(len(measured_N)), measured_N, shrinkage)
        ms_U: Floats = self._terms_UQ @ ms_Q
        return call_ms, ms_U

    def left_out(self, measured_N: Floats, shrinkage: float) -> Floats:
        """Cross-validated relative residual of each network; [N]."""
        residuals_N = np.empty_like(measured_N)
        fold_N = np.arange(len(measured_N)) % _FOLDS
        for fold in range(_FOLDS):
            call_ms, ms_Q = self._fit(np.flatnonzero(fold_N != fold), measured_N, shrinkage)
            out = fold_N == fold
            residuals_N[out] = measured_N[out] / (call_ms + self._terms_NQ[out] @ ms_Q) - 1
        return residuals_N

    def _fit(self, chosen: np.ndarray[tuple[int, ...], np.dtype[np.int64]], measured_N: Floats, shrinkage: float) -> tuple[float, Floats]:
        typical_ms = float(np.median(measured_N[chosen]))
        terms_NQ, kinds = self._terms_NQ[chosen], len(UNITS)
        columns = [terms_NQ, np.zeros((len(chosen), kinds)), np.ones((len(chosen), 1))]  # costs by place, common costs, the call
        costs = fit_costs(np.hstack(columns), measured_N[chosen] / typical_ms, self._penalty(terms_NQ.mean(axis=0), shrinkage))
        return typical_ms * float(costs[-1]), typical_ms * costs[: len(self._unit_Q)]

    def _penalty(self, share_Q: Floats, shrinkage: float) -> Floats:
        """Penalty rows for the differences of each place's costs from the common ones."""
        strength_Q = np.sqrt(shrinkage * np.maximum(share_Q, _UNSEEN))
        common_QK = -strength_Q[:, None] * (self._unit_Q[:, None] == np.arange(len(UNITS)))
        return np.hstack([np.diag(strength_Q), common_QK, np.zeros((len(share_Q), 1))])


def _not_timed(ms: float) -> Timing:
    return Timing(median_ms=ms, p90_ms=math.nan, min_ms=math.nan, std_ms=math.nan, repeats=0)
