"""Commands of minutes keep each of their steps in a journal beside what they write or ask about, until they have ended."""

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

ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with what the same command did before it was cut off.")]


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
    """Be the one writer of a file or folder, and keep the steps of the command; that both can be written is seen before any work.

    Args:
        output: what it writes.
        work: a word for it, in the name of the journal.
        doing: what it does, for whoever is refused meanwhile.
        resume: whether it goes on with steps that are kept.
        overwrite: whether what is there may be replaced, and steps that are kept given up.
        inputs: options that decide the steps.
        folder: whether ``output`` is a folder.
        ending: of a file, as ``ofa.outputs.check_ending``.
        adds: whether it adds to what is there, so that nothing is lost.
        remedy: what the user can do about an output that is there; "" for the usual words.

    Raises:
        FileError: the output or the journal cannot be written, or is there and is neither to be replaced nor to be gone on with.
    """
    check = check_output_folder if folder else partial(check_output, ending=ending)
    words: dict[str, Any] = {"remedy": remedy} if remedy else {}
    settings = {"doing": doing, "resume": resume, "overwrite": overwrite, "inputs": inputs}
    with writing(output, doing):
        check(output, overwrite=overwrite or resume or adds, **words)
        with _journal(_beside(output, work), **settings) as journal:
            yield journal


def has_ended(output: Path, journal: Journal, *, resume: bool, overwrite: bool) -> bool:
    """Whether a command that is to go on has nothing left to do: its output is there, and no step is kept. That is said."""
    ended = resume and not overwrite and not journal.found and output.exists()
    if ended:
        remark(f"'{output}' is there, and no step of a command that was cut off: nothing is left to do; --overwrite makes it anew")
    return ended


@contextmanager
def answering(source: Path, work: str, *, doing: str, resume: bool, overwrite: bool, inputs: Mapping[str, Any]) -> Iterator[Steps]:
    """Keep the steps of a command that answers a question about a file or folder; another question has another journal.

    Where nothing can be written beside the file, nothing is kept, and that is said. Arguments and errors as of ``making``.
    """
    from ofa.journal import UNKEPT, digest_of

    path = _beside(source, f"{work}-{digest_of(dict(inputs))[:8]}")
    try:
        check_folder(path)
    except FileError as error:
        remark(f"what is measured is lost if this is cut off, for it cannot be kept: {error}")
        yield UNKEPT
        return
    with _journal(path, doing=doing, resume=resume, overwrite=overwrite, inputs=inputs) as journal:
        yield journal


@contextmanager
def _journal(path: Path, **settings: Any) -> Iterator[Journal]:
    from ofa.journal import Journal

    with Journal(path, **settings) as journal:
        if journal.damaged:
            remark(f"{journal.damaged} lines of '{path}' are damaged, and their steps are done again")
        if journal.found:
            remark(f"goes on after {journal.found} steps that are kept in '{path}'")
        try:
            yield journal
        except BudgetError:  # which is an answer
            journal.finish()
            raise
        except BaseException:
            if len(journal):
                remark(f"{len(journal)} steps are kept in '{path}'; the same command with --resume goes on after them")
            raise


def _beside(place: Path, work: str) -> Path:
    named = place if place.name and place.name != ".." else place.resolve()
    return named.with_name(f"{named.name}.{work}.journal")
