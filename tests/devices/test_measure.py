"""Measuring through a real agent in a real subprocess."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from devices import Device, Fake, Timing, TimingPolicy, describe, get_device, groups, time_models
from devices.measure import Failure, measure
from devices.runtimes import Option
from devices.transports import Connection, ConnectionLostError
from ofa.errors import DeviceError
from tests.devices.models import save_conv

QUICK = TimingPolicy(min_rounds=5, max_rounds=5, sample_ms=0.2)


def fake(**options: Option) -> Device:
    return Device(name="fake", runtime="fake", options=tuple(options.items()))


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {f"{layers} layers": save_conv(tmp_path / f"{layers}.onnx", channels=16, side=16, layers=layers) for layers in (1, 4, 16)}


def time_them(device: Device, models: dict[str, Path], *, silence_limit_s: float = 60.0) -> dict[str, Timing]:
    """Timings without the memory, which is really measured even where the time is not."""
    timings = time_models(device, models, rng=np.random.default_rng(0), policy=QUICK, silence_limit_s=silence_limit_s)
    return {key: dataclasses.replace(timing, peak_memory_bytes=None) for key, timing in timings.items()}


def test_onnxruntime_times_real_files(models: dict[str, Path]) -> None:
    steps: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, text: str = "") -> None:
        steps.append((done, total, text))

    timings = time_models(get_device("local-cpu"), models, rng=np.random.default_rng(0), policy=QUICK, progress=progress)
    assert list(timings) == list(models)
    assert 0 < timings["1 layers"].median_ms < timings["16 layers"].median_ms < 100
    assert all(timing.repeats == 5 and timing.min_ms <= timing.median_ms <= timing.p90_ms for timing in timings.values())
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    assert steps[-1][:2] == (6, 6)


def test_the_fake_is_deterministic(models: dict[str, Path]) -> None:
    device = fake(noise=0.1)
    assert time_them(device, models) == time_them(device, models)
    assert time_them(device, models) != time_them(fake(noise=0.1, seed=1), models)


def test_two_networks_of_one_content_and_one_alone_are_fine(models: dict[str, Path]) -> None:
    path = models["1 layers"]
    timings = time_them(fake(), {"a": path, "b": path})
    assert timings["a"] == timings["b"] == time_them(fake(), {"alone": path})["alone"]
    assert time_them(fake(), {}) == {}


def test_a_crash_is_a_sentence_that_names_the_network(models: dict[str, Path]) -> None:
    with pytest.raises(DeviceError, match="died with status 86 while loading 4 layers") as caught:
        time_them(fake(failure="crash", failing="4.onnx"), models)
    assert "\n" not in str(caught.value)


def test_a_hang_is_ended_after_the_time_limit_and_names_the_network(models: dict[str, Path]) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceError, match="silent while loading 4 layers"):
        time_them(fake(failure="hang", failing="4.onnx"), models, silence_limit_s=2.0)
    assert time.monotonic() - start < 10


COSTS = {f"network {i}": 1.1**i for i in range(30)}


def measured(bench: Fake, anchors: dict[str, float] | None = None) -> dict[str, float | str]:
    device, policy = Device(name="bench", runtime="fake", address=bench), TimingPolicy(group_size=10)
    found = measure(device, dict.fromkeys(COSTS, "x"), rng=np.random.default_rng(0), policy=policy, anchors=anchors)
    return {key: outcome.reason if isinstance(outcome, Failure) else outcome.median_ms for key, outcome in found}


def test_groups_are_brought_to_one_speed() -> None:
    bench = Fake(costs_ms=COSTS, slowdowns=(1.0, 1.1, 0.9))
    assert measured(bench) == pytest.approx(COSTS)
    assert [len(group) for group in bench.groups] == [10, 18, 18], "a group and the anchors"


def test_a_measurement_goes_on_from_an_earlier_one() -> None:
    anchors = {key: COSTS[key] for key in list(COSTS)[:5]}
    found = measured(Fake(costs_ms=COSTS, slowdowns=(1.1, 1.1, 1.1)), anchors)
    assert found == pytest.approx({key: ms for key, ms in COSTS.items() if key not in anchors})


def test_what_drifted_is_measured_again() -> None:
    bench = Fake(costs_ms=COSTS, drifting="network 7")
    assert measured(bench) == pytest.approx(COSTS)
    assert sum("network 7" in group for group in bench.groups) >= 2
    assert len(bench.groups) == 4


def test_a_group_at_quite_another_speed_is_measured_again() -> None:
    bench = Fake(costs_ms=COSTS, slowdowns=(1.0, 1.5))
    assert measured(bench) == pytest.approx(COSTS)
    assert len(bench.groups) == 4
    steadily = Fake(costs_ms=COSTS, slowdowns=(1.0, 1.5, 1.5, 1.5, 1.5))
    assert measured(steadily) == pytest.approx(COSTS), "and then taken as it is"


@pytest.mark.parametrize("in_rounds", [False, True])
def test_a_network_that_kills_the_runtime_is_given_up_and_the_others_kept(in_rounds: bool) -> None:
    found = measured(Fake(costs_ms=COSTS, dying="network 3", in_rounds=in_rounds))
    assert found.pop("network 3") == "it died"
    assert found == pytest.approx({key: ms for key, ms in COSTS.items() if key != "network 3"})


def test_an_error_on_the_device_is_passed_on(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"must fail on '4\.onnx', and did"):
        time_them(fake(failure="error", failing="4.onnx"), models)
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(DeviceError, match=r"load 'broken\.onnx'"):
        time_them(get_device("local-cpu"), {"broken": tmp_path / "broken.onnx"})


def test_a_device_describes_itself() -> None:
    description = describe(get_device("local-cpu-2threads"))
    assert description["device"]["threads"] == 2
    assert description["runtime_version"].count(".") == 2
    assert description["processor"]
    assert description["cores"] >= 1
    assert description["date"].endswith("+00:00")


def test_the_agent_needs_no_torch_and_nothing_of_the_supernet() -> None:
    code = (
        "import sys, devices, devices.agent, devices.runtimes.onnxruntime\n"
        "heavy = {'torch', 'pandas', 'onnx', 'onnxruntime', 'rich', 'typer', 'scipy'} & set(sys.modules)\n"
        "allowed = {'ofa.errors', 'ofa.lazy', 'ofa.opsets', 'ofa.reasons', 'ofa.registry', 'ofa.telemetry'}\n"
        "ours = {m for m in sys.modules if m.startswith('ofa.')} - allowed\n"
        "sys.exit(str(heavy | ours) if heavy | ours else 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_agent_starts_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert describe(fake())["runtime_version"] == "1"


def test_a_folder_named_devices_where_the_user_stands_does_not_matter(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)
    assert time_them(fake(), models)


def speak(program: str, *, silence_limit_s: float = 20.0) -> object:
    with Connection([sys.executable, "-c", program], place="the test") as agent:
        return agent.request({"op": "any"}, on_note=lambda note: None, silence_limit_s=silence_limit_s)


def test_a_connection_gives_the_result_after_notes() -> None:
    assert speak('input(); print(\'{"id": 1, "doing": "this", "step": 1, "steps": 2}\'); print(\'{"id": 1, "result": [1]}\')') == [1]


def test_a_death_is_reported_with_its_last_words() -> None:
    with pytest.raises(DeviceError, match=r"must start on the test, but it died with status 3 while starting \('out of memory'\)"):
        speak("import sys; sys.stderr.write('out of memory\\n'); sys.exit(3)")
    with pytest.raises(DeviceError, match="died by signal 9"):
        speak("import os, signal; input(); os.kill(os.getpid(), signal.SIGKILL)")


def test_an_answer_that_was_cut_off_is_a_death() -> None:
    note = '{"id": 1, "doing": "this", "step": 1, "steps": 2}'
    with pytest.raises(ConnectionLostError, match="died with status 3 while this; leave this network out") as caught:
        speak(f"import sys; input(); print('{note}'); sys.stdout.write('{note[:9]}'); sys.exit(3)")
    assert caught.value.note["step"] == 1


def test_an_answer_that_is_none_of_ours_is_a_sentence() -> None:
    with pytest.raises(DeviceError, match="'Welcome to this host!'"):
        speak("input(); print('Welcome to this host!')")


def test_an_agent_that_cannot_be_started_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"no such file"), Connection([str(tmp_path / "none")], place="the test"):
        pass


def test_the_memory_of_a_process_is_not_taken_for_that_of_a_card(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {key: str(path) for key, path in list(models.items())[:1]}

    def memories() -> list[int | None]:
        outcomes = groups.time_group(fake(), paths, policy=QUICK, seed=0, say=lambda note: None)
        return [outcome.timing.peak_memory_bytes for outcome in outcomes.values() if outcome.timing]

    here = memories()
    monkeypatch.setattr(groups, "gpu_number", lambda place: 0)
    monkeypatch.setattr(groups, "find_energy_meter", lambda place: None)
    assert here != [None] or sys.platform != "linux"
    assert memories() == [None]


def test_energy_is_counted_for_as_long_as_the_policy_says(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Meter:
        joules_so_far = 0.0

        def joules(self) -> float:
            self.joules_so_far += 1.0
            return self.joules_so_far

    monkeypatch.setattr(groups, "find_energy_meter", lambda place: Meter())
    paths = {key: str(path) for key, path in list(models.items())[:2]}

    def energies(energy_s: float) -> list[float | None]:
        policy = dataclasses.replace(QUICK, energy_s=energy_s)
        outcomes = groups.time_group(fake(), paths, policy=policy, seed=0, say=lambda note: None)
        return [outcome.timing.energy_mj for outcome in outcomes.values() if outcome.timing]

    assert energies(0.0) == [None, None]
    assert all(energy is not None and energy > 0 for energy in energies(0.01))
