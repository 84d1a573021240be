"""Programs that must not be started: they lie first on the path and leave a mark."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def lay_traps(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str, status: int = 1) -> Path:
    """Put programs of these names first on the path; returns the file that is there once one of them was started.

    Args:
        monkeypatch: takes the path back.
        folder: for the programs and the mark.
        names: of the programs.
        status: that they exit with.
    """
    started, tools = folder / "started", folder / "tools"
    tools.mkdir()
    for name in names:
        (tools / name).write_text(f"#!/bin/sh\ntouch '{started}'\nexit {status}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    return started
