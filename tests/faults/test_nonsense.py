"""A measurement is a measurement: what a device says that cannot be is refused, asked for again, reported, and never recorded."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import Address, Device, Fake, Ssh, Timing, TimingPolicy, describe, groups
from devices.answers import NonsenseError
from devices.measure import Failure, measure
from devices.runtimes import Settings
from devices.runtimes.fake import FakeRuntime
from latency_tables.from_networks import check_networks
from latency_tables.info import MeasuredNetwork, TableInfo
from latency_tables.table import COLUMNS, LatencyTable, rows_frame
from ofa.errors import DeviceError, SchemaError, TableError
from ofa.families import get_space
from tests.devices.models import save_conv
from tests.faults.nonsense import (
    ANSWERS,
    DESCRIPTIONS,
    ENDLESS,
    GOOD,
    LINES,
    OUTCOMES,
    POLICY,
    Scripted,
    Spoken,
    device,
    good,
    is_a_sentence,
    outcomes_of,
)

RIGHT = Timing(**GOOD["timing"])  # type: ignore[arg-type]


def test_what_cannot_be_is_asked_for_again_and_given_up_by_its_name() -> None:
    """All at once: each network has nonsense of its own, and one of them none."""

    def answer(message: Mapping[str, Any], asked: int) -> Any:
        return {key: OUTCOMES.get(key, GOOD) for key in message["networks"]}

    address = Spoken(answer=answer, retries=1, backoff_s=0)
    found = outcomes_of(address, [*OUTCOMES, "right"])
    assert found.pop("right") == RIGHT
    assert {key for key, outcome in found.items() if not isinstance(outcome, Failure)} == set()
    for key, outcome in found.items():
        assert f"its answer for '{key}' is not (2 times): " in outcome.reason  # type: ignore[union-attr]
        assert is_a_sentence(outcome.reason), outcome  # type: ignore[union-attr]


def test_what_cannot_be_once_is_measured_the_next_time() -> None:
    def answer(message: Mapping[str, Any], asked: int) -> Any:
        return {key: OUTCOMES.get(key, GOOD) if asked == 1 else GOOD for key in message["networks"]}

    assert set(outcomes_of(Spoken(answer=answer, retries=1, backoff_s=0), [*OUTCOMES, "right"]).values()) == {RIGHT}


def test_retries_are_a_setting() -> None:
    def answer(message: Mapping[str, Any], asked: int) -> Any:
        return {key: good(median_ms=math.nan) for key in message["networks"]}

    address = Spoken(answer=answer, retries=3, backoff_s=0)
    outcomes_of(address, ["a"])
    assert len(address.asked) == 4


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_none_to_the_question(name: str) -> None:
    def answer(message: Mapping[str, Any], asked: int) -> Any:
        right = dict.fromkeys(message["networks"], GOOD)
        return ANSWERS[name](right) if asked <= often else right

    often = 1
    assert set(outcomes_of(Spoken(answer=answer, retries=1, backoff_s=0), ["a", "b"]).values()) == {RIGHT}
    often = ENDLESS
    with pytest.raises(DeviceError, match=r"must answer .*2 times in a row on device 'there'; 0 of 2 networks are timed; check") as caught:
        outcomes_of(Spoken(answer=answer, retries=1, backoff_s=0), ["a", "b"])
    assert is_a_sentence(str(caught.value))


def test_a_group_whose_speed_nobody_knows_is_measured_again() -> None:
    """The networks that tell by how much the machine has become slower since an earlier measurement."""

    def answer(message: Mapping[str, Any], asked: int) -> Any:
        return {key: good(median_ms=math.nan) if key == "anchor" and asked == 1 else GOOD for key in message["networks"]}

    address = Spoken(answer=answer, retries=1, backoff_s=0)
    models = dict.fromkeys(["a", "anchor"], "no file")
    found = dict(measure(device(address), models, rng=np.random.default_rng(0), policy=POLICY, anchors={"anchor": 1.0}))
    assert found["a"] == RIGHT.at_speed(2.0)
    assert len(address.asked) == 3, "twice, and once more because the speed is quite another"


def test_a_machine_that_is_a_thousand_times_faster_is_none() -> None:
    """The networks that were timed before say so, and the others go by them."""

    def answer(message: Mapping[str, Any], asked: int) -> Any:
        return {key: good(median_ms=2.5) if key == "anchor" else GOOD for key in message["networks"]}

    address = Spoken(answer=answer, retries=1, backoff_s=0)
    models, rng = dict.fromkeys(["a", "anchor"], "no file"), np.random.default_rng(0)
    with pytest.raises(DeviceError, match=r"reports that they take 0\.001 times as long, 2 times in a row"):
        dict(measure(device(address), models, rng=rng, policy=POLICY, anchors={"anchor": 2500.0}))


FEW = ("text", "another id", "an answer twice", "depth", "a line without an end", "notes without end")
"""Those through pipes that are tried every time."""


@pytest.mark.parametrize("name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in LINES])
def test_lines_that_are_no_answer(name: str, tmp_path: Path) -> None:
    """Through the pipes of a process, a network a group: the first answer is nonsense, and what is asked next is answered right."""
    address = Scripted(program=LINES[name], memory=str(tmp_path / "memory"), often=1, retries=1, backoff_s=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert outcomes_of(address, ["a", "b"]) == {"a": RIGHT, "b": RIGHT}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"
    assert len((tmp_path / "memory").read_text().splitlines()) == (2 if name == "an answer twice" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text", "a long line", "a key twice", "notes without end"])
def test_lines_that_are_never_an_answer(name: str, tmp_path: Path) -> None:
    address = Scripted(program=LINES[name], memory=str(tmp_path / "memory"), retries=1, backoff_s=0)
    with pytest.raises(
        DeviceError, match=r"2 times in a row on device 'there'; \d of 2 networks are timed; check which programs run there"
    ) as caught:
        outcomes_of(address, ["a", "b"])
    assert is_a_sentence(str(caught.value))


EXTREMES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    10**30,
    10**400,
    -0.0,
    0.5,
    1e-300,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "1.0",
    "\x1b[2J",
    [],
    {},
)


DAMAGE = """
line = json.dumps({{"id": number, "result": result}}).encode() + b"\\n"
at = {at} % len(line)
line = {{
    "flip": line[:at] + bytes([line[at] ^ {bit}]) + line[at + 1:],
    "cut": line[:at],
    "twice": line[:at] + line[at // 2:],
    "zero": line[:at] + bytes(8) + line[at + 8:],
}}["{kind}"]
raw.flush()
raw.buffer.write(line)
raw.flush()
if "{kind}" == "cut":
    os._exit(0)
"""
"""A statement of the far side that damages its answer."""


def damaged(value: Any, rng: np.random.Generator) -> Any:
    """A value with something in it replaced, removed, added, or wrapped."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if rng.random() < 0.1:
            return {**value, f"{key} ": value[key]}
        return {**value, key: damaged(value[key], rng)}
    return [value] if rng.random() < 0.1 else EXTREMES[rng.integers(len(EXTREMES))]


def can_be(timing: Timing) -> bool:
    """Told another way than in ``devices.answers``."""
    numbers = [timing.min_ms, timing.median_ms, timing.p90_ms]
    whole = all(type(number) is float and math.isfinite(number) for number in (*numbers, timing.std_ms))
    amounts = [amount for amount in (timing.energy_mj, timing.peak_memory_bytes) if amount is not None]
    return (
        whole
        and 0 < numbers[0] <= numbers[1] <= numbers[2] <= 20_000
        and timing.std_ms >= 0
        and type(timing.repeats) is int
        and 2 <= timing.repeats <= POLICY.max_rounds
        and all(math.isfinite(amount) and amount >= 0 for amount in amounts)
    )


def outcome_counts(address: Address, networks: list[str]) -> tuple[int, int, int]:
    """How many measurements, networks that were given up, and refusals of all there are; each of them as it must be."""
    try:
        found = outcomes_of(address, networks, silence_limit_s=2.0)
    except DeviceError as error:
        found = {"": Failure(str(error))}
    reasons = [outcome.reason for outcome in found.values() if isinstance(outcome, Failure)]
    timings = [outcome for outcome in found.values() if isinstance(outcome, Timing)]
    assert all(map(is_a_sentence, reasons)), reasons
    assert all(map(can_be, timings)), timings
    return len(timings), len(reasons) - ("" in found), int("" in found)


def note_counts(record_property: Callable[[str, Any], None], what: str, counts: list[tuple[int, int, int]]) -> None:
    measured, given_up, refused = (sum(each) for each in zip(*counts, strict=True))
    tried = {"tried": len(counts), "measured": measured, "given up": given_up, "refused": refused}
    record_property("figures", {"what": what, **tried})


@pytest.mark.parametrize("answers", [200, pytest.param(20_000, marks=pytest.mark.torture)])
def test_answers_that_are_damaged_at_random(answers: int, record_property: Callable[[str, Any], None]) -> None:
    """Each is refused by our own errors, or is a measurement."""
    rng, counts = np.random.default_rng(0), []
    for _ in range(answers):
        answer = damaged({"a": GOOD, "b": {**GOOD, "timing": None, "error": "it cannot be loaded"}}, rng)
        address = Spoken(answer=lambda message, asked, answer=answer: answer, retries=0)  # type: ignore[misc]
        counts.append(outcome_counts(address, ["a", "b"]))
    note_counts(record_property, "damaged answers of devices", counts)
    assert sum(measured for measured, _, _ in counts) > answers / 20


@pytest.mark.torture
def test_lines_that_are_damaged_at_random(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    """A byte, some bytes or a part of an answer is another: what is understood nevertheless is a measurement."""
    rng, counts = np.random.default_rng(0), []
    for number in range(500):
        at, bit, kind = int(rng.integers(300)), 1 << int(rng.integers(8)), ("flip", "cut", "twice", "zero")[int(rng.integers(4))]
        program = DAMAGE.format(at=at, bit=bit, kind=kind)
        address = Scripted(program=program, memory=str(tmp_path / f"memory{number}"), often=1, retries=2, backoff_s=0)
        counts.append(outcome_counts(address, ["a"]))
    note_counts(record_property, "damaged lines of devices", counts)


@pytest.mark.slow
def test_a_device_that_closes_its_output_and_lives_on(tmp_path: Path) -> None:
    address = Scripted(program="os.close(1); time.sleep(60)", memory=str(tmp_path / "memory"), often=1, retries=1, backoff_s=0)
    assert set(outcomes_of(address, ["a"]).values()) == {RIGHT}


@pytest.mark.slow
def test_a_device_that_is_busy_for_ever_is_given_up(tmp_path: Path) -> None:
    program = "while True: say({'doing': 'timing', 'step': 0, 'steps': 1}); time.sleep(0.1)"
    address = Scripted(program=program, memory=str(tmp_path / "memory"), often=1, retries=1, backoff_s=0)
    assert set(outcomes_of(address, ["a"], silence_limit_s=0.5).values()) == {RIGHT}


@pytest.mark.slow
def test_a_device_that_trickles_is_silent(tmp_path: Path) -> None:
    program = "while True: raw.write(' '); raw.flush(); time.sleep(0.05)"
    address = Scripted(program=program, memory=str(tmp_path / "memory"), often=1, retries=1, backoff_s=0)
    assert set(outcomes_of(address, ["a"], silence_limit_s=1.0).values()) == {RIGHT}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_device_that_is_not_what_it_says(name: str) -> None:
    right = describe(Device(name="there", runtime="fake", address=Fake()))
    del right["device"]

    def answer(message: Mapping[str, Any], asked: int) -> Any:
        return DESCRIPTIONS[name](right) if asked <= often else right

    often = 1
    assert describe(device(Spoken(answer=answer, retries=1, backoff_s=0)))["processor"] == right["processor"]
    often = ENDLESS
    with pytest.raises(DeviceError, match=r"must say what it is, but .*2 times in a row on device 'there'; nothing is timed yet") as caught:
        describe(device(Spoken(answer=answer, retries=1, backoff_s=0)))
    assert is_a_sentence(str(caught.value))


@pytest.mark.parametrize("said", [None, {}, "all", ["another"], [3], [["a"]], [None]])
def test_files_that_nobody_asked_for_are_not_sent(said: object, tmp_path: Path) -> None:
    agent = Spoken(answer=lambda message, asked: said).start()
    with pytest.raises(NonsenseError, match="must say which of 1 files it lacks"):
        Ssh(host="there").bring(agent, {"a": save_conv(tmp_path / "a.onnx")})


def test_an_error_of_a_device_is_shown_in_one_line(tmp_path: Path) -> None:
    program = "say({'error': 'no\\n\\x1b[2J\\u202e' + 'x' * 100_000})"
    with pytest.raises(DeviceError) as caught:
        outcomes_of(Scripted(program=program, memory=str(tmp_path / "memory")), ["a"])
    assert str(caught.value).startswith("no [2J x")
    assert is_a_sentence(str(caught.value))


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e-12, "1.0", None, [1.0]])
def test_a_runtime_of_ones_own_that_times_nonsense_loses_that_network_only(
    seconds: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {f"{layers} layers": str(save_conv(tmp_path / f"{layers}.onnx", layers=layers)) for layers in (1, 2)}
    load = FakeRuntime.load

    def wrong(runtime: FakeRuntime, path: Path, settings: Settings) -> Any:
        session = load(runtime, path, settings)
        if path.name == "2.onnx":
            session.timer = lambda inputs: lambda calls: seconds  # type: ignore[method-assign,return-value,assignment]
        return session

    monkeypatch.setattr(FakeRuntime, "load", wrong)
    found = groups.time_group(Settings(runtime="fake"), paths, policy=POLICY, seed=0, say=lambda note: None)
    assert found["1 layers"].timing is not None
    assert "a device's clock must advance by at least" in found["2 layers"].error


class Counter:
    """An energy meter that says one thing after another."""

    def __init__(self, *said: float | Exception) -> None:
        self._said = list(said)

    def joules(self) -> float:
        said = self._said.pop(0) if len(self._said) > 1 else self._said[0]
        if isinstance(said, Exception):
            raise said
        return said


@pytest.mark.parametrize("said", [(5.0, 4.0, -1e9), (0.0, math.nan), (0.0, OSError("gone")), (0.0, ValueError("no"))])
def test_a_counter_of_energy_that_cannot_be_leaves_the_time(
    said: tuple[float | Exception, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "find_energy_meter", lambda place: Counter(*said))
    paths = {"a": str(save_conv(tmp_path / "a.onnx"))}
    policy = TimingPolicy(min_rounds=2, max_rounds=2, energy_s=1e-6)
    (outcome,) = groups.time_group(Settings(runtime="fake"), paths, policy=policy, seed=0, say=lambda note: None).values()
    assert outcome.timing is not None
    assert outcome.timing.energy_mj is None


def table(**changes: Any) -> LatencyTable:
    row = {"kind": "k", "block": "{}", "input_height_px": 8, "input_width_px": 8, "batch": 1, "precision": "fp32"}
    numbers = {**GOOD["timing"], **changes}  # type: ignore[dict-item]
    info = TableInfo(device={"name": "pi", "batch": 1, "precision": "fp32"}, runtime_version="1")
    return LatencyTable(rows_frame([{**row, **numbers}])[list(COLUMNS)], info)


@pytest.mark.parametrize("column", ["median_ms", "p90_ms", "min_ms", "std_ms", "repeats", "energy_mj", "peak_memory_bytes"])
def test_a_table_holds_no_number_that_cannot_be(column: str) -> None:
    wrong = [
        -1.0,
        math.inf,
        *([1e15] if column.endswith("_ms") else []),
        *([math.nan] if column in ("median_ms", "repeats") else []),
        *([0.0] if column == "median_ms" else []),
    ]
    for value in wrong:
        with pytest.raises(TableError, match=f"must hold possible times and amounts, but the table has .* as {column}; build it anew"):
            table(**{column: value})


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf, 1e15])
def test_no_network_of_a_calibration_takes_what_none_can(ms: float) -> None:
    arch = get_space("ofa-mbv3-tiny").smallest()
    with pytest.raises(SchemaError, match="must be above 0"):
        MeasuredNetwork(arch=arch, measured_ms=ms)
    with pytest.raises(TableError, match="must be above 0"):
        check_networks([arch], [ms], least=1)
