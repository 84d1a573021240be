"""Times networks on a device: starts the agent there, and recovers from its crashes, hangs and lost connections."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from devices import answers
from devices.answers import NonsenseError
from devices.asking import Patience, request_of
from devices.device import Device
from devices.groups import Outcome
from devices.timing import Timing, TimingPolicy
from devices.transports import Agent, ConnectionLostError, LineLostError
from ofa.errors import DeviceError
from ofa.progress import Progress, silent

__all__ = ["ANCHORS", "SILENCE_LIMIT_S", "Failure", "describe", "measure", "time_models"]

SILENCE_LIMIT_S = 120.0
"""Timeout in seconds between two messages of a device, for example while it loads a file."""
ANCHORS = 8
"""Number of networks that are timed again in every group as references."""

_ATTEMPTS = 2
_DRIFTED = 0.05
_ENOUGH_TO_SEE_DRIFT = 12  # samples: with fewer, medians differ that much by chance
_ANOTHER_SPEED = 0.15
_NO_SPEED = 32.0  # factor: no clock changes that much, so the device timed other work


@dataclass(frozen=True)
class Failure:
    """Reason why a network could not be timed, in one sentence."""

    reason: str


Models = Mapping[str, str | os.PathLike[str]]


def time_models(
    device: Device,
    models: Models,
    *,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
    silence_limit_s: float = SILENCE_LIMIT_S,
) -> dict[str, Timing]:
    """Time files on a device in interleaved rounds; fails if any of them cannot be timed. Arguments as of ``measure``.

    Returns:
        A timing for each name, in the order of ``models``.

    Raises:
        DeviceError: the device is unreachable, a network cannot be loaded, or the runtime crashes or hangs; the message names the network.
    """
    timings: dict[str, Timing] = {}
    for key, outcome in measure(device, models, rng=rng, progress=progress, policy=policy, silence_limit_s=silence_limit_s):
        if isinstance(outcome, Failure):
            raise DeviceError(outcome.reason if key in outcome.reason else f"'{key}' cannot be timed: {outcome.reason}")
        timings[key] = outcome
    return {key: timings[key] for key in models}


def measure(
    device: Device,
    models: Models,
    *,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
    silence_limit_s: float = SILENCE_LIMIT_S,
    anchors: Mapping[str, float] | None = None,
) -> Iterator[tuple[str, Timing | Failure]]:
    """Time files on a device in groups, and yield each result as soon as it is known.

    A few networks of the first group, the anchors, are timed again in every other group. Their slowdown gives the machine's present speed,
    and the group's times are converted to the speed of the first group. A network that drifted relative to the others, and a group at a
    very different speed, are measured once more at the end.

    A network at which the runtime crashed or hung is retried in a new process, then given up; the others continue without it. Lost
    connections and invalid answers are retried as often as the address says.

    Args:
        device: the device with its settings.
        models: paths of files in the format of the device's runtime (float32 inputs of fixed shape), by name.
        rng: draws the inputs, the groups and the order of measurement.
        progress: receives the progress.
        policy: stopping rule; None stops at a 95 % confidence interval of 1 %, or after 60 rounds.
        silence_limit_s: timeout in seconds between two messages of the device, for example while it loads a file.
        anchors: latencies in ms of some of ``models`` from an earlier measurement that this one continues; they are not yielded again.

    Yields:
        Each name with its timing, or with the reason of its failure.

    Raises:
        DeviceError: the device stays unreachable, its runtime is not installed, or its answers stay invalid.
    """
    with _Measurement(device, models, rng, policy or TimingPolicy(), silence_limit_s, dict(anchors or {}), progress) as running:
        yield from running.outcomes()


def describe(device: Device, *, silence_limit_s: float = SILENCE_LIMIT_S) -> dict[str, Any]:
    """The device's description of itself (see ``devices.provenance``), and its fields as ``device``. The date is from this machine's clock.

    Nothing is measured yet, so an unreachable device is retried only once. ``silence_limit_s`` is how long to wait for its answer.

    Raises:
        DeviceError: the device is unreachable, its runtime is not installed, or its description is invalid.
    """
    patience = Patience(device, lines=1)
    while True:
        try:
            with contextlib.closing(device.address.start()) as agent:
                answer = agent.request(request_of("describe", device), on_note=answers.Notes(), silence_limit_s=silence_limit_s)
            description = answers.provenance(answer, device.settings).to_json()
        except (LineLostError, NonsenseError) as failed:
            patience.wait(failed)
            continue
        # The clock of boards without a battery starts in 1970.
        return {"device": device.to_json(), **description, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}


class _Measurement:
    """State of a measurement: waiting groups, the agent, and the anchors' latencies."""

    def __init__(
        self,
        device: Device,
        models: Models,
        rng: np.random.Generator,
        policy: TimingPolicy,
        silence_limit_s: float,
        anchors: dict[str, float],
        progress: Progress,
    ) -> None:
        self._device, self._rng, self._policy, self._silence_limit_s = device, rng, policy, silence_limit_s
        self._paths = {key: Path(path) for key, path in models.items()}
        self._anchors = anchors
        self._waiting = deque(_groups([key for key in models if key not in anchors], policy.group_size, rng))
        self._again: list[str] = []
        self._attempts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._patience = Patience(device)
        self._agent: Agent | None = None
        self._progress = _Share(progress, sum(len(group) for group in self._waiting))

    def __enter__(self) -> _Measurement:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_agent()

    def outcomes(self) -> Iterator[tuple[str, Timing | Failure]]:
        repeated = False
        while self._waiting:
            group = self._waiting.popleft()
            self._progress.begin(group)
            try:
                outcomes, wrong = self._timed(group)
            except (ConnectionLostError, NonsenseError) as failed:
                self._end_agent()
                yield from self._after_failure(group, failed)
                continue
            self._patience.begin_anew()
            measured = [key for key in group if key not in wrong]
            for key, outcome in (*self._at_one_speed(measured, outcomes, last=repeated), *self._ask_again(wrong, group)):
                self._progress.finish(key)
                yield key, outcome
            if not self._waiting and self._again and not repeated:
                repeated = True
                self._waiting.extend(_groups(self._again, self._policy.group_size, self._rng))
        self._progress.end()

    def _timed(self, group: Sequence[str]) -> tuple[dict[str, Outcome], dict[str, str]]:
        """Valid outcomes of a group and the anchors, and the reasons for invalid ones."""
        if self._agent is None:
            self._agent = self._device.address.start()
        wanted = {key: self._paths[key] for key in (*group, *(key for key in self._anchors if key not in group))}
        request = request_of(
            "time",
            self._device,
            networks=self._device.address.bring(self._agent, wanted),
            policy=dataclasses.asdict(self._policy),
            seed=int(self._rng.integers(2**32)),
        )
        limit_s = self._silence_limit_s
        notes = answers.Notes.of_group(wanted, self._progress.note, policy=self._policy, silence_limit_s=limit_s)
        answer = self._agent.request(request, on_note=notes, silence_limit_s=limit_s)
        outcomes, wrong = answers.outcomes(answer, wanted, policy=self._policy, longest_call_ms=1e3 * limit_s)
        if self._anchors and all(key in wrong for key in self._anchors):
            raise NonsenseError(f"a device must be able to time networks again, but {next(iter(wrong.values()))}")
        if not 1 / _NO_SPEED < (slower := self._slowdown(outcomes)) < _NO_SPEED:
            raise NonsenseError(f"a device must reproduce the times of networks, but reports that they take {slower:.3g} times as long")
        return outcomes, wrong

    def _slowdown(self, outcomes: Mapping[str, Outcome]) -> float:
        """Present latency of the anchors relative to their first one; 1 without anchors."""
        timed = [(outcomes[key].timing, ms) for key, ms in self._anchors.items() if key in outcomes]
        ratios = [timing.median_ms / ms for timing, ms in timed if timing is not None]
        return float(np.median(ratios)) if ratios else 1.0

    def _ask_again(self, wrong: Mapping[str, str], group: Sequence[str]) -> list[tuple[str, Failure]]:
        """Re-queue the networks of a group with invalid outcomes; give up the ones with too many."""
        refused = [key for key in group if key in wrong]
        self._refused.update(refused)
        if again := [key for key in refused if self._refused[key] <= self._device.address.retries]:
            self._waiting.appendleft(again)
        return [(key, self._no_measurement(key, wrong[key])) for key in refused if key not in again]

    def _no_measurement(self, key: str, reason: str) -> Failure:
        often = f" ({self._refused[key]} times)" if self._refused[key] > 1 else ""
        return Failure(f"a device must answer with a valid measurement, but its answer for '{key}' is not{often}: {reason}; leave it out")

    def _at_one_speed(self, group: Sequence[str], outcomes: Mapping[str, Outcome], *, last: bool) -> Iterator[tuple[str, Timing | Failure]]:
        """Results at the first group's speed; networks that must be measured again are set aside unless ``last``."""
        now = {key: outcome.timing.median_ms for key, outcome in outcomes.items() if outcome.timing is not None}
        slower = self._slowdown(outcomes)
        moved = not last and abs(math.log(slower)) > _ANOTHER_SPEED
        for key in group:
            outcome = outcomes[key]
            if outcome.timing is None:
                yield key, Failure(outcome.error)
            elif moved or (not last and _has_drifted(outcome)):
                self._again.append(key)
            else:
                yield key, outcome.timing.at_speed(slower)
        if not self._anchors:
            self._anchors = {key: now[key] for key in group if key in now and key not in self._again}
            self._anchors = dict(list(self._anchors.items())[:ANCHORS])

    def _after_failure(self, group: list[str], failed: ConnectionLostError | NonsenseError) -> Iterator[tuple[str, Failure]]:
        """Re-queue the rest of a group that was not timed; give up a network at which the agent was lost twice."""
        if isinstance(failed, LineLostError | NonsenseError) or not failed.note:  # the failure is not the network's
            self._patience.wait(failed, kept=self._progress.kept, tell=self._progress.tell)
            self._waiting.appendleft(group)
            return
        culprit = failed.note.get("network")
        if culprit in self._anchors:
            del self._anchors[culprit]
        if culprit is None and len(group) == 1:
            culprit = group[0]
        if culprit is None:
            # During the rounds the failing network is unknown: bisect the group.
            middle = len(group) // 2
            self._waiting.extendleft([group[middle:], group[:middle]])
            return
        self._attempts[culprit] += 1
        if self._attempts[culprit] >= _ATTEMPTS and culprit in group:
            group = [key for key in group if key != culprit]
            self._progress.finish(culprit)
            yield culprit, Failure(str(failed))
        if group:
            self._waiting.appendleft(group)

    def _end_agent(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None


class _Share:
    """Progress of all groups: two steps per network, for loading and for timing. It never decreases."""

    def __init__(self, progress: Progress, networks: int) -> None:
        self._progress, self._total = progress, 2 * networks
        self._finished: set[str] = set()
        self._group = 0
        self._most = 0

    def begin(self, group: Sequence[str]) -> None:
        self._group = len(group)

    def note(self, note: Mapping[str, Any]) -> None:
        self._report(2 * len(self._finished) + 2 * self._group * note["step"] // max(1, note["steps"]), note["doing"])

    def tell(self, doing: str) -> None:
        self._report(self._most, doing)

    def finish(self, key: str) -> None:
        self._finished.add(key)

    @property
    def kept(self) -> str:
        return f"{len(self._finished)} of {self._total // 2} networks are timed"

    def end(self) -> None:
        self._report(self._total, f"timed {len(self._finished)} networks")

    def _report(self, done: int, doing: str) -> None:
        self._most = max(self._most, min(done, self._total))
        self._progress(self._most, self._total, doing)


def _has_drifted(outcome: Outcome) -> bool:
    enough = outcome.timing is not None and outcome.timing.repeats >= _ENOUGH_TO_SEE_DRIFT
    return enough and abs(math.log(outcome.drift)) > _DRIFTED


def _groups(keys: Sequence[str], size: int, rng: np.random.Generator) -> list[list[str]]:
    """Random groups of even sizes: the remaining error of a group's speed is then not that of one resolution or stage."""
    if not keys:
        return []
    count = math.ceil(len(keys) / size)
    return [[keys[i] for i in part] for part in np.array_split(rng.permutation(len(keys)), count)]
