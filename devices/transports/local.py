"""This machine, in a process of its own: a crash stays there, and no other library's threads share the process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from devices.transports.connection import Connection

__all__ = ["LocalTransport"]

_ROOT = Path(__file__).resolve().parents[2]


class LocalTransport:
    """Runs the agent with the interpreter that runs this."""

    def start(self) -> Connection:
        """Start the agent."""
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # -P: a folder named `devices` where the user happens to stand must not be taken for this package.
        command = [sys.executable, "-P", "-m", "devices.agent"]
        return Connection(command, environment={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, place="this machine")

    def bring(self, path: Path) -> str:
        """Files are where they are."""
        return str(path.resolve())
