"""This machine, in a process of its own: a crash stays there, and no other library's threads share the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from devices.transports import Address, Agent
from devices.transports.connection import Connection

__all__ = ["Local"]

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Local(Address):
    """This machine, by the interpreter that runs this."""

    kind: ClassVar[str] = "local"

    def start(self) -> Connection:
        """Start the agent. It finds modules where this process does: a runtime may be one of the user's own."""
        paths = [str(_ROOT), *filter(None, sys.path)]
        # -P: a folder named `devices` where the user happens to stand must not be taken for this package.
        command = [sys.executable, "-P", "-c", "from devices.agent import main; main()"]
        return Connection(command, environment={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, place="this machine")

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Files are where they are."""
        del agent
        return {key: str(path.resolve()) for key, path in paths.items()}
