"""What a device may answer. No device is believed: whatever one says passes here before it is used, by whichever transport it came.

An answer that cannot be is refused, and what asked for it asks again (``Address.retries``).
"""

from __future__ import annotations

import base64
import dataclasses
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from devices.conditions import Conditions
from devices.groups import Outcome
from devices.outputs import FLOAT32
from devices.provenance import Provenance
from devices.runtimes import Array, Settings
from devices.timing import Timing, TimingPolicy
from ofa.errors import DeviceError, SchemaError
from ofa.reasons import one_line
from ofa.schema import parse

__all__ = ["SHORTEST_CALL_MS", "NonsenseError", "Notes", "missing_files", "outcomes", "outputs", "provenance"]

T = TypeVar("T")

SHORTEST_CALL_MS = 1e-6
"""One nanosecond: what no clock of a runtime resolves, and no network takes."""

_MOST_WATTS = 1e5
_MOST_BYTES = 1 << 50
_MOST_CORES = 1 << 20
_ROUNDING = 1e-9
_LONGEST_TEXT = 300
_LONGEST_SHOWN = 160
_LONGEST_DOING = 1000
_FREE_NOTES = 1000


class NonsenseError(DeviceError):
    """A device said what no agent says; the message is a clause without a remedy."""


def outcomes(
    answer: Any, networks: Collection[str], *, policy: TimingPolicy, longest_call_ms: float
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """What a device says of a group of networks.

    Args:
        answer: the result of a request ``time``.
        networks: that were to be timed.
        policy: by which.
        longest_call_ms: what no call can have taken, as the device would have been silent for too long.

    Returns:
        The outcomes that can be, and of the other networks why theirs cannot.

    Raises:
        NonsenseError: the answer is of other networks, or of none.
    """
    if other := _other_keys(answer, networks):
        raise NonsenseError(f"a device must answer with one outcome for each of {len(networks)} networks, but its answer {other}")
    good: dict[str, Outcome] = {}
    wrong: dict[str, str] = {}
    for key in networks:
        try:
            good[key] = _outcome(answer[key], policy, longest_call_ms)
        except SchemaError as error:
            wrong[key] = _shown_text(error)
    return good, wrong


def provenance(answer: Any, settings: Settings) -> Provenance:
    """What a device says of itself.

    Raises:
        NonsenseError: it cannot be, or is of other settings.
    """
    try:
        said = _strictly(Provenance, answer)
        for field in dataclasses.fields(said):
            value = getattr(said, field.name)
            if isinstance(value, str) and (len(value) > _LONGEST_TEXT or not value.isprintable() or not value):
                raise SchemaError(f"'{field.name}' must be a text of at most {_LONGEST_TEXT} characters, but is {_shown(value)}")
        expected = Conditions.of(settings, runtime_version=said.runtime_version)
        if said.conditions != expected:
            raise SchemaError(f"'conditions' must be what was asked for, but is {said.conditions.words}")
        _within("cores", said.cores, 1, _MOST_CORES)
        if said.load is not None:
            _within("load", said.load, 0, _MOST_CORES)
    except SchemaError as error:
        raise NonsenseError(f"a device must say what it is, but {_shown_text(str(error))}") from error
    return said


def missing_files(answer: Any, names: Collection[str]) -> list[str]:
    """Which of some files a device says that it lacks.

    Raises:
        NonsenseError: it names others.
    """
    if not isinstance(answer, list) or not all(isinstance(name, str) and name in names for name in answer):
        raise NonsenseError(f"a device must say which of {len(names)} files it lacks, but said {_shown(answer)}")
    return answer


def outputs(answer: Any, shape: tuple[int, ...]) -> Array:
    """What a device says that a network answers.

    Args:
        answer: the result of a request ``run``.
        shape: that the outputs must have.

    Returns:
        float32 of that shape; infinities and NaN may be among them, because networks compute them.

    Raises:
        NonsenseError: they cannot be.
    """
    try:
        if other := _other_keys(answer, ("shape", "content")):
            raise SchemaError(f"its answer {other}")
        if answer["shape"] != list(shape):
            raise SchemaError(f"their shape is {_shown(answer['shape'])}")
        content = base64.b64decode(answer["content"], validate=True)
        if len(content) != math.prod(shape) * np.dtype(FLOAT32).itemsize:
            raise SchemaError(f"their content is of {len(content)} bytes")
    except (SchemaError, TypeError, ValueError) as error:  # also binascii.Error, of what is no base64
        reason = str(error) if isinstance(error, SchemaError) else "their content is no base64"
        raise NonsenseError(f"a device must answer with outputs of shape {list(shape)}, but {_shown_text(reason)}") from error
    return np.frombuffer(content, FLOAT32).astype(np.float32).reshape(shape)


class Notes:
    """Holds what a device says while it works on one request; to be called with every note.

    Args:
        networks: that a note may name; of others none may.
        on_note: called with every note that can be.
        most: of which there may be so many, and one more a second.
        limit_s: seconds after which even a device that says that it works is given up.

    Raises:
        NonsenseError: when called: a note cannot be, or there are too many.
    """

    def __init__(
        self,
        networks: Collection[str] = (),
        on_note: Callable[[Mapping[str, Any]], None] = lambda note: None,
        *,
        most: int = _FREE_NOTES,
        limit_s: float = math.inf,
    ) -> None:
        self._networks, self._on_note, self._most, self._limit_s = networks, on_note, most, limit_s
        self._count, self._start = 0, time.monotonic()

    @classmethod
    def of_group(
        cls, networks: Collection[str], on_note: Callable[[Mapping[str, Any]], None], *, policy: TimingPolicy, silence_limit_s: float
    ) -> Notes:
        """Those of a request ``time``: each network that fails makes the others begin anew, and each may be silent in each round."""
        begins = len(networks) + 1
        most = _FREE_NOTES + begins * (2 * len(networks) + policy.max_rounds + 2)
        return cls(networks, on_note, most=most, limit_s=silence_limit_s * begins * (policy.min_rounds + 3))

    @classmethod
    def of_calls(cls, network: str, calls: int, *, silence_limit_s: float) -> Notes:
        """Those of a request ``run``: before it loads the network, and before each call."""
        return cls({network}, most=_FREE_NOTES + calls, limit_s=silence_limit_s * (calls + 2))

    def __call__(self, note: Mapping[str, Any]) -> None:
        """Take a note."""
        self._count += 1
        past_s = time.monotonic() - self._start
        if self._count > self._most + past_s or past_s > self._limit_s:
            doing = _shown_text(note.get("doing"))
            raise NonsenseError(f"a device must come to an end, but after {past_s:.0f} s and {self._count} notes it is still {doing}")
        if not self._can_be(note):
            raise NonsenseError(f"a device must say how far it is, but said {_shown(note)}")
        self._on_note(note)

    def _can_be(self, note: Mapping[str, Any]) -> bool:
        if not {"doing", "step", "steps"} <= set(note) <= {"doing", "step", "steps", "network"}:
            return False
        doing, step, steps = note["doing"], note["step"], note["steps"]
        network = note.get("network")
        return (
            isinstance(doing, str)
            and len(doing) <= _LONGEST_DOING
            and type(step) is int
            and type(steps) is int
            and 0 <= step <= steps
            and (network is None or (isinstance(network, str) and network in self._networks))
        )


def _outcome(value: Any, policy: TimingPolicy, longest_call_ms: float) -> Outcome:
    outcome = _strictly(Outcome, value)
    if (outcome.timing is None) != bool(outcome.error):
        raise SchemaError(f"an outcome must have a timing or an error, but has {_shown(value)}")
    if outcome.timing is not None:
        _check(outcome.timing, policy, longest_call_ms)
    if not outcome.drift > 0:
        raise SchemaError(f"'drift' must be above 0, but is {outcome.drift:g}")
    return dataclasses.replace(outcome, error=one_line(outcome.error))


def _check(timing: Timing, policy: TimingPolicy, longest_call_ms: float) -> None:
    """Raise SchemaError if a call cannot have taken these times."""
    _within("median_ms", timing.median_ms, SHORTEST_CALL_MS, longest_call_ms)
    _within("min_ms", timing.min_ms, SHORTEST_CALL_MS, timing.median_ms * (1 + _ROUNDING))
    _within("p90_ms", timing.p90_ms, timing.median_ms * (1 - _ROUNDING), longest_call_ms)
    _within("std_ms", timing.std_ms, 0, longest_call_ms)
    _within("repeats", timing.repeats, 2, policy.max_rounds)
    if timing.energy_mj is not None and not 0 < timing.energy_mj <= _MOST_WATTS * timing.p90_ms:
        raise SchemaError(f"'energy_mj' must be above 0 and of less than {_MOST_WATTS:g} W, but is {timing.energy_mj:g}")
    if timing.peak_memory_bytes is not None:
        _within("peak_memory_bytes", timing.peak_memory_bytes, 0, _MOST_BYTES)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise SchemaError(f"'{name}' must be within {least:g} and {most:g}, but is {_shown(value)}")


def _strictly(kind: type[T], value: Any) -> T:
    """A dataclass of exactly its fields: both ends are of one version."""
    try:
        _check_fields(kind, value)
        return parse(kind, value)
    except (OverflowError, RecursionError, ValueError) as error:  # numbers that no float holds, or that nobody can print
        raise SchemaError(f"a value is too large: {_shown(value)}") from error


def _check_fields(kind: type, value: Any) -> None:
    if other := _other_keys(value, [field.name for field in dataclasses.fields(kind)]):
        raise SchemaError(f"it must have the keys of {kind.__name__}, but {other}")
    if kind is Outcome and value["timing"] is not None:
        _check_fields(Timing, value["timing"])


def _other_keys(value: Any, keys: Collection[str]) -> str:
    """What is wrong with the keys of an object; "" if nothing is."""
    if not isinstance(value, Mapping):
        return f"is {_shown(value)}"
    lacking = next((key for key in keys if key not in value), None)
    more = next((key for key in value if key not in keys), None)
    return f"lacks {_shown(lacking)}" if lacking is not None else "" if more is None else f"has {_shown(more)} besides"


def _shown(value: Any) -> str:
    """A value of a stranger's in a few words, whatever it holds."""
    if isinstance(value, Mapping):
        return _shown_text("{" + ", ".join(f"{_shown(key)}: {_shown_leaf(each)}" for key, each in list(value.items())[:8]) + "}")
    return _shown_leaf(value)


def _shown_leaf(value: Any) -> str:
    if isinstance(value, str):
        return _shown_text(f"'{value[:_LONGEST_SHOWN]}'")
    if isinstance(value, int) and not -(10**30) < value < 10**30:
        return "a number of many digits"
    if isinstance(value, Mapping | Sequence):
        return f"{'an object' if isinstance(value, Mapping) else 'a list'} of {len(value)}"
    return repr(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def _shown_text(text: object) -> str:
    return one_line(str(text), longest=_LONGEST_SHOWN)
