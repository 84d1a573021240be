"""How long a call takes: what is repeated, in which order, when it is enough, and what is reported.

Shape suffixes: R rounds, N networks.

What noise is made of, and what is done about each part:

* the first calls of a network are slow (memory is mapped, code is generated): it is called until two samples in a row agree, and the
  first round of all is discarded;
* the machine is faster or slower for a while (clock, neighbours): networks are timed in interleaved rounds, in another random order each
  time, and a round's samples are divided by that round's own speed, the median over all networks of how they did against their usual;
* another process gets the processor in the middle of a sample (the system counts that): the sample is taken again, a few times at most;
* single samples are disturbed in other ways: the median over rounds is taken;
* the clock is coarse beside a short call: a sample is as many calls as last about a millisecond, after one that is not timed, so that a
  network finds its own data in the caches and not another's.

With pauses the cold start is what is asked for: a sample is one call after a pause, and nothing is done before it. As each sample takes
as long as its pause, fewer rounds must do where they would take longer than the policy allows.
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
    """Time of one call in milliseconds, over ``repeats`` samples (a sample is the mean of a few calls in a row, or one after a pause).

    Attributes:
        energy_mj: millijoules of a call, the machine's idle share included; None where it does not count them, and with pauses, of which
            most would be idle.
        peak_memory_bytes: how far the process's memory rose while the network was loaded and run once; None where the system does not tell,
            and for cards with a memory of their own.
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
        """The statistics of two samples or more, in milliseconds."""
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
        """The same on a machine that is not slower by this factor."""
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
"""Of a policy: what can be asked of a machine that is to come to an end."""


@dataclass(frozen=True, kw_only=True)
class TimingPolicy:
    """When a measurement is enough.

    Args:
        tolerance: stop when the median's 95 % confidence interval is at most this share of it to either side, for nine in ten networks.
        min_rounds: never stop before so many samples of each network; pauses that take longer than ``time_limit_s`` in all make it 5.
        max_rounds: always stop after so many.
        time_limit_s: stop after so many seconds in one group, once there are ``min_rounds``.
        sample_ms: shortest sample; shorter calls are repeated within one.
        group_size: networks that are loaded at the same time, which bounds memory, and what is lost when a measurement is cut off.
        energy_s: shortest time in seconds over which the energy of each network is counted, where the machine can; 0 counts none.

    Raises:
        DeviceError: values that cannot be.
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
    """Call a network until its times are stable; returns the calls that make one sample."""
    calls = 1
    last_ms = 0.0
    for _ in range(_WARMUP_SAMPLES):
        call_ms = 1e3 * timer(calls) / calls
        enough = max(1, math.ceil(policy.sample_ms / max(call_ms, 1e-6)))
        if enough <= 2 * calls and abs(call_ms - last_ms) <= _STABLE * last_ms:
            return enough
        # Doubling: one slow first call says nothing of how many are enough, one fast one might ask for far too many.
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
    """Time networks in interleaved rounds until the medians are tight, or a limit is reached.

    Args:
        timers: one a network, warmed up.
        calls: calls in a sample, one a network; with pauses a sample is one call.
        policy: when it is enough.
        rng: order within the rounds.
        on_round: called before each round, and every few seconds within long ones, with the number of rounds done and of those expected.
        pause_s: seconds without work before each sample.

    Returns:
        Times of a call in ms, [R, N], the rounds' own speeds divided out, without the first round.

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
    """How many rounds are made in the time that there is, and telling how far they are."""

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
        """Rounds until the time is over, the one that is discarded included."""
        round_s = max(self._round_s, (now - self._start) / done if done else 0.0)
        in_time = math.ceil(self._policy.time_limit_s / round_s) if round_s else self._policy.max_rounds
        return 1 + min(self._policy.max_rounds, max(self.least, in_time))


def median_half_width(samples_RN: Floats) -> Floats:
    """Half of the 95 % confidence interval of each column's median, as a share of it [N].

    From order statistics, so it assumes nothing of how the samples are distributed (Conover, Practical Nonparametric Statistics, 3.2).
    """
    rounds = len(samples_RN)
    below = max(0, math.floor((rounds - _NORMAL_95 * math.sqrt(rounds)) / 2))
    sorted_RN = np.sort(samples_RN, axis=0)
    widths: Floats = (sorted_RN[rounds - 1 - below] - sorted_RN[below]) / 2 / np.median(samples_RN, axis=0)
    return widths


def measured_s(timer: Timer, calls: int) -> float:
    """The seconds that a timer says, if calls can have taken them.

    Raises:
        DeviceError: they cannot: no number, none above zero, or less than the clock can tell.
    """
    said: object = timer(calls)
    if isinstance(said, _NUMBER) and _TICK_S <= said < math.inf:
        return float(said)
    shown = f"{said:g} s" if isinstance(said, _NUMBER) else f"a {type(said).__name__}"
    raise DeviceError(
        f"a device's clock must go on while a network runs, by {_TICK_S:g} s at least, but showed {shown} for {calls} calls; see that "
        "nothing sets it back, and that the runtime waits for its results"
    )


def halves_ratio(samples_R: Floats) -> float:
    """Median of the second half of a network's samples over that of the first: how far it drifted beside the others."""
    half = len(samples_R) // 2
    return float(np.median(samples_R[half:]) / np.median(samples_R[:half]))


def _sample_ms(timer: Timer, calls: int, pause_s: float) -> float:
    """Mean time of a call over one sample, if possible one in which this process kept the processor."""
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
    """How often any thread of this process had to leave the processor to another; always 0 where the system does not count."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _without_speed_of_rounds(times_RN: Floats) -> Floats:
    """Divide each round by its speed. Few networks cannot tell the machine's speed from their own noise, and are left as they are."""
    if times_RN.shape[1] < _ENOUGH_TO_KNOW_THE_SPEED:
        return times_RN
    speed_R = np.median(times_RN / np.median(times_RN, axis=0), axis=1)
    samples_RN: Floats = times_RN / speed_R[:, None]
    return samples_RN
