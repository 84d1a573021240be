"""How processes share the card: at the same time by NVIDIA's Multi-Process Service, where it can be started, or in turns.

Without the service the kernels of one process never run beside those of another, so small ones leave most of the card idle.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

PROGRAM = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
CHECK = "import torch; torch.zeros(1, device='{device}').item()"
WAIT_S = 40.0
"""For the service to start, to end, and for a process to reach the card through it."""


@contextmanager
def shared_card(folder: Path, device: str) -> Iterator[str]:
    """Within it, processes that are started use the service if it works; what is given is how they share, in words.

    Args:
        folder: of the service's pipes and logs; its path must be short, as a socket's must.
        device: as on the command line.
    """
    if device == "cpu" or not (program := shutil.which(PROGRAM)):
        yield "in turns" + ("" if device == "cpu" else f", as there is no {PROGRAM}")
        return
    environment = {PIPES: str(folder / "pipes"), LOGS: str(folder / "logs")}
    for path in environment.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        fault = fault_of([program, "-d"]) or fault_of([sys.executable, "-c", CHECK.format(device=device)])
        if fault:
            put_back(before)
        yield f"in turns, as the service fails: {fault}" if fault else "at the same time, by the Multi-Process Service"
    finally:
        os.environ.update(environment)
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [program], input="quit\n", text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=WAIT_S
            )
        put_back(before)


def fault_of(command: list[str]) -> str:
    """What went wrong with a command; empty if nothing did."""
    with TemporaryFile("w+") as output:  # a service would keep a pipe open
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False, timeout=WAIT_S
            ).returncode
        except subprocess.TimeoutExpired:
            return f"no answer within {WAIT_S:.0f} s"
        output.seek(0)
        lines = output.read().strip().splitlines()
    return "" if code == 0 else lines[-1] if lines else f"status {code}"


def put_back(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
