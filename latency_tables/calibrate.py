"""Learns from a few whole networks how they differ from the sum of their blocks, and how sure that makes us."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import theilslopes

from devices.device import Device
from devices.timing import TimingPolicy
from latency_tables.correction import Correction
from latency_tables.estimate import Estimator
from latency_tables.networks import time_networks
from latency_tables.table import LatencyTable
from ofa.arch import Arch
from ofa.errors import TableError
from ofa.progress import Progress, silent
from ofa.space import Space

__all__ = ["calibrate_table", "check_device", "fit_correction", "sample_across_range", "table_resolutions"]

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_COVERAGE = 0.9
_CANDIDATES_PER_NETWORK = 50


def calibrate_table(
    table: LatencyTable,
    space: Space,
    device: Device,
    *,
    nets: int = 20,
    resolutions: Iterable[int] | None = None,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
) -> LatencyTable:
    """Time whole networks and store the correction that they teach in a copy of the table.

    Args:
        table: measured on ``device``, with the blocks of ``space``.
        space: where the networks are drawn from, spread over its range of latencies.
        device: must be the table's.
        nets: how many; at least 9, or a 90 % interval cannot be honest.
        resolutions: in pixels; by default those of the space that the table was built for.
        rng: networks, weights, inputs, order of measurement.
        progress: told how far it is.
        policy: when a measurement is enough; see ``devices.timing``.

    Raises:
        TableError: too few networks, another device's table, or blocks that the table lacks.
        DeviceError: the device cannot measure.
    """
    _check_enough(nets)
    check_device(table, device)
    allowed = space.restrict(resolution=table_resolutions(table, space, resolutions))
    estimator = Estimator(space, table)
    archs = sample_across_range(allowed, estimator, nets, rng)
    timings = time_networks(space, archs, device, rng=rng, progress=progress, policy=policy)
    correction = fit_correction([estimator.sum_ms(arch) for arch in archs], [timing.median_ms for timing in timings])
    return table.with_metadata(calibration=correction.to_json())


def fit_correction(sums_ms: Sequence[float], measured_ms: Sequence[float], *, coverage: float = _COVERAGE) -> Correction:
    """The affine map from sums to measured latencies, robust, with the interval that networks not seen fall into.

    Fitted to relative errors by the median of pairwise slopes (Theil-Sen); the interval is the conformal quantile of the relative
    residuals of each network when the map is fitted without it (the jackknife of Barber et al., Annals of Statistics 2021, with one
    map in place of all).

    Args:
        sums_ms: sums over the blocks of each network.
        measured_ms: what each took.
        coverage: share of networks not seen that the interval is to hold.

    Raises:
        TableError: too few networks for this coverage.
    """
    _check_enough(len(sums_ms), coverage)
    x_N, y_N = np.asarray(sums_ms, dtype=np.float64), np.asarray(measured_ms, dtype=np.float64)
    residuals = []
    for i in range(len(x_N)):
        intercept, slope = _fit(np.delete(x_N, i), np.delete(y_N, i))
        residuals.append(float(y_N[i] / (intercept + slope * x_N[i]) - 1))
    residuals.sort(key=abs)
    intercept, slope = _fit(x_N, y_N)
    rank = math.ceil(round(coverage * (len(x_N) + 1), 9))
    return Correction(
        intercept_ms=intercept,
        slope=slope,
        half_width=abs(residuals[rank - 1]),
        coverage=coverage,
        nets=len(x_N),
        residuals=tuple(residuals),
    )


def sample_across_range(space: Space, estimator: Estimator, count: int, rng: np.random.Generator) -> list[Arch]:
    """Different networks whose estimated latencies are spread evenly from the fastest to the slowest.

    Uniformly random networks crowd in the middle; where a correction is to hold at the ends as well, some must be from there.
    """
    drawn = [_sample_of_any_size(space, rng) for _ in range(_CANDIDATES_PER_NETWORK * count)]
    candidates = list(dict.fromkeys([space.smallest(), space.largest(), *drawn]))
    if len(candidates) < count:
        raise TableError(
            f"{count} different networks are needed, but {space.name} has about {len(candidates)} at these resolutions; ask for fewer"
        )
    sums = np.array([estimator.sum_ms(arch) for arch in candidates])
    chosen: list[int] = []
    for target in np.linspace(sums.min(), sums.max(), count):
        distances = np.abs(sums - target)
        distances[chosen] = np.inf
        chosen.append(int(distances.argmin()))
    return [candidates[i] for i in chosen]


def _sample_of_any_size(space: Space, rng: np.random.Generator) -> Arch:
    """A random network all of whose genes lean to the same side, which side and how much is random."""
    lean = rng.random()
    return space.decode([int(rng.binomial(len(gene.values) - 1, lean)) for gene in space.columns])


def table_resolutions(table: LatencyTable, space: Space, resolutions: Iterable[int] | None) -> list[int]:
    """The resolutions asked for, or else those of the space that the table was built for.

    Raises:
        TableError: it was built for another space.
    """
    if resolutions is not None:
        return sorted(set(resolutions))
    spaces = table.metadata["spaces"]
    if space.name not in spaces:
        raise TableError(
            f"a table must be of the space it is used for, but this one is of {', '.join(spaces)} and not of {space.name}; "
            f"build one with: ofa table build --space {space.name} --device {table.device_name}"
        )
    return list(spaces[space.name])


def check_device(table: LatencyTable, device: Device) -> None:
    """Check that a table is of this very device, settings included.

    Raises:
        TableError: it is of another, or of other settings.
    """
    theirs, ours = table.metadata["device"], device.to_json()
    for key in ("name", "runtime", "threads", "precision", "batch", "options"):
        if theirs[key] != ours[key]:
            raise TableError(
                f"a table must be of the device it is compared with, but its {key} is {theirs[key]!r} and the device's is {ours[key]!r}; "
                f"name the table's device, or build a table of this one"
            )


def _fit(x_N: Floats, y_N: Floats) -> tuple[float, float]:
    """Intercept and slope of y over x that make small relative errors: y/x is fitted over 1/x."""
    scale = float(np.median(x_N))
    if np.ptp(x_N) <= 1e-9 * scale:
        return 0.0, float(np.median(y_N / x_N))
    fitted = theilslopes(y_N / x_N, scale / x_N)
    return float(fitted.slope) * scale, float(fitted.intercept)


def _check_enough(nets: int, coverage: float = _COVERAGE) -> None:
    least = math.ceil(round(coverage / (1 - coverage), 9))
    if nets < least:
        raise TableError(f"a {coverage:.0%} interval needs at least {least} networks, but there are {nets}; time more of them")
