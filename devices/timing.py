"""Timing of calls: repetition, order, stopping rule, and statistics.

Shape suffixes: R rounds, N networks.

Sources of noise, and the measure against each:

* The first calls of a network are slow (memory is mapped, code is generated): warm-up calls until two samples in a row agree, and the first
  round is discarded.
* The machine is faster or slower for a while (clock, neighbours): networks are timed in interleaved rounds, each in a new random order, and
  a round's samples are divided by the round's speed, the median over all networks of their time relative to their own median.
* Another process preempts a sample (the system counts that): the sample is repeated, a few times at most.
* Other disturbances of single samples: the median over rounds is reported.
* The clock is coarse for a short call: a sample has as many calls as last about a millisecond. An untimed call before it brings the
  network's data, not another network's, into the caches.

With pauses the cold start is measured: a sample is one call after a pause, without an untimed call before it. Each sample takes as long as
its pause, so there are fewer rounds if they would exceed the policy's time limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from devices.checks import check_fields, check_range
from devices.runtimes import Timer
from ofa.errors import DeviceError

resource: ModuleType | None
try:
    import resource
except ImportError:  # not a Unix
    resource = None

__all__ = ["Floats", "Timing", "TimingPolicy", "halves_ratio", "measure_rounds", "measured_s", "median_half_width", "warm_up"]

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
"""A float64 array."""

_STABLE = 0.05
_WARMUP_SAMPLES = 30
_ATTEMPTS = 4
_ENOUGH_TO_KNOW_THE_SPEED = 5
_TIGHT_SHARE = 0.9
_ATTEMPTS_WITH_PAUSES = 2
_FEWEST_ROUNDS_WITH_PAUSES = 5
_LONGEST_SILENCE_S = 5.0
_NORMAL_95 = 1.96
_NUMBER = (int, float, np.floating)
_TICK_S = time.get_clock_info("perf_counter").resolution


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Latency of one call in ms over ``repeats`` samples (a sample is the mean of a few calls in a row, or one call after a pause).

    Attributes:
        median_ms, p90_ms, min_ms, std_ms: median, 90th percentile, minimum and standard deviation of the samples.
        repeats: number of samples.
        energy_mj: energy of a call in mJ, including the machine's idle power; None if the machine does not count it, and with pauses,
            where most of it would be idle power.
        peak_memory_bytes: rise of the process's memory while the network was loaded and run once; None if the system does not report it,
            and for graphics cards with their own memory.
    """

    median_ms: float
    p90_ms: float
    min_ms: float
    std_ms: float
    repeats: int
    energy_mj: float | None = None
    peak_memory_bytes: int | None = None

    @classmethod
    def of(cls, samples_R: Floats, *, energy_mj: float | None = None, peak_memory_bytes: int | None = None) -> Timing:
        """The statistics of at least two samples in ms.

        Args:
            samples_R: latencies in ms, one per repeat.
            energy_mj: of one call; None if it was not measured.
            peak_memory_bytes: likewise.
        """
        return cls(
            median_ms=float(np.median(samples_R)),
            p90_ms=float(np.quantile(samples_R, 0.9)),
            min_ms=float(samples_R.min()),
            std_ms=float(samples_R.std(ddof=1)),
            repeats=len(samples_R),
            energy_mj=energy_mj,
            peak_memory_bytes=peak_memory_bytes,
        )

    def at_speed(self, slowdown: float) -> Timing:
        """The timing, divided by the machine's slowdown."""
        times = {key: getattr(self, key) / slowdown for key in ("median_ms", "p90_ms", "min_ms", "std_ms")}
        return replace(self, **times)


_LIMITS = {
    "tolerance": (1e-9, 1e9),
    "max_rounds": (2, 10**6),
    "time_limit_s": (1e-9, 1e6),
    "sample_ms": (1e-6, 1e5),
    "group_size": (1, 10**6),
    "energy_s": (0, 1e4),
}
"""Ranges of a policy's values, so that a measurement ends."""


@dataclass(frozen=True, kw_only=True)
class TimingPolicy:
    """Stopping rule of a measurement.

    Args:
        tolerance: stop when the half width of the median's 95 % confidence interval is at most this share of the median, for nine of ten
            networks.
        min_rounds: smallest number of rounds (samples of each network); 5 if pauses would exceed ``time_limit_s``.
        max_rounds: largest number of rounds.
        time_limit_s: stop after so many seconds in one group, once there are ``min_rounds``.
        sample_ms: shortest sample in ms; shorter calls are repeated within a sample.
        group_size: number of networks that are loaded at the same time. It bounds memory, and the loss if a measurement is interrupted.
        energy_s: shortest time in seconds over which the energy of each network is counted, if the machine can; 0 counts none.

    Raises:
        DeviceError: a value is out of range.
    """

    tolerance: float = 0.01
    min_rounds: int = 15
    max_rounds: int = 60
    time_limit_s: float = 60.0
    sample_ms: float = 1.0
    group_size: int = 64
    energy_s: float = 0.3

    def __post_init__(self) -> None:
        where = "a timing policy"
        check_fields(self, where)
        for key, (least, most) in _LIMITS.items():
            check_range(self, key, where, least, most)
        if not 2 <= self.min_rounds <= self.max_rounds:
            raise DeviceError(
                f"2 <= min_rounds <= max_rounds must hold in a timing policy, but they are {self.min_rounds} and {self.max_rounds}; "
                "correct them"
            )


