"""Calls with pauses between them, as an application makes them."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from devices import Device, TimingPolicy, groups, time_models, timing
from devices.timing import measure_rounds
from tests.devices.models import save_conv


class Clock:
    """A clock that moves when somebody sleeps or a network runs, and keeps what was done when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.done: list[str] = []
        monkeypatch.setattr(timing.time, "sleep", self.sleep)
        monkeypatch.setattr(timing.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(timing, "_preemptions", lambda: 0)  # of this test's own process

    def sleep(self, seconds: float) -> None:
        self.done.append(f"sleep {seconds:g}")
        self.now += seconds

    def timer(self, seconds: float) -> timing.Timer:
        def timed(calls: int) -> float:
            self.done.append(f"{calls} calls")
            self.now += calls * seconds
            return calls * seconds

        return timed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def rounds(clock: Clock, networks: int, pause_s: float, policy: TimingPolicy, told: list[tuple[int, int]] | None = None) -> np.ndarray:
    timers = [clock.timer(0.002) for _ in range(networks)]
    return measure_rounds(
        timers,
        [7] * networks,
        policy=policy,
        rng=np.random.default_rng(0),
        on_round=lambda done, most: None if told is None else told.append((done, most)),
        pause_s=pause_s,
    )


def test_every_call_follows_a_pause_and_only_the_call_is_timed(clock: Clock) -> None:
    samples_RN = rounds(clock, 2, 0.02, TimingPolicy(min_rounds=5, max_rounds=5))
    assert samples_RN == pytest.approx(2.0 * np.ones((5, 2)))
    assert clock.done == ["sleep 0.02", "1 calls"] * 12, "two networks, six rounds of which the first is discarded"


def test_without_pauses_nobody_sleeps(clock: Clock) -> None:
    rounds(clock, 2, 0.0, TimingPolicy(min_rounds=5, max_rounds=5))
    assert clock.done == ["1 calls", "7 calls"] * 12


def test_a_call_that_was_interrupted_is_made_once_more_after_another_pause(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_preemptions", itertools.count().__next__)
    rounds(clock, 1, 0.02, TimingPolicy(min_rounds=2, max_rounds=2))
    assert clock.done == ["sleep 0.02", "1 calls", "sleep 0.02", "1 calls"] * 3


@pytest.mark.parametrize(("networks", "pause_s", "expected"), [(10, 0.02, 15), (64, 0.1, 9), (64, 1.0, 5)])
def test_fewer_rounds_must_do_where_pauses_take_longer_than_there_is_time(
    clock: Clock, networks: int, pause_s: float, expected: int
) -> None:
    policy = TimingPolicy(min_rounds=15, max_rounds=15, time_limit_s=60.0)
    assert len(rounds(clock, networks, pause_s, policy)) == expected


def test_long_rounds_tell_that_they_go_on_and_how_many_are_left(clock: Clock) -> None:
    told: list[tuple[int, int]] = []
    rounds(clock, 64, 1.0, TimingPolicy(min_rounds=15, max_rounds=60, time_limit_s=60.0), told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {most for _, most in told} == {6}
    assert len(told) > 6 * 64 / 6, "one every few seconds, long before a silent device is given up"


def test_an_agent_pauses(tmp_path: Path) -> None:
    models = {f"{layers} layers": save_conv(tmp_path / f"{layers}.onnx", layers=layers) for layers in (1, 2)}
    policy = TimingPolicy(min_rounds=5, max_rounds=5)
    start = time.monotonic()
    found = time_models(Device(name="here", runtime="fake", pause_ms=40), models, rng=np.random.default_rng(0), policy=policy)
    assert time.monotonic() - start > 2 * 6 * 0.04
    assert found["1 layers"].repeats == 5
    in_a_row = time_models(Device(name="here", runtime="fake"), models, rng=np.random.default_rng(0), policy=policy)
    assert found["1 layers"].median_ms == in_a_row["1 layers"].median_ms, "the formula of the fake knows no caches"


def test_what_is_told_of_a_group_never_goes_back_and_pauses_are_most_of_it(tmp_path: Path) -> None:
    paths = {f"{layers} layers": str(save_conv(tmp_path / f"{layers}.onnx", layers=layers)) for layers in (1, 2, 3)}
    notes: list[dict[str, object]] = []
    groups.time_group(
        Device(name="here", runtime="fake", pause_ms=10),
        paths,
        policy=TimingPolicy(min_rounds=10, max_rounds=10),
        seed=0,
        say=lambda note: notes.append(dict(note)),
    )
    shares = [note["step"] / note["steps"] for note in notes]  # type: ignore[operator]
    assert all(a <= b for a, b in itertools.pairwise(shares))
    loading = [note["step"] / note["steps"] for note in notes if "loading" in str(note["doing"])]  # type: ignore[operator]
    assert max(loading) < 0.4
    assert shares[-1] < 1
