"""A run as commands take it: where its supernet computes, where its images are now, and what is said of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ofa.cli.console import progress_bar, remark

if TYPE_CHECKING:
    from ofa.data import Splits
    from ofa.training import DataChanges, Run, RunData

__all__ = ["DataOption", "OnOption", "TestDataOption", "changes_of", "load_run_data", "place_run", "say_changes", "say_left_out"]

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="The images, in place of those that are named; a run compares them with its record.",
    ),
]
TestDataOption = Annotated[str | None, typer.Option("--test-data", metavar="PATH", help="The images to test on, in the same way.")]


OnOption = Annotated[
    str | None, typer.Option("--on", metavar="PLACE", help="Where to compute: cpu, cuda or cuda:1; a GPU if there is one.")
]


def place_run(run: Run, on: str | None) -> None:
    """Move the supernet of a run to where it is to compute, ``cpu``, ``cuda`` or ``cuda:N``; None is a GPU if there is one.

    Raises:
        DeviceError: it is not there.
    """
    import torch

    from ofa.training.distributed import compute_device

    place = compute_device(on)
    if place.type == "cuda":
        torch.cuda.set_device(place)  # what takes the current GPU, such as page-locked memory, is to find this one
    run.supernet.to(place)


def changes_of(**options: str | None) -> list[str]:
    """The changes of a recipe that options of their own say, by their keys."""
    return [f"{key}={json.dumps(text)}" for key, text in options.items() if text is not None]


def load_run_data(run: Run, *, data: str | None = None, test_data: str | None = None) -> RunData:
    """Read the images of a run and say what changed since it began.

    Raises:
        OfaError: they cannot be found, or are not the run's.
    """
    with progress_bar(f"reading {data or run.recipe.data}") as progress:
        found = run.load_data(data=data or "", test_data=test_data or "", progress=progress)
    say_changes(found.changes)
    say_left_out(found.splits)
    return found


def say_changes(changes: DataChanges) -> None:
    """Say on stderr what a person should know of the data."""
    for sentence in changes.sentences():
        remark(sentence)


def say_left_out(splits: Splits) -> None:
    """Say on stderr which files are left out, and why."""
    from ofa.data import left_out_sentences

    # Each part knows of all that its source left out.
    for sentence in left_out_sentences(tuple(dict.fromkeys(each for part in splits for each in part.left_out))):
        remark(sentence)
