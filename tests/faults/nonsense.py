"""Devices that answer nonsense: by Python, and as the far side of a pipe."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices import Address, Device, Timing, TimingPolicy
from devices.measure import Failure, measure
from devices.transports import Agent, Connection

POLICY = TimingPolicy(min_rounds=2, max_rounds=10)
GOOD = {
    "timing": {"median_ms": 2.0, "p90_ms": 3.0, "min_ms": 1.0, "std_ms": 0.5, "repeats": 5, "energy_mj": 4.0, "peak_memory_bytes": 9},
    "drift": 1.0,
    "error": "",
}
ENDLESS = 10**9

FAR_SIDE = """
import json, os, sys, time
nonsense, often, memory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def say(reply, **more):
    print(json.dumps({"id": number, **reply, **more}), flush=True)
for line in sys.stdin:
    if not line.strip():
        continue
    request = json.loads(line)
    number = request["id"]
    raw, result = sys.stdout, {key: json.loads(GOOD) for key in request.get("networks", ())}
    if request["op"] == "time":
        with open(memory, "a+") as file:
            file.write("asked\\n")
            file.seek(0)
            asked = len(file.readlines())
        if asked <= often:
            exec(nonsense)
    say({"result": result})
"""
"""An agent in a few lines of Python, which says nonsense the first times that it is asked."""


@dataclass(frozen=True, kw_only=True)
class Scripted(Address):
    """A far side that is a program of this test, over the pipes that any agent has."""

    kind: ClassVar[str] = "scripted"
    program: str
    memory: str
    often: int = ENDLESS

    def start(self) -> Connection:
        far_side = f"GOOD = {json.dumps(GOOD)!r}\n{FAR_SIDE}"
        return Connection([sys.executable, "-I", "-S", "-c", far_side, self.program, str(self.often), self.memory], place="the far side")

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        agent.request({"op": "missing"}, on_note=lambda note: None, silence_limit_s=20.0)  # as over ssh: it has answered before it measures
        return {key: str(path) for key, path in paths.items()}


@dataclass(frozen=True, kw_only=True)
class Spoken(Address):
    """A transport of somebody's own in Python, whose agent answers what a function says."""

    kind: ClassVar[str] = "spoken"
    answer: Callable[[Mapping[str, Any], int], Any] = field(repr=False)
    asked: list[Mapping[str, Any]] = field(default_factory=list, init=False, compare=False)

    def start(self) -> Agent:
        return self  # type: ignore[return-value]

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        return {key: str(path) for key, path in paths.items()}

    def request(self, message: Mapping[str, Any], *, on_note: Callable[[dict[str, Any]], None], silence_limit_s: float) -> Any:
        self.asked.append(message)
        return self.answer(message, len(self.asked))

    def close(self) -> None:
        """Nothing runs."""


def good(**timing: Any) -> dict[str, Any]:
    return {**GOOD, "timing": {**GOOD["timing"], **timing}}  # type: ignore[dict-item]


def without(key: str) -> dict[str, Any]:
    return {**GOOD, "timing": {name: value for name, value in good()["timing"].items() if name != key}}


OUTCOMES: dict[str, Any] = {
    **{f"median {value!r}": good(median_ms=value) for value in (math.nan, math.inf, -math.inf, 0, -1.0, 1e12, 1e-9, 10**400, 1e308)},
    **{f"median {value!r}": good(median_ms=value) for value in ("2.0", None, True, [2.0], {"ms": 2.0}, {})},
    "median below the shortest": good(median_ms=0.5),
    "median above nine in ten": good(median_ms=5.0),
    **{f"p90 {value!r}": good(p90_ms=value) for value in (math.nan, math.inf, 1.0, -3.0, 1e12, "3")},
    **{f"min {value!r}": good(min_ms=value) for value in (math.nan, 0.0, -1.0, 2.5, 1e-7, None)},
    **{f"std {value!r}": good(std_ms=value) for value in (math.nan, -0.1, math.inf, 1e12, "0")},
    **{f"repeats {value!r}": good(repeats=value) for value in (0, 1, -5, 11, 10**30, 5.0, "5", None, True, math.nan)},
    **{f"energy {value!r}": good(energy_mj=value) for value in (math.nan, 0.0, -1.0, math.inf, 1e18, "4", True, [])},
    **{f"memory {value!r}": good(peak_memory_bytes=value) for value in (-1, 1 << 60, 1.5, "9", True)},
    **{f"drift {value!r}": {**GOOD, "drift": value} for value in (0.0, -1.0, math.nan, math.inf, "1", None)},
    **{f"without {key}": without(key) for key in ("median_ms", "repeats", "energy_mj")},
    "repeats of many digits": good(repeats=10**5000),
    "another key": good(mean_ms=2.0),
    "another key outside": {**GOOD, "note": "fast"},
    "no error": {"timing": GOOD["timing"], "drift": 1.0},
    "both": {**GOOD, "error": "it failed"},
    "neither": {**GOOD, "timing": None},
    "an error that is a number": {**GOOD, "timing": None, "error": 3},
    "a list of times": {**GOOD, "timing": [2.0, 3.0]},
    **{f"an outcome that is {value!r}": value for value in (None, [], 2.0, "fast", True)},
}
"""What a device may say of one network while it is right about another; by words for it."""

ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "none": lambda right: None,
    "a number": lambda right: 3,
    "a list": lambda right: list(right.values()),
    "too few": lambda right: dict(list(right.items())[1:]),
    "too many": lambda right: {**right, "another": GOOD},
    "others": lambda right: {f"{key} ": value for key, value in right.items()},
    "nothing": lambda right: {},
}
"""Answers that are wrong as a whole."""

