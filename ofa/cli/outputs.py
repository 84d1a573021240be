"""What commands say of files that they write: nothing is replaced unless that is asked for (``ofa.outputs``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofa.cli.console import warn
from ofa.outputs import REMEDY, check_folder, check_output, check_output_folder

__all__ = ["REMEDY", "OverwriteOption", "check_folder", "check_output", "check_output_folder", "say_damaged"]

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]


def say_damaged(path: Path, lines: int, meaning: str) -> list[str]:
    """Warn of damaged lines of a file (``ofa.lines``), if there are some; returns what was said.

    Args:
        path: the file.
        lines: how many are damaged.
        meaning: what follows from that.
    """
    told = "1 line is" if lines == 1 else f"{lines} lines are"
    return warn([f"'{path}' must be as it was written, but {told} damaged; {meaning}"] if lines else [])
