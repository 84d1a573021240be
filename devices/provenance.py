"""Where a measurement comes from: what is written beside every number."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from devices.conditions import Conditions
from devices.meters import gpu_number
from devices.runtimes import Settings, get_runtime
from devices.runtimes.cuda import gpu_facts

__all__ = ["provenance"]

_CPUINFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def provenance(settings: Settings) -> dict[str, Any]:
    """What matters of this machine and of the runtime on it, as JSON values.

    Returns:
        ``runtime_version``, ``conditions`` (``devices.Conditions``), ``processor``, ``gpu`` (the name of
        NVIDIA's card, if that is what executes; otherwise None), ``cores`` (that this process may use), ``clock_policy`` and ``load``
        (processes that wanted the processor in the last minute; both None where the system does not tell), ``platform``,
        ``python_version``, ``date`` (UTC, ISO 8601).

    Raises:
        DeviceError: the runtime is not installed.
    """
    version = get_runtime(settings.runtime).version()
    return {
        "runtime_version": version,
        "conditions": Conditions.of(settings, runtime_version=version).to_json(),
        "processor": _processor(),
        "gpu": _gpu(settings),
        "cores": _cores(),
        "clock_policy": _text(_GOVERNOR) or None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python_version": platform.python_version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


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
