"""``ofa predictor``: fits an accuracy predictor to measured networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, progress_bar
from ofa.cli.outputs import check_folder

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from ofa.arch import Arch
    from ofa.space import Space

__all__ = ["fit", "fit_predictor", "register"]

_EXAMPLE = "Example: ofa predictor fit digits.run --nets 100 -o digits.predictor"


def register(app: typer.Typer) -> None:
    """Add ``ofa predictor``."""
    group = typer.Typer(help="Accuracy predictors: how accurate each network of a space is.", no_args_is_help=True)
    group.callback()(_group)
    group.command("fit", epilog=_EXAMPLE)(fit)
    app.add_typer(group, name="predictor")


def _group() -> None:
    # With a callback, a group of one command keeps that command's name.
    pass


def fit(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CSV", help="Folder that `ofa train` wrote, or a CSV file with the columns arch and accuracy.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PREDICTOR", help="Where to write the predictor.")],
    nets: Annotated[int, typer.Option(min=10, help="Networks of the run to measure, from the smallest to the largest.")] = 100,
    classes: Annotated[int | None, typer.Option(min=2, help="Classes, for a CSV file of a space with another number.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the networks and of the cross-validation.")] = 0,
    json: JsonOption = False,
) -> None:
    """Measure networks of a trained supernet, and learn to predict the accuracy of all others."""
    report = fit_predictor(source, output, nets=nets, classes=classes, seed=seed)
    emit(report, json=json, render=lambda: _render(report))


def fit_predictor(source: Path, output: Path, *, nets: int, classes: int | None, seed: int) -> dict[str, Any]:
    """Fit a predictor to a run or to a CSV file, and write it.

    Args:
        source: the run's folder, or the CSV file.
        output: the predictor's file.
        nets: how many networks of a run are measured.
        classes: number of classes of a CSV file's networks; None for their space's own.
        seed: of networks and folds.

    Returns:
        the JSON object of ``ofa predictor fit --json``.

    Raises:
        OfaError: the source cannot be read, or does not suffice for a predictor.
    """
    import numpy as np

    from search.predictor import AccuracyPredictor

    check_folder(output)
    rng = np.random.default_rng(seed)
    space, archs, accuracies = _from_csv(source, classes) if source.is_file() else _from_run(source, nets, rng)
    predictor = AccuracyPredictor.fit(space, archs, accuracies, rng)
    predictor.save(output)
    span = {"least_accuracy": float(min(accuracies)), "greatest_accuracy": float(max(accuracies))}
    return {"space": space.name, **predictor.provenance, **span, "seed": seed, "predictor": str(output)}


def _from_csv(path: Path, classes: int | None) -> tuple[Space, list[Arch], np.ndarray[Any, Any]]:
    from ofa.errors import FileError
    from ofa.families import get_space
    from search.predictor import read_results

    archs, accuracies = read_results(path)
    if not archs:
        raise FileError(f"'{path}' must have a row for each network, but has none; measure some")
    return get_space(archs[0].space, classes), archs, accuracies


def _from_run(folder: Path, nets: int, rng: np.random.Generator) -> tuple[Space, list[Arch], np.ndarray[Any, Any]]:
    from ofa.training import load_run
    from search.accuracy import MeasuredAccuracy
    from search.predictor import sample_stratified

    run = load_run(folder)
    data = run.recipe.load_splits()
    archs = sample_stratified(run.supernet.space, nets, rng)
    with progress_bar(f"networks of {run.supernet.space.name}") as progress:
        accuracies = MeasuredAccuracy(run.supernet, data.selection, data.train, progress=progress)(archs)
    return run.supernet.space, archs, accuracies


def _render(report: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table("what", "value", show_header=False, title=report["predictor"])
    table.add_row("space", report["space"])
    table.add_row("networks", str(report["networks"]))
    table.add_row("their accuracies", f"{100 * report['least_accuracy']:.1f} .. {100 * report['greatest_accuracy']:.1f} %")
    table.add_row("regression", report["model"])
    table.add_row("Kendall tau on networks not seen", f"{report['kendall_tau']:.3f}")
    table.add_row("RMSE on networks not seen", f"{100 * report['rmse']:.2f} points")
    return table
