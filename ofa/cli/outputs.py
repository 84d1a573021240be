"""Files that commands write."""

from __future__ import annotations

from pathlib import Path

from ofa.errors import FileError

__all__ = ["check_folder"]


def check_folder(output: Path) -> None:
    """Minutes of work must not end at a folder that is not there.

    Raises:
        FileError: the folder of ``output`` does not exist.
    """
    if not output.absolute().parent.is_dir():
        raise FileError(f"'{output}' must be in a folder that exists, but '{output.parent}' does not; create it")
