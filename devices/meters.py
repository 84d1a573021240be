"""Meters of energy and memory, where the machine supports them.

Energy: Linux exposes the counters of Intel and AMD processors under ``/sys/class/powercap`` (RAPL), usually to root only; NVIDIA's driver
counts it for their cards (NVML, ``pip install nvidia-ml-py``). Both count the whole processor or card, including idle power.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from devices.runtimes import Timer
from devices.runtimes.cuda import gpu_facts

__all__ = ["EnergyMeter", "PeakMemory", "energy_per_call_mj", "find_energy_meter", "gpu_number"]

POWERCAP = Path("/sys/class/powercap")
_PROC = Path("/proc/self")
_BATCH_S, _LARGEST_BATCH = 0.002, 1024
"""Shortest time in s between two readings of the counter, and most calls between them."""
_STUCK_S = 2.0
_RESET_PEAK = "5"


class EnergyMeter(Protocol):
    """Counts energy."""

    def joules(self) -> float:
        """Joules since an arbitrary moment in the past; never decreases."""
        ...


def find_energy_meter(place: str, *, powercap: Path = POWERCAP) -> EnergyMeter | None:
    """The energy counter of the processor or NVIDIA card that executes networks; None if there is none, or it cannot be read.

    Args:
        place: where networks are executed, as of ``devices.runtimes.Runtime.place``. Places other than processor and NVIDIA card have no
            meter: the processor's counter would miss their energy.
        powercap: Linux's folder of power zones.
    """
    number = gpu_number(place)
    if number is not None:
        return _nvml(number)
    return _rapl(powercap) if place == "cpu" else None


def gpu_number(place: str) -> int | None:
    """CUDA's number of the NVIDIA card at a place; None for other places."""
    kind, _, number = place.partition(":")
    if kind != "cuda":
        return None
    return int(number) if number.isdecimal() else 0


def energy_per_call_mj(
    timer: Timer, meter: EnergyMeter, *, least_s: float = 0.3, clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """Energy of a call in mJ, counted between two increments of the counter, so that coarse counters work; None if the counter is stuck.

    Args:
        timer: executes a network a number of times, as of ``devices.runtimes.Timer``.
        meter: the energy counter.
        least_s: shortest time in seconds to count over.
        clock: returns seconds.
    """
    batch, calls = 1, 0
    while timer(batch) < _BATCH_S and batch < _LARGEST_BATCH:
        batch *= 2
    last, stepped = meter.joules(), clock()
    begun: tuple[float, float] | None = None
    while True:
        timer(batch)
        calls += batch
        joules, now = meter.joules(), clock()
        if joules == last:
            if now - stepped > _STUCK_S:
                return None
            continue
        last, stepped = joules, now
        if begun is None:
            begun, calls = (joules, now), 0
        elif now - begun[1] >= least_s:
            return 1e3 * (joules - begun[0]) / calls


class PeakMemory:
    """Rise of this process's memory from now on (Linux: peak of the resident set, which can be reset)."""

    def __init__(self, *, proc: Path = _PROC) -> None:
        self._status = proc / "status"
        _give_back_unused()
        try:
            (proc / "clear_refs").write_text(_RESET_PEAK)
            self._before = self._bytes("VmRSS")
        except OSError:
            self._before = None

    def rise_bytes(self) -> int | None:
        """The rise until now in bytes; None if the system does not report it. Reused free memory of the process is not counted."""
        peak = None if self._before is None else self._bytes("VmHWM")
        return None if peak is None or self._before is None else max(0, peak - self._before)

    def _bytes(self, key: str) -> int | None:
        try:
            lines = self._status.read_text().splitlines()
        except OSError:
            return None
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


def _give_back_unused() -> None:
    """Return free memory to the system (glibc only); otherwise a network that fits into it would seem to need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class _Zone:
    """A counter in microjoules that wraps around to 0."""

    def __init__(self, folder: Path) -> None:
        self._counter, self._range = folder / "energy_uj", folder / "max_energy_range_uj"
        self._last: int | None = None
        self._rounds = 0

    def can_be_read(self) -> bool:
        try:
            self.joules()
        except (OSError, ValueError):
            return False
        return True

    def joules(self) -> float:
        now = int(self._counter.read_text())
        if self._last is not None and now < self._last:
            self._rounds += int(self._range.read_text()) + 1
        self._last = now
        return 1e-6 * (self._rounds + now)


class _Rapl:
    def __init__(self, zones: list[_Zone]) -> None:
        self._zones = zones

    def joules(self) -> float:
        return sum(zone.joules() for zone in self._zones)


class _Nvml:
    def __init__(self, library: Any, bus_id: str) -> None:
        self._library, self._card = library, library.nvmlDeviceGetHandleByPciBusId(bus_id)

    def joules(self) -> float:
        return 1e-3 * float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._card))


def _rapl(powercap: Path) -> EnergyMeter | None:
    # Subzones (intel-rapl:0:0) are left out: they are parts of the package (intel-rapl:0), or memory, which only servers count.
    zones = [_Zone(folder) for folder in sorted(powercap.glob("*-rapl:*")) if folder.name.count(":") == 1 and _name(folder) != "psys"]
    readable = [zone for zone in zones if zone.can_be_read()]
    return _Rapl(readable) if readable else None


def _nvml(number: int) -> EnergyMeter | None:
    # NVML and CUDA number cards differently, and CUDA may hide some from this process: identify the card by its PCI bus address.
    facts = gpu_facts(number)
    if facts is None:
        return None
    try:
        library = importlib.import_module("pynvml")
        library.nvmlInit()
        meter = _Nvml(library, facts.bus_id)
        meter.joules()
    except Exception:  # not installed, no driver, no card, or a card without counter: the table then has no energy
        return None
    return meter


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except OSError:
        return ""
