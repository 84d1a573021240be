"""Times one group of networks on the device: loads them all, warms them up, and measures them in interleaved rounds.

Shape suffixes: R rounds, N networks.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices.meters import PeakMemory, energy_per_call_mj, find_energy_meter, gpu_number
from devices.runtimes import Array, Input, Runtime, Settings, Timer, get_runtime
from devices.timing import Floats, Timing, TimingPolicy, halves_ratio, measure_rounds, measured_s, warm_up
from ofa.errors import DeviceError, OfaError
from ofa.reasons import reason_of

__all__ = ["Outcome", "Say", "pinned", "time_group"]

_LOADING_S = 0.1
"""Loading time of a typical network, for estimates of the remaining time."""
Say = Callable[[Mapping[str, Any]], None]
"""Receives each step before it begins, so that the caller knows which step did not return."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one network.

    Attributes:
        timing: its timing; None if it failed.
        drift: median of the second half of its samples over the median of the first half, after division by the rounds' speeds.
        error: reason of the failure, in one sentence.
    """

    timing: Timing | None = None
    drift: float = 1.0
    error: str = ""


def time_group(settings: Settings, networks: Mapping[str, str], *, policy: TimingPolicy, seed: int, say: Say) -> dict[str, Outcome]:
    """Time networks that are all loaded at the same time; networks that fail do not affect the others.

    Args:
        settings: settings of the runtime.
        networks: paths of the files by key.
        policy: stopping rule.
        seed: seed of inputs and order.
        say: receives each step before it begins.

    Returns:
        An outcome for each key.

    Raises:
        DeviceError: the runtime is not installed.
    """
    pinned(settings)
    loader = _Loader(settings, np.random.default_rng(seed), _Steps(say, len(networks), _timing_per_loading(settings, policy)))
    timers = loader.load(networks)
    samples_RN = loader.measure(timers, policy)
    names = list(timers)
    energies = _energies(timers, settings, policy.energy_s, loader.steps)
    outcomes = {key: Outcome(error=error) for key, error in loader.errors.items()}
    for i, key in enumerate(names):
        timing = Timing.of(samples_RN[:, i], energy_mj=energies.get(key), peak_memory_bytes=loader.memory.get(key))
        outcomes[key] = Outcome(timing=timing, drift=halves_ratio(samples_RN[:, i]))
    return {key: outcomes[key] for key in networks}


def pinned(settings: Settings) -> None:
    """Pin this process to as many processors as there are threads, if the settings ask for it and the system supports it."""
    if settings.pin and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-settings.threads :])


def _timing_per_loading(settings: Settings, policy: TimingPolicy) -> int:
    """Approximate ratio of timing to loading time, which pauses dominate if there are any."""
    return 1 + round(1e-3 * settings.pause_ms * policy.min_rounds / _LOADING_S)


class _Steps:
    """Sends notes with the progress of a group: one step per network for loading, and some for the rounds."""

    def __init__(self, say: Say, count: int, timing: int = 1) -> None:
        self._say = say
        self._count, self._timing = count, timing * count

    def network(self, number: int, doing: str, key: str) -> None:
        """A step of one network before the rounds."""
        self._tell(number, f"{doing} {key}", network=key)

    def rounds(self, done: int, most: int) -> None:
        """A round is about to begin."""
        step = self._count + self._timing * min(done, most) // (most + 1)
        self._tell(step, f"timing {self._count} networks, round {done + 1} of at most {most}")

    def after_rounds(self, doing: str, key: str) -> None:
        """A step of one network after the rounds."""
        self._tell(self._count + self._timing - 1, f"{doing} {key}", network=key)

    def _tell(self, step: int, doing: str, **more: str) -> None:
        self._say({"doing": doing, **more, "step": step, "steps": self._count + self._timing})


class _Loader:
    """Loads and measures the networks of a group; keeps the errors of failed ones."""

    def __init__(self, settings: Settings, rng: np.random.Generator, steps: _Steps) -> None:
        self._settings, self._rng = settings, rng
        self.steps = steps
        self.errors: dict[str, str] = {}
        self.memory: dict[str, int] = {}

    def load(self, networks: Mapping[str, str]) -> dict[str, Timer]:
        runtime = get_runtime(self._settings.runtime)
        runtime.version()  # raises if the runtime is not installed, which is no network's failure
        timers: dict[str, Timer] = {}
        # The memory of this process does not include a network's memory on a graphics card.
        on_card = gpu_number(self._settings.place) is not None
        for number, (key, path) in enumerate(networks.items()):
            self.steps.network(number, "loading", key)
            try:
                if not number:
                    self._timer(runtime, path)  # load once before: the library's own initial memory is not the network's
                peak = PeakMemory()
                timer = self._timer(runtime, path)
            except OfaError as error:
                self.errors[key] = str(error)
                continue
            except Exception as error:  # for example inputs that exceed the memory
                self.errors[key] = f"a network must be loaded and run once to be timed, but: {reason_of(error)}; leave it out"
                continue
            timers[key] = _named(key, timer)
            rise = peak.rise_bytes()
            if rise is not None and not on_card:
                self.memory[key] = rise
        return timers

    def _timer(self, runtime: Runtime, path: str) -> Timer:
        """Load a network and run it once."""
        session = runtime.load(Path(path), self._settings)
        # Random inputs: some kernels are faster on zeros, and images are not zero.
        inputs = {name: _random(each, self._rng) for name, each in session.inputs().items()}
        timer = session.timer(inputs)
        timer(1)
        return timer

    def measure(self, timers: dict[str, Timer], policy: TimingPolicy) -> Floats:
        """Times [R, N] in ms; networks that fail are removed from ``timers``, and the others start again."""
        while timers:
            try:
                return self._rounds(timers, policy)
            except _NetworkError as failed:
                self.errors[failed.network] = str(failed)
                del timers[failed.network]
        return np.empty((0, 0))

    def _rounds(self, timers: Mapping[str, Timer], policy: TimingPolicy) -> Floats:
        calls = []
        for key, timer in timers.items():
            self.steps.network(len(timers), "warming up", key)
            calls.append(warm_up(timer, policy))
        pause_s = 1e-3 * self._settings.pause_ms
        return measure_rounds(list(timers.values()), calls, policy=policy, rng=self._rng, on_round=self.steps.rounds, pause_s=pause_s)


class _NetworkError(DeviceError):
    """A loaded network cannot be timed.

    Attributes:
        network: name of the network.
    """

    def __init__(self, network: str, message: str) -> None:
        super().__init__(message)
        self.network = network


def _random(given: Input, rng: np.random.Generator) -> Array:
    if given.dtype == "float32":
        return rng.standard_normal(given.shape, dtype=np.float32)
    limits = np.iinfo(given.dtype)
    return rng.integers(limits.min, limits.max, given.shape, dtype=given.dtype, endpoint=True)


def _named(key: str, timer: Timer) -> Timer:
    """The timer with validated times, and with errors that name the network."""

    def timed(calls: int) -> float:
        try:
            return measured_s(timer, calls)
        except OfaError as error:
            raise _NetworkError(key, str(error)) from error
        except Exception as error:  # a user's own runtime may raise anything
            raise _NetworkError(key, f"a network must run again and again to be timed, but: {reason_of(error)}; leave it out") from error

    return timed


def _energies(timers: Mapping[str, Timer], settings: Settings, least_s: float, steps: _Steps) -> dict[str, float]:
    """Energy of a call of each network in mJ, if the machine counts it."""
    # With pauses most of the energy would be the machine's idle power.
    meter = find_energy_meter(settings.place) if least_s and not settings.pause_ms else None
    if meter is None:
        return {}
    energies: dict[str, float | None] = {}
    for key, timer in timers.items():
        steps.after_rounds("metering", key)
        with contextlib.suppress(_NetworkError, OSError, ValueError):  # the network is timed already; a counter may fail or vanish
            energies[key] = energy_per_call_mj(timer, meter, least_s=least_s)
    # A reset counter yields no energy.
    return {key: energy for key, energy in energies.items() if energy is not None and 0 < energy < math.inf}
