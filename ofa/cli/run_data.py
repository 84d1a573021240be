"""Options of commands on a run: the processor of its supernet, and the present paths of its images."""

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
        help="The images, if not at the recorded path; they are compared with the run's record.",
    ),
]
TestDataOption = Annotated[str | None, typer.Option("--test-data", metavar="PATH", help="The test images, likewise.")]


OnOption = Annotated[
    str | None, typer.Option("--on", metavar="PLACE", help="Where to compute: cpu, cuda or cuda:1; by default a GPU if there is one.")
]


def place_run(run: Run, on: str | None) -> None:
    """Move the supernet of a run to ``cpu``, ``cuda`` or ``cuda:N``; None for a GPU if there is one.

    Raises:
        DeviceError: this machine lacks the GPU.
    """
    import torch

    from ofa.training.distributed import compute_device

    place = compute_device(on)
    if place.type == "cuda":
        torch.cuda.set_device(place)  # for code that uses the current GPU, such as page-locked memory
    run.supernet.to(place)


def changes_of(**options: str | None) -> list[str]:
    """Changes of a recipe from separate options, as ``KEY=VALUE``."""
    return [f"{key}={json.dumps(text)}" for key, text in options.items() if text is not None]


def load_run_data(run: Run, *, data: str | None = None, test_data: str | None = None) -> RunData:
    """Read the images of a run and print remarks about changes since it began.

    Raises:
        OfaError: the images cannot be found, or are not the run's.
    """
    with progress_bar(f"reading {data or run.recipe.data}") as progress:
        found = run.load_data(data=data or "", test_data=test_data or "", progress=progress)
    say_changes(found.changes)
    say_left_out(found.splits)
    return found


def say_changes(changes: DataChanges) -> None:
    """Print remarks about changed data on stderr."""
    for sentence in changes.sentences():
        remark(sentence)


def say_left_out(splits: Splits) -> None:
    """Print a remark about files that are left out, with reasons, on stderr."""
    from ofa.data import left_out_sentences

    # Each part lists all files that its source left out.
    for sentence in left_out_sentences(tuple(dict.fromkeys(each for part in splits for each in part.left_out))):
        remark(sentence)