LINES: dict[str, str] = {
    "text": "print('Segmentation fault', flush=True)",
    "a cut line": 'raw.write(\'{"id": 1, "resu\'); raw.flush(); os._exit(0)',
    "no id": "print(json.dumps({'result': result}), flush=True)",
    "another id": "say({'result': result}, id=number + 1)",
    "an id that is text": "say({'result': result}, id=str(number))",
    "a result and an error": "say({'result': result, 'error': 'no'})",
    "an error that is a list": "say({'error': ['no']})",
    "a key twice": 'print(\'{"id": %d, "result": %s, "result": {}}\' % (number, json.dumps(result)), flush=True)',
    "an answer twice": "say({'result': result}); result['a']['timing']['median_ms'] = 2.5",
    "depth": "print('[' * 200_000, flush=True)",
    "depth within an answer": "print('{\"id\": %d, \"result\": %s}' % (number, '[' * 900 + ']' * 900), flush=True)",
    "a long line": "raw.write('{\"id\": %d, \"error\": \"' % number + 'x' * (5 << 20) + '\"}\\n'); raw.flush()",
    "a line without an end": "while True: raw.write('x' * (1 << 16))",
    "no UTF-8": "raw.buffer.write(b'\\xff\\xfe\\n'); raw.flush()",
    "notes without end": "while True: say({'doing': 'timing', 'step': 0, 'steps': 1})",
    "a note of another network": "say({'doing': 'loading', 'network': 'none of them', 'step': 0, 'steps': 1})",
    "a note of a list": "say({'doing': 'loading', 'network': [], 'step': 0, 'steps': 1})",
    "a note beyond the end": "say({'doing': 'timing', 'step': 3, 'steps': 1})",
    "a note before the start": "say({'doing': 'timing', 'step': -1, 'steps': 1})",
    "a note of text": "say({'doing': 'timing', 'step': '0', 'steps': 1})",
    "a note without steps": "say({'doing': 'timing'})",
    "a long note": "say({'doing': 'x' * 100_000, 'step': 0, 'steps': 1})",
    "a note with more": "say({'doing': 'timing', 'step': 0, 'steps': 1, 'mood': 'good'})",
}
"""What a far side may send instead of an answer, as a statement of its program."""

DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda right: None,
    "a list": lambda right: [right],
    "a key more": lambda right: {**right, "device": {}},
    "a key less": lambda right: {key: value for key, value in right.items() if key != "cores"},
    "no version": lambda right: {**right, "runtime_version": None},
    "an empty version": lambda right: {**right, "runtime_version": ""},
    "a long version": lambda right: {**right, "runtime_version": "1" * 1000},
    "a version that steers": lambda right: {**right, "runtime_version": "1\x1b[2J"},
    "another version in the conditions": lambda right: {**right, "runtime_version": "2"},
    "other conditions": lambda right: {**right, "conditions": {**right["conditions"], "threads": 4}},
    "conditions of text": lambda right: {**right, "conditions": "the usual"},
    "conditions with more": lambda right: {**right, "conditions": {**right["conditions"], "mood": "good"}},
    "a processor of two lines": lambda right: {**right, "processor": "Intel\nInside"},
    "no processor": lambda right: {**right, "processor": 3},
    "no cores": lambda right: {**right, "cores": 0},
    "cores of text": lambda right: {**right, "cores": "4"},
    "many cores": lambda right: {**right, "cores": 10**9},
    "a load that is none": lambda right: {**right, "load": math.nan},
    "a load below zero": lambda right: {**right, "load": -1.0},
    "a date that is none": lambda right: {**right, "date": None},
}


def device(address: Address) -> Device:
    return Device(name="there", runtime="fake", address=address)


def outcomes_of(address: Address, networks: list[str], *, silence_limit_s: float = 20.0) -> dict[str, Timing | Failure]:
    models = dict.fromkeys(networks, "no file")
    rng = np.random.default_rng(0)
    policy = replace(POLICY, group_size=1 if isinstance(address, Scripted) else 1000)
    return dict(measure(device(address), models, rng=rng, policy=policy, silence_limit_s=silence_limit_s))


def is_a_sentence(text: str) -> bool:
    return text.isprintable() and len(text) < 1200 and "Traceback" not in text and "Error" not in text
