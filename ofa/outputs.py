"""Before the work whose result a file or folder is to hold: can it be written, does its name say what it is, may what is there go?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ofa.errors import FileError
from ofa.files import reason_of, remove_parts

__all__ = ["ENDINGS", "PARQUET", "REMEDY", "check_ending", "check_folder", "check_output", "check_output_folder"]

REMEDY = "name another file or add --overwrite"
"""What can be done about a file that is there."""
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
"""What a file is by the ending of its name, which some readers go by; tables, predictors and fronts are Parquet."""


def check_output(output: Path, *, overwrite: bool, remedy: str = REMEDY, ending: str | None = None, must_end: bool = False) -> None:
    """See that a file can be written, before the work whose result it is to hold.

    Args:
        output: the file.
        overwrite: whether one that is there may be replaced.
        remedy: what the user can do about one that is there.
        ending: which of ``ENDINGS`` it is, as ``check_ending``; None where nobody chose the name.
        must_end: whether its readers know it by that ending.

    Raises:
        FileError: it is there and may not be replaced, is no file, is named as another kind of file, or its folder is not there or
            cannot be written.
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
        raise FileError(f"what is there is not replaced unasked, but '{output}' exists; {remedy}")


def check_ending(output: Path, ending: str, *, must_end: bool = False) -> None:
    """See that the name of a file does not say that it is another kind of file than it is to be.

    Args:
        output: the file.
        ending: which of ``ENDINGS`` it is; "" for what none of them means.
        must_end: whether its readers tell it by that ending from files of other kinds.

    Raises:
        FileError: it ends in another one, or must end in this one and does not.
    """
    found = output.suffix
    if must_end and found != ending:
        raise FileError(f"'{output}' must end in {ending}, by which its readers know what it is; add that ending")
    if found in ENDINGS and found != ending:
        own, better = (ENDINGS[ending], f"end it in {ending}") if ending else ("something else", "leave that ending out")
        raise FileError(f"a file's name must say what the file is, but '{output}' would be {own} and not {ENDINGS[found]}; {better}")


def check_output_folder(output: Path, *, overwrite: bool, remedy: str = "name another folder or add --overwrite") -> None:
    """See that a folder can be written, before the work whose result it is to hold; an empty one may be there.

    Args:
        output: the folder.
        overwrite: whether what is in it may be replaced.
        remedy: what the user can do about what is there.

    Raises:
        FileError: there is something in it that may not be replaced, it is no folder, or the one it stands in is not there or cannot
            be written.
    """
    check_folder(output)
    if not _exists(output):
        return
    if not output.is_dir():
        raise FileError(f"'{output}' must be a folder to be written, but it is a file; name another")
    if not overwrite and any(output.iterdir()):
        raise FileError(f"what is there is not replaced unasked, but '{output}' exists and is not empty; {remedy}")


def check_folder(output: Path) -> None:
    """Minutes of work must not end at a folder that is not there; what killed processes left in it goes now, whatever comes of the work.

    Raises:
        FileError: the folder of ``output`` does not exist, or nothing can be written there.
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
