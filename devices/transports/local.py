"""This machine, in a process of its own: a crash stays there, and no other library's threads share the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from devices.transports.connection import Connection

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["LocalTransport"]

_ROOT = Path(__file__).resolve().parents[2]


class LocalTransport:
    """Runs the agent with the interpreter that runs this."""

    def __init__(self, device: Device) -> None:
        del device  # every local device is this machine

    def start(self) -> Connection:
        """Start the agent."""
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # -P: a folder named `devices` where the user happens to stand must not be taken for this package.
        command = [sys.executable, "-P", "-m", "devices.agent"]
        return Connection(command, environment={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, place="this machine")

    def bring(self, agent: Connection, paths: Mapping[str, Path]) -> dict[str, str]:
        """Files are where they are."""
        del agent
        return {key: str(path.resolve()) for key, path in paths.items()}