def warm_up(timer: Timer, policy: TimingPolicy) -> int:
    """Call a network until its times are stable; returns the number of calls per sample."""
    calls = 1
    last_ms = 0.0
    for _ in range(_WARMUP_SAMPLES):
        call_ms = 1e3 * timer(calls) / calls
        enough = max(1, math.ceil(policy.sample_ms / max(call_ms, 1e-6)))
        if enough <= 2 * calls and abs(call_ms - last_ms) <= _STABLE * last_ms:
            return enough
        # Double the calls step by step: a slow first call would ask for too few per sample, a fast one for far too many.
        calls, last_ms = max(calls, min(enough, 2 * calls)), call_ms
    return calls


def measure_rounds(
    timers: Sequence[Timer],
    calls: Sequence[int],
    *,
    policy: TimingPolicy,
    rng: np.random.Generator,
    on_round: Callable[[int, int], None],
    pause_s: float = 0.0,
) -> Floats:
    """Time networks in interleaved rounds until the medians are precise enough, or a limit is reached.

    Args:
        timers: timer of each network, warmed up; [N].
        calls: calls per sample for each network; [N]. With pauses a sample is one call.
        policy: stopping rule.
        rng: draws the order within the rounds.
        on_round: called before each round, and every few seconds within long ones, with the number of finished and of expected rounds.
        pause_s: idle time before each sample in seconds.

    Returns:
        Times of a call in ms, divided by the rounds' speeds, without the first round; [R, N].
    """
    rounds: list[Floats] = []
    pace = _Pace(policy, len(timers), pause_s, on_round)
    while True:
        pace.tell(len(rounds), at_once=True)
        times_N = np.empty(len(timers))
        for i in rng.permutation(len(timers)):
            pace.tell(len(rounds))
            times_N[i] = _sample_ms(timers[i], calls[i], pause_s)
        rounds.append(times_N)
        kept = len(rounds) - 1
        if kept >= pace.least:
            samples_RN = _without_speed_of_rounds(np.stack(rounds[1:]))
            tight = float(np.quantile(median_half_width(samples_RN), _TIGHT_SHARE)) <= policy.tolerance
            if tight or kept >= policy.max_rounds or pace.is_over:
                return samples_RN


class _Pace:
    """Number of rounds within the time limit, and the report of their progress."""

    def __init__(self, policy: TimingPolicy, networks: int, pause_s: float, on_round: Callable[[int, int], None]) -> None:
        self._policy, self._on_round = policy, on_round
        self._round_s = networks * pause_s  # at least
        affordable = int(policy.time_limit_s / self._round_s) if self._round_s else policy.min_rounds
        self.least = min(policy.min_rounds, max(_FEWEST_ROUNDS_WITH_PAUSES, affordable))
        self._start = self._told = time.monotonic()

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self._start >= self._policy.time_limit_s

    def tell(self, done: int, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._told >= _LONGEST_SILENCE_S:
            self._told = now
            self._on_round(done, self._expected(done, now))

    def _expected(self, done: int, now: float) -> int:
        """Rounds until the time limit, including the discarded one."""
        round_s = max(self._round_s, (now - self._start) / done if done else 0.0)
        in_time = math.ceil(self._policy.time_limit_s / round_s) if round_s else self._policy.max_rounds
        return 1 + min(self._policy.max_rounds, max(self.least, in_time))


def median_half_width(samples_RN: Floats) -> Floats:
    """Half width of the 95 % confidence interval of each column's median, as a share of the median; [N].

    It is distribution-free, from order statistics (Conover, Practical Nonparametric Statistics, 3.2).
    """
    rounds = len(samples_RN)
    below = max(0, math.floor((rounds - _NORMAL_95 * math.sqrt(rounds)) / 2))
    sorted_RN = np.sort(samples_RN, axis=0)
    widths: Floats = (sorted_RN[rounds - 1 - below] - sorted_RN[below]) / 2 / np.median(samples_RN, axis=0)
    return widths


def measured_s(timer: Timer, calls: int) -> float:
    """The seconds that a timer returns, validated.

    Raises:
        DeviceError: the value is no number, not positive, or below the clock's resolution.
    """
    said: object = timer(calls)
    if isinstance(said, _NUMBER) and _TICK_S <= said < math.inf:
        return float(said)
    shown = f"{said:g} s" if isinstance(said, _NUMBER) else f"a {type(said).__name__}"
    raise DeviceError(
        f"a device's clock must advance by at least {_TICK_S:g} s while a network runs, but showed {shown} for {calls} calls; check that "
        "nothing sets it back, and that the runtime waits for its results"
    )


def halves_ratio(samples_R: Floats) -> float:
    """Drift: median of the second half of a network's samples over the median of the first half."""
    half = len(samples_R) // 2
    return float(np.median(samples_R[half:]) / np.median(samples_R[:half]))


def _sample_ms(timer: Timer, calls: int, pause_s: float) -> float:
    """Mean time of a call in ms over one sample, if possible a sample without preemption."""
    if not pause_s:
        timer(1)  # brings the network's data back into the caches
    calls = 1 if pause_s else calls
    sample_s = math.inf
    for _ in range(_ATTEMPTS_WITH_PAUSES if pause_s else _ATTEMPTS):
        if pause_s:
            time.sleep(pause_s)
        before = _preemptions()
        sample_s = min(sample_s, timer(calls))
        if _preemptions() == before:
            break
    return 1e3 * sample_s / calls


def _preemptions() -> int:
    """Number of preemptions of this process's threads; always 0 if the system does not count them."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _without_speed_of_rounds(times_RN: Floats) -> Floats:
    """Divide each round by its speed. With few networks the speed cannot be told from their noise, and the times are not changed."""
    if times_RN.shape[1] < _ENOUGH_TO_KNOW_THE_SPEED:
        return times_RN
    speed_R = np.median(times_RN / np.median(times_RN, axis=0), axis=1)
    samples_RN: Floats = times_RN / speed_R[:, None]
    return samples_RN
