"""Validation of a device's answers. Devices are untrusted: every answer is validated here before use, whatever its transport.

An invalid answer is rejected, and the request is retried (``Address.retries``).
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
"""One nanosecond: below the resolution of any clock and the latency of any network."""

_MOST_WATTS = 1e5
_MOST_BYTES = 1 << 50
_MOST_CORES = 1 << 20
_ROUNDING = 1e-9
_LONGEST_TEXT = 300
_LONGEST_SHOWN = 160
_LONGEST_DOING = 1000
_FREE_NOTES = 1000


class NonsenseError(DeviceError):
    """A device sent an invalid answer; the message is a clause without a remedy."""


def outcomes(
    answer: Any, networks: Collection[str], *, policy: TimingPolicy, longest_call_ms: float
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Validate a device's results for a group of networks.

    Args:
        answer: the result of a request ``time``.
        networks: names of the networks to time.
        policy: the stopping rule of the measurement.
        longest_call_ms: upper limit of a call in ms; a longer call would have exceeded the silence limit.

    Returns:
        The valid outcomes by network, and the reasons for invalid ones by network.

    Raises:
        NonsenseError: the answer is not an object with exactly these networks.
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
    """Validate a device's description of itself.

    Raises:
        NonsenseError: the description is invalid, or of other settings.
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
    """Validate the list of files that a device lacks.

    Raises:
        NonsenseError: the answer names other files.
    """
    if not isinstance(answer, list) or not all(isinstance(name, str) and name in names for name in answer):
        raise NonsenseError(f"a device must say which of {len(names)} files it lacks, but said {_shown(answer)}")
    return answer


def outputs(answer: Any, shape: tuple[int, ...]) -> Array:
    """Validate a network's outputs from a device.

    Args:
        answer: the result of a request ``run``.
        shape: required shape of the outputs.

    Returns:
        float32 outputs of that shape. They may contain infinities and NaN, since networks may compute them.

    Raises:
        NonsenseError: keys, shape or content of the answer are invalid.
    """
    try:
        if other := _other_keys(answer, ("shape", "content")):
            raise SchemaError(f"its answer {other}")
        if answer["shape"] != list(shape):
            raise SchemaError(f"their shape is {_shown(answer['shape'])}")
        content = base64.b64decode(answer["content"], validate=True)
        if len(content) != math.prod(shape) * np.dtype(FLOAT32).itemsize:
            raise SchemaError(f"their content is of {len(content)} bytes")
    except (SchemaError, TypeError, ValueError) as error:  # includes binascii.Error, for invalid base64
        reason = str(error) if isinstance(error, SchemaError) else "their content is no base64"
        raise NonsenseError(f"a device must answer with outputs of shape {list(shape)}, but {_shown_text(reason)}") from error
    return np.frombuffer(content, FLOAT32).astype(np.float32).reshape(shape)


class Notes:
    """Validates the notes that a device sends during one request; call it with every note.

    Args:
        networks: names of networks that notes may contain.
        on_note: called with every valid note.
        most: allowed number of notes, plus one per second.
        limit_s: timeout in seconds for the whole request, even if notes keep coming.

    Raises:
        NonsenseError: when called: the note is invalid, there are too many notes, or the time is over.
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
        """Limits for a request ``time``: a failed network restarts the others, and each may be silent up to the limit in each round."""
        begins = len(networks) + 1
        most = _FREE_NOTES + begins * (2 * len(networks) + policy.max_rounds + 2)
        return cls(networks, on_note, most=most, limit_s=silence_limit_s * begins * (policy.min_rounds + 3))

    @classmethod
    def of_calls(cls, network: str, calls: int, *, silence_limit_s: float) -> Notes:
        """Limits for a request ``run``: one note before loading the network, and one before each call."""
        return cls({network}, most=_FREE_NOTES + calls, limit_s=silence_limit_s * (calls + 2))

    def __call__(self, note: Mapping[str, Any]) -> None:
        """Validate a note and pass it on."""
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
    """Raise SchemaError if these times are impossible for a call."""
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
    """Read a dataclass strictly, without missing or additional fields: both ends have the same version."""
    try:
        _check_fields(kind, value)
        return parse(kind, value)
    except (OverflowError, RecursionError, ValueError) as error:  # numbers too large for a float or for printing
        raise SchemaError(f"a value is too large: {_shown(value)}") from error


def _check_fields(kind: type, value: Any) -> None:
    if other := _other_keys(value, [field.name for field in dataclasses.fields(kind)]):
        raise SchemaError(f"it must have the keys of {kind.__name__}, but {other}")
    if kind is Outcome and value["timing"] is not None:
        _check_fields(Timing, value["timing"])


def _other_keys(value: Any, keys: Collection[str]) -> str:
    """The first error in the keys of an object, in words; "" if they are right."""
    if not isinstance(value, Mapping):
        return f"is {_shown(value)}"
    lacking = next((key for key in keys if key not in value), None)
    more = next((key for key in value if key not in keys), None)
    return f"lacks {_shown(lacking)}" if lacking is not None else "" if more is None else f"has {_shown(more)} besides"


def _shown(value: Any) -> str:
    """An untrusted value in a few words."""
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
