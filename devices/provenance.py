"""Provenance of a measurement, which is stored with every number."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from devices.conditions import Conditions
from devices.meters import gpu_number
from devices.runtimes import Settings, get_runtime
from devices.runtimes.cuda import gpu_facts

__all__ = ["Provenance", "provenance"]

_CPUINFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Description of a machine and its runtime.

    Attributes:
        runtime_version: version of the runtime.
        conditions: conditions under which it executes networks.
        processor: name of the processor.
        gpu: name of the NVIDIA card, if it executes the networks; otherwise None.
        cores: number of cores that the process may use.
        clock_policy: frequency governor of the first core; None if the system does not report it.
        load: load average of the last minute; None if the system does not report it.
        platform: system, release and processor architecture.
        python_version: version of the agent's interpreter.
        date: UTC, ISO 8601.
    """

    runtime_version: str
    conditions: Conditions
    processor: str
    gpu: str | None
    cores: int
    clock_policy: str | None
    load: float | None
    platform: str
    python_version: str
    date: str

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {**asdict(self), "conditions": self.conditions.to_json()}


def provenance(settings: Settings) -> Provenance:
    """The provenance of measurements on this machine.

    Raises:
        DeviceError: the runtime is not installed.
    """
    version = _name(get_runtime(settings.runtime).version())
    return Provenance(
        runtime_version=version,
        conditions=Conditions.of(settings, runtime_version=version),
        processor=_name(_processor()),
        gpu=_gpu(settings),
        cores=_cores(),
        clock_policy=_name(_text(_GOVERNOR)) or None,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        platform=_name(f"{platform.system()} {platform.release()} {platform.machine()}"),
        python_version=platform.python_version(),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _name(text: str) -> str:
    """A name, shortened as ``devices.answers`` requires. Spaces stay: tables are compared by names that earlier versions wrote."""
    return "".join(each for each in text if each.isprintable())[:_LONGEST_NAME]


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in _text(_CPUINFO).splitlines() if line.lower().startswith("model name")]
    return (names or [_text(_BOARD), platform.processor(), platform.machine()])[0] or platform.machine() or "unknown"


def _gpu(settings: Settings) -> str | None:
    number = gpu_number(settings.place)
    facts = None if number is None else gpu_facts(number)
    return None if facts is None else facts.name


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
