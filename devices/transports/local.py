"""This machine, in a process of its own: crashes are contained, and no other library's threads share the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from devices.runtimes import RUNTIMES
from devices.transports import Address, Agent
from devices.transports.connection import Connection

__all__ = ["Local"]

_ROOT = Path(__file__).resolve().parents[2]
_START = "import sys; sys.path[:] = sys.argv[1:]; from devices.agent import main; main()"


@dataclass(frozen=True, kw_only=True)
class Local(Address):
    """This machine, with the present Python interpreter."""

    kind: ClassVar[str] = "local"

    def start(self) -> Connection:
        """Start the agent with this process's module search path, without the current folder; see ``_folders``."""
        command = [sys.executable, "-I", "-c", _START, str(_ROOT), *_folders()]
        return Connection(command, place="this machine")

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Files are where they are."""
        del agent
        return {key: str(path.resolve()) for key, path in paths.items()}


def _folders() -> list[str]:
    """Module search path of the agent. The current folder comes last, and only if a user's own runtime may be there."""
    here = os.path.realpath(os.curdir)
    elsewhere = [folder for folder in sys.path if folder and os.path.realpath(folder) != here]
    return [*elsewhere, here] if set(RUNTIMES) - set(RUNTIMES.own) else elsewhere
