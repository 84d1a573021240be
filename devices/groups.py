"""Times more networks than memory holds: in groups, all brought to the same speed of the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from devices.runtimes import Timer
from devices.timing import Floats, Timing, TimingPolicy, measure_rounds, warm_up

__all__ = ["Note", "time_in_groups"]

_ANCHORS = 8


class Note(Protocol):
    """Told what is about to be done."""

    def __call__(self, done: int, total: int, doing: str) -> None: ...


def time_in_groups(
    keys: Sequence[str], load: Callable[[str], Timer], *, policy: TimingPolicy, rng: np.random.Generator, note: Note
) -> dict[str, Timing]:
    """Time many networks with a bounded number of them loaded.

    A few networks of the first group, the anchors, are timed again in every other group: how they did there says by how much the machine
    has become faster or slower since, and the group's times are brought back to the first one's speed.

    Args:
        keys: one a network.
        load: gives a network's timer; the network is released when its timer is.
        policy: when it is enough.
        rng: decides groups and order.
        note: told what is done; a network counts one when it is loaded and one more when its group is timed.

    Returns:
        A timing for each key, in the order of ``keys``.
    """
    medians: dict[str, float] = {}
    timings: dict[str, Timing] = {}
    anchors: dict[str, Timer] = {}
    for group in _groups(keys, policy.group_size, rng):
        steps = _Steps(note, len(timings), len(group), len(keys))
        timers = {**anchors, **_loaded(group, load, steps)}
        samples_RN = _measured(timers, policy, rng, steps)
        columns = {key: samples_RN[:, i] for i, key in enumerate(timers)}
        slower = _slower({key: columns[key] for key in anchors}, medians)
        timings.update({key: Timing.of(columns[key] / slower) for key in group})
        if not anchors:
            anchors = {key: timers[key] for key in group[:_ANCHORS]}
            medians = {key: timings[key].median_ms for key in anchors}
        del timers  # released before the next group is loaded
    note(2 * len(keys), 2 * len(keys), f"timed {len(keys)} networks")
    return {key: timings[key] for key in keys}


class _Steps:
    """Reports the steps of one group as steps of the whole."""

    def __init__(self, note: Note, before: int, group: int, total: int) -> None:
        self._note = note
        self._before = 2 * before
        self._group = group
        self._total = 2 * total

    def loading(self, loaded: int, key: str) -> None:
        self._note(self._before + loaded, self._total, f"loading {key}")

    def warming_up(self, key: str) -> None:
        self._note(self._before + self._group, self._total, f"warming up {key}")

    def timing(self, networks: int, rounds: int, most: int) -> None:
        done = self._before + self._group + self._group * min(rounds, most) // (most + 1)
        self._note(done, self._total, f"timing {networks} networks, round {rounds + 1} of at most {most + 1}")


def _groups(keys: Sequence[str], size: int, rng: np.random.Generator) -> list[list[str]]:
    """Groups at random, so that what is left of a group's own speed is no property of one resolution or stage, and of even sizes."""
    if not keys:
        return []
    count = math.ceil(len(keys) / size)
    return [[keys[i] for i in part] for part in np.array_split(rng.permutation(len(keys)), count)]


def _loaded(group: Sequence[str], load: Callable[[str], Timer], steps: _Steps) -> dict[str, Timer]:
    timers: dict[str, Timer] = {}
    for i, key in enumerate(group):
        steps.loading(i, key)
        timers[key] = load(key)
    return timers


def _measured(timers: Mapping[str, Timer], policy: TimingPolicy, rng: np.random.Generator, steps: _Steps) -> Floats:
    calls = []
    for key, timer in timers.items():
        steps.warming_up(key)
        calls.append(warm_up(timer, policy))

    def on_round(rounds: int) -> None:
        steps.timing(len(timers), rounds, policy.max_rounds)

    return measure_rounds(list(timers.values()), calls, policy=policy, rng=rng, on_round=on_round)


def _slower(anchors: Mapping[str, Floats], medians_ms: Mapping[str, float]) -> float:
    """By what factor the machine is slower than when the anchors' medians were taken."""
    if not anchors:
        return 1.0
    return float(np.median([np.median(samples_R) / medians_ms[key] for key, samples_R in anchors.items()]))
