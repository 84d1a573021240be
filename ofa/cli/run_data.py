"""The images of a run, as commands find them: where they are now, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ofa.cli.console import console, progress_bar

if TYPE_CHECKING:
    from ofa.data import Splits
    from ofa.training import DataChanges, Run, RunData

__all__ = ["DataOption", "TestDataOption", "load_run_data", "say", "say_changes", "say_skipped"]

DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help="Where the run's images are now, if they moved; they are compared with its record."),
]
TestDataOption = Annotated[
    str | None, typer.Option("--test-data", metavar="PATH", help="Where the run's images to test on are now, if they moved.")
]


def load_run_data(run: Run, *, data: str | None = None, test_data: str | None = None) -> RunData:
    """Read the images of a run and say what changed since it began.

    Raises:
        OfaError: they cannot be found, or are not the run's.
    """
    with progress_bar(f"reading {data or run.recipe.data}") as progress:
        found = run.load_data(data=data or "", test_data=test_data or "", progress=progress)
    say_changes(found.changes)
    say_skipped(found.splits)
    return found


def say_changes(changes: DataChanges) -> None:
    """Say on stderr what a person should know of the data."""
    for sentence in changes.sentences():
        say(sentence)


def say_skipped(splits: Splits) -> None:
    """Say on stderr which images are left out because they cannot be read."""
    skipped = tuple(dict.fromkeys(name for part in splits for name in part.skipped))  # each part knows of all of its source
    if skipped:
        names = ", ".join(skipped[:3]) + (" ..." if len(skipped) > 3 else "")
        subject, verb = ("1 image", "is") if len(skipped) == 1 else (f"{len(skipped):,} images", "are")
        say(f"{subject} cannot be read and {verb} skipped: {names}")


def say(sentence: str) -> None:
    """Say something on stderr."""
    console.print(f"ofa: {sentence}", markup=False, highlight=False, soft_wrap=True)
