"""What every benchmark records of the machine it ran on, and how busy its neighbours were."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Processor, cores, versions and date."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: v for name in ("ofa-nas", "torch", "optuna", "onnxruntime", "numpy") if (v := _version(name))},
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The processor's own name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


@dataclass
class Others:
    """How many cores other processes used, on average."""

    cores: float | None = None


@contextmanager
def others_during() -> Iterator[Others]:
    """Measure the load during the block beyond this process and its children that still run (Linux only)."""
    others = Others()
    start, busy = time.perf_counter(), _busy_s()
    own = _tree_cpu_s()
    yield others
    if busy is not None:
        elapsed = time.perf_counter() - start
        after = _busy_s()
        assert after is not None
        others.cores = round(max(0.0, (after - busy - (_tree_cpu_s() - own)) / elapsed), 2)


def _busy_s() -> float | None:
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    ticks = [int(value) for value in stat.read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _tree_cpu_s() -> float:
    """Processor seconds of this process and its running children."""
    total = sum(os.times()[:4])
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if children.exists():
        for pid in children.read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
