"""Checks of output paths before long work: the path can be written, its ending is right, and overwriting is allowed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ofa.errors import FileError
from ofa.files import reason_of, remove_parts

__all__ = ["ENDINGS", "PARQUET", "REMEDY", "check_ending", "check_folder", "check_output", "check_output_folder"]

REMEDY = "name another file or add --overwrite"
"""Next step in the message about a file that exists."""
PARQUET = ".parquet"
ENDINGS: Mapping[str, str] = {
    ".csv": "rows of text",
    ".html": "a page",
    ".json": "JSON",
    ".onnx": "an ONNX file",
    PARQUET: "a Parquet file",
    ".png": "a picture",
    ".safetensors": "tensors",
    ".toml": "settings",
}
"""Kind of file by the ending of its name, which some readers rely on; tables, predictors and fronts are Parquet."""


def check_output(output: Path, *, overwrite: bool, remedy: str = REMEDY, ending: str | None = None, must_end: bool = False) -> None:
    """Check that a file can be written, before the work that produces it.

    Args:
        output: the file.
        overwrite: whether an existing file may be replaced.
        remedy: next step in the message about an existing file.
        ending: key of ``ENDINGS``, as in ``check_ending``; None if the user did not choose the name.
        must_end: whether readers rely on that ending.

    Raises:
        FileError: the file exists and may not be replaced, is no plain file, has the ending of another kind, or its folder does not
            exist or cannot be written.
    """
    if ending is not None:
        check_ending(output, ending, must_end=must_end)
    check_folder(output)
    if not _exists(output):
        return
    if not output.is_file():
        kind = "a folder" if output.is_dir() else "no plain file"
        raise FileError(f"'{output}' must be a file to be written, but it is {kind}; name a file")
    if not overwrite:
        raise FileError(f"an existing file is replaced only on request, but '{output}' exists; {remedy}")


def check_ending(output: Path, ending: str, *, must_end: bool = False) -> None:
    """Check that the ending of a file's name matches its content.

    Args:
        output: the file.
        ending: key of ``ENDINGS``; "" for content of another kind.
        must_end: whether the name must have this ending, because readers rely on it.

    Raises:
        FileError: the name has the ending of another kind, or lacks the required ending.
    """
    found = output.suffix
    if must_end and found != ending:
        raise FileError(f"'{output}' must end in {ending}, on which its readers rely; add that ending")
    if found in ENDINGS and found != ending:
        own, better = (ENDINGS[ending], f"end it in {ending}") if ending else ("something else", "leave that ending out")
        raise FileError(f"a file's ending must match its content, but '{output}' would be {own}, not {ENDINGS[found]}; {better}")


def check_output_folder(output: Path, *, overwrite: bool, remedy: str = "name another folder or add --overwrite") -> None:
    """Check that a folder can be written, before the work that produces it; it may exist if it is empty.

    Args:
        output: the folder.
        overwrite: whether an existing folder that is not empty may be replaced.
        remedy: next step in the message about such a folder.

    Raises:
        FileError: the folder is not empty and may not be replaced, is no folder, or its parent does not exist or cannot be written.
    """
    check_folder(output)
    if not _exists(output):
        return
    if not output.is_dir():
        raise FileError(f"'{output}' must be a folder to be written, but it is a file; name another")
    if not overwrite and any(output.iterdir()):
        raise FileError(f"an existing folder is replaced only on request, but '{output}' exists and is not empty; {remedy}")


def check_folder(output: Path) -> None:
    """Check that the parent folder of ``output`` exists and can be written; leftovers of killed processes in it are removed.

    Raises:
        FileError: the parent folder does not exist or cannot be written.
    """
    folder = output.absolute().parent
    try:
        there = folder.is_dir()
        if there:
            remove_parts(folder, output)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FileError(f"'{output}' must be in a folder that can be written, but {reason_of(error)}; choose another") from error
    if not there:
        raise FileError(f"'{output}' must be in a folder that exists, but '{output.parent}' does not; create it")


def _exists(output: Path) -> bool:
    try:
        return os.path.lexists(output) or output.exists()
    except (OSError, ValueError) as error:
        raise FileError(f"'{output}' must be a name that can be written, but {reason_of(error)}; choose another") from error
