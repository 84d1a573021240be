"""What the parts of the kit share: their command line, and a report that is on disk whenever it has another figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]
OWN = ("benchmarks", "devices", "latency_tables", "ofa", "search", "tests")
"""Packages of the project: if one of their modules is missing, that is no library that a machine lacks."""
GIB = 2**30


class SkipError(Exception):
    """A part cannot be run here, for a reason that is no fault of it; one sentence."""


def part_arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line that every part has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON of the part, written anew with each figure")
    parser.add_argument("--seconds", type=float, required=True, help="within which the part must have ended")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a dry run")
    parser.add_argument("--dry", action="store_true", help="sizes so small that a processor has done in seconds; no figure counts")
    parser.add_argument("--work", type=Path, help="folder for what the part needs on disk; beside the JSON by default")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10's train.parquet and test.parquet")
    parser.add_argument("--mit", type=Path, help="folder that MIT's package `ofa` is imported from")
    return parser


class Report:
    """What a part found out; as a context it says at the end how the part ended.

    Whatever is raised within becomes the report's status: ``SkipError`` and missing libraries ``skipped``, all else ``failed``, and is
    raised on. A part that is killed leaves ``running`` and what it had.

    Args:
        part: its name.
        arguments: of ``part_arguments``.
    """

    def __init__(self, part: str, arguments: argparse.Namespace) -> None:
        self._path: Path = arguments.out
        self._started = time.monotonic()
        self._seconds: float = arguments.seconds
        self.work: Path = arguments.work or arguments.out.with_suffix("")
        self.work.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {
            "part": part,
            "machine": describe_gpu_machine(arguments.device),
            "arguments": {name: value.name if isinstance(value, Path) else value for name, value in vars(arguments).items()},
            "status": "running",
            "reason": "",
            "seconds": 0.0,
            "figures": {},
            "rows": [],
        }

    def __enter__(self) -> Self:
        self.write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in OWN
        if error is None:
            self.content["status"] = "ok"
        elif isinstance(error, SkipError):
            self.content |= {"status": "skipped", "reason": str(error)}
        elif isinstance(error, ModuleNotFoundError) and missing:
            reason = f"this part needs {error.name}, which is not installed; pack it or install it"
            self.content |= {"status": "skipped", "reason": reason}
        else:
            self.content |= {"status": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        self.write()
        return missing or isinstance(error, SkipError)

    @property
    def left_s(self) -> float:
        """Seconds until the part must have ended."""
        return self._seconds - (time.monotonic() - self._started)

    def figure(self, name: str, value: Any) -> None:
        """Keep a figure, JSON values."""
        self.content["figures"][name] = value
        self.write()

    def row(self, figure: str, value: str) -> None:
        """Keep a line of the table that ends the run; it takes the place of an earlier one of the same figure."""
        rows = self.content["rows"]
        known = [index for index, (name, _) in enumerate(rows) if name == figure]
        if known:
            rows[known[0]] = [figure, value]
        else:
            rows.append([figure, value])
        self.write()

    def write(self) -> None:
        """Put all that is known on disk, all or nothing."""
        self.content["seconds"] = round(time.monotonic() - self._started, 1)
        temporary = self._path.with_name(f".{self._path.name}.part")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self._path)


def describe_gpu_machine(device: str) -> dict[str, Any]:
    """``describe_machine`` and, where torch is installed, the versions that a GPU's figures depend on, and the card."""
    libraries = {
        name: found for name in ("triton", "pandas", "onnx", "nvidia-ml-py", "tensorrt-rtx-cu13-bindings") if (found := installed(name))
    }
    described = {**describe_machine(), "python_implementation": platform.python_implementation(), "libraries": libraries}
    try:
        import torch
    except ModuleNotFoundError:
        return described
    described |= {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if device != "cpu" and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(torch.device(device))
        described["card"] = {
            "name": card.name,
            "compute_capability": f"{card.major}.{card.minor}",
            "memory_bytes": card.total_memory,
            "multiprocessors": card.multi_processor_count,
            "driver": driver_version(),
        }
    return described


def require_card(device: str, least_bytes: int) -> None:
    """Refuse a machine on which a part cannot run.

    Args:
        device: as on the command line; a dry run's ``cpu`` always will do.
        least_bytes: memory of the card that must be free.

    Raises:
        SkipError: torch sees no GPU, or its free memory is too small.
    """
    import torch

    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise SkipError("this part needs a GPU, but torch sees none; run it where `nvidia-smi` names one, with a torch built for CUDA")
    free_bytes, _ = torch.cuda.mem_get_info(torch.device(device))
    if free_bytes < least_bytes:
        raise SkipError(
            f"this part needs {least_bytes / GIB:.0f} GiB of the card's memory, but {free_bytes / GIB:.1f} GiB are free; "
            "end what else runs there"
        )


def driver_version() -> str | None:
    """Of NVIDIA's driver, from where Linux shows it."""
    text = Path("/proc/driver/nvidia/version")
    try:
        words = text.read_text(encoding="utf-8").split()
    except OSError:
        return None
    return next((word for word in words if word.count(".") >= 1 and word.replace(".", "").isdigit()), None)


def installed(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
