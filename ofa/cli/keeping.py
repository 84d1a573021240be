"""Journals of long commands: finished steps are kept beside the output, or beside the examined file, until the command ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import remark
from ofa.cli.outputs import check_folder, check_output, check_output_folder
from ofa.errors import BudgetError, FileError
from ofa.locking import writing

if TYPE_CHECKING:
    from ofa.journal import Journal, Steps

__all__ = ["ResumeOption", "answering", "has_ended", "making"]

ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue after the finished steps of the same, interrupted command.")]


@contextmanager
def making(
    output: Path,
    work: str,
    *,
    doing: str,
    resume: bool,
    overwrite: bool,
    inputs: Mapping[str, Any],
    folder: bool = False,
    ending: str | None = None,
    adds: bool = False,
    remedy: str = "",
) -> Iterator[Journal]:
    """Hold the write lock of a file or folder, and keep the command's steps; checks first that output and journal can be written.

    Args:
        output: path of the output.
        work: name of the command, for the journal's file name.
        doing: words for the work, for the message to other processes that want to write.
        resume: whether to continue after the kept steps.
        overwrite: whether to replace existing output, and to discard kept steps.
        inputs: options that the steps depend on.
        folder: whether ``output`` is a folder.
        ending: required ending of the file's name, as of ``ofa.outputs.check_ending``.
        adds: whether the command adds to existing output, so that nothing is lost.
        remedy: next step if the output exists; "" for the usual words.

    Raises:
        FileError: output or journal cannot be written, or exist and are neither to be replaced nor to be continued.
    """
    check = check_output_folder if folder else partial(check_output, ending=ending)
    words: dict[str, Any] = {"remedy": remedy} if remedy else {}
    settings = {"doing": doing, "resume": resume, "overwrite": overwrite, "inputs": inputs}
    with writing(output, doing):
        check(output, overwrite=overwrite or resume or adds, **words)
        with _journal(_beside(output, work), **settings) as journal:
            yield journal


def has_ended(output: Path, journal: Journal, *, resume: bool, overwrite: bool) -> bool:
    """Whether a resumed command has nothing left to do: its output exists, and no step is kept. Prints a remark then."""
    ended = resume and not overwrite and not journal.found and output.exists()
    if ended:
        remark(f"'{output}' exists, and there are no steps of an interrupted command: nothing is left to do; --overwrite makes it anew")
    return ended


@contextmanager
def answering(source: Path, work: str, *, doing: str, resume: bool, overwrite: bool, inputs: Mapping[str, Any]) -> Iterator[Steps]:
    """Keep the steps of a command that examines a file or folder; other inputs have another journal.

    If the journal cannot be written beside the file, nothing is kept, and a remark is printed. Arguments and errors as of ``making``.
    """
    from ofa.journal import UNKEPT, digest_of

    path = _beside(source, f"{work}-{digest_of(dict(inputs))[:8]}")
    try:
        check_folder(path)
    except FileError as error:
        remark(f"measurements cannot be kept, and are lost if the command is interrupted: {error}")
        yield UNKEPT
        return
    with _journal(path, doing=doing, resume=resume, overwrite=overwrite, inputs=inputs) as journal:
        yield journal


@contextmanager
def _journal(path: Path, **settings: Any) -> Iterator[Journal]:
    from ofa.journal import Journal

    with Journal(path, **settings) as journal:
        if journal.damaged:
            remark(f"{journal.damaged} lines of '{path}' are damaged, and their steps are repeated")
        if journal.found:
            remark(f"continues after {journal.found} steps that are kept in '{path}'")
        try:
            yield journal
        except BudgetError:  # a missed budget is an answer, so the command has ended
            journal.finish()
            raise
        except BaseException:
            if len(journal):
                remark(f"{len(journal)} steps are kept in '{path}'; the same command with --resume continues after them")
            raise


def _beside(place: Path, work: str) -> Path:
    named = place if place.name and place.name != ".." else place.resolve()
    return named.with_name(f"{named.name}.{work}.journal")
