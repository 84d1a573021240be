from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from devices import meters
from devices.meters import PeakMemory, energy_per_call_mj, find_energy_meter
from devices.runtimes.cuda import GpuFacts


def zone(folder: Path, name: str, kind: str, microjoules: int, most: int = 10**9) -> Path:
    place = folder / name
    place.mkdir()
    (place / "name").write_text(f"{kind}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text(f"{most}\n")
    return place


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 2_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    meter = find_energy_meter("cpu", powercap=tmp_path)
    assert meter is not None
    assert meter.joules() == pytest.approx(5.0)


@pytest.mark.parametrize(("place", "counted"), [("cpu", True), ("GPU", False), ("DmlExecutionProvider", False)])
def test_the_processor_does_not_count_what_others_use(tmp_path: Path, place: str, counted: bool) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 2_000_000)
    assert (find_energy_meter(place, powercap=tmp_path) is not None) == counted


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    place = zone(tmp_path, "intel-rapl:0", "package-0", 900, most=999)
    meter = find_energy_meter("cpu", powercap=tmp_path)
    assert meter is not None
    (place / "energy_uj").write_text("100")
    assert meter.joules() == pytest.approx(1100e-6)


def test_a_machine_that_does_not_count_has_no_meter(tmp_path: Path) -> None:
    assert find_energy_meter("cpu", powercap=tmp_path / "none") is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert find_energy_meter("cpu", powercap=tmp_path) is None


def test_energy_is_divided_by_the_calls() -> None:
    class Meter:
        total, now = 0.0, 0.0

        def joules(self) -> float:
            return self.total

    meter = Meter()

    def timer(calls: int) -> float:
        meter.total += 0.002 * calls
        meter.now += 0.01 * calls
        return 0.01 * calls

    assert energy_per_call_mj(timer, meter, clock=lambda: meter.now) == pytest.approx(2.0)
    assert meter.now >= 0.3


class SlowMeter:
    """Shows what was used only every ``step_s`` seconds."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.now = step_s, 0.0

    def joules(self) -> float:
        return 50.0 * self.step_s * int(self.now / self.step_s)

    def timer(self, calls: int) -> float:
        self.now += 0.007 * calls
        return 0.007 * calls


def test_a_counter_of_coarse_steps_is_read_at_its_steps() -> None:
    meter = SlowMeter(step_s=0.1)
    energy = energy_per_call_mj(meter.timer, meter, clock=lambda: meter.now)
    assert energy == pytest.approx(50.0 * 7.0, rel=0.04)  # 50 W for 7 ms; to a call at each end


def test_a_counter_that_stands_still_gives_no_energy() -> None:
    meter = SlowMeter(step_s=1e9)
    assert energy_per_call_mj(meter.timer, meter, clock=lambda: meter.now) is None


def test_a_card_counts_in_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    library = types.ModuleType("pynvml")
    library.nvmlInit = lambda: None  # type: ignore[attr-defined]
    library.nvmlDeviceGetHandleByPciBusId = lambda bus_id: bus_id  # type: ignore[attr-defined]
    library.nvmlDeviceGetTotalEnergyConsumption = {"first": 4500, "second": 7500}.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(meters, "gpu_facts", [GpuFacts("A", "first"), GpuFacts("B", "second")].__getitem__)
    for place, joules in (("cuda", 4.5), ("cuda:0", 4.5), ("cuda:1", 7.5)):
        meter = find_energy_meter(place)
        assert meter is not None
        assert meter.joules() == pytest.approx(joules)
    monkeypatch.setattr(meters, "gpu_facts", lambda number: None)
    assert find_energy_meter("cuda") is None  # whose card would be counted, nobody can say
    monkeypatch.undo()
    monkeypatch.setattr(meters, "gpu_facts", lambda number: GpuFacts("A", "first"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_energy_meter("cuda") is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_memory_that_is_used_and_left_again_is_seen() -> None:
    peak = PeakMemory()
    if peak.rise_bytes() is None:
        pytest.skip("this system does not let a process set its peak back")
    np.ones(50_000_000, dtype=np.uint8).sum()
    rise = peak.rise_bytes()
    assert rise is not None
    assert 45e6 < rise < 100e6


def test_a_system_that_does_not_tell_gives_nothing(tmp_path: Path) -> None:
    assert PeakMemory(proc=tmp_path / "none").rise_bytes() is None
