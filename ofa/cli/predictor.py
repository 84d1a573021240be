"""``ofa predictor``: fits an accuracy predictor to measured networks; ``ofa.cli.losses`` has the losses by quantization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, progress_bar, warn
from ofa.cli.keeping import ResumeOption, has_ended, making
from ofa.cli.losses import EXAMPLE, quantization
from ofa.cli.outputs import PARQUET, OverwriteOption
from ofa.cli.run_data import DataOption, OnOption, TestDataOption, load_run_data, place_run
from ofa.cli.sheets import facts
from ofa.cli.spaces import TrustOption, check_named, named

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from ofa.data import Splits
    from ofa.journal import Steps
    from ofa.training import Run
    from search.predictor.accuracy_predictor import AccuracyPredictor

__all__ = ["fit", "fit_predictor", "register"]

_EXAMPLE = "Example: ofa predictor fit run --nets 60 -o run.predictor"
_ROUNDS = 8


def register(app: typer.Typer) -> None:
    """Add ``ofa predictor``."""
    about = "Accuracy predictors: how accurate each network of a space is."
    group = typer.Typer(help=about, epilog=_EXAMPLE, no_args_is_help=True)
    group.command("fit", epilog=_EXAMPLE)(fit)
    group.command("quantization", epilog=EXAMPLE)(quantization)
    app.add_typer(group, name="predictor")


def fit(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CSV",
            help="Folder that `ofa train` wrote, or a CSV file with arch or resolution, depths, kernels and expands, "
            "and accuracy or top1_percent.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PREDICTOR", help="Where to write the predictor.")],
    nets: Annotated[int, typer.Option(min=10, help="Networks of the run to measure.")] = 100,
    rounds: Annotated[
        int,
        typer.Option(
            min=0, help="Rounds of active learning, which choose networks near the front or with uncertain accuracy; 0: evenly over MACs."
        ),
    ] = _ROUNDS,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="SPACE",
            help="Space of a CSV file without a column arch; of a run only if its class is your own.",
        ),
    ] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Number of classes for a CSV file, if other than the space's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the networks and of the cross-validation.")] = 0,
    data: DataOption = None,
    test_data: TestDataOption = None,
    trust: TrustOption = False,
    on: OnOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Measure networks of a trained supernet, and learn to predict the accuracy of all others.

    Every measurement is kept at once: an interrupted command continues with --resume.
    """
    if on is not None and source.is_file():
        raise typer.BadParameter("it is for measuring networks of a RUN; leave it out for a CSV file.", param_hint="--on")
    report = fit_predictor(
        source,
        output,
        nets=nets,
        rounds=rounds,
        space=space,
        classes=classes,
        seed=seed,
        data=data,
        test_data=test_data,
        trust=trust,
        on=on,
        resume=resume,
        overwrite=overwrite,
    )
    emit(report, json=json, render=lambda: _render(report), warnings=warn(report.pop("warnings")))


def fit_predictor(
    source: Path,
    output: Path,
    *,
    nets: int,
    classes: int | None,
    seed: int,
    rounds: int = _ROUNDS,
    space: str | None = None,
    data: str | None = None,
    test_data: str | None = None,
    trust: bool = False,
    on: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fit a predictor to a run or to a CSV file, and write it.

    Args:
        source: the run's folder, or the CSV file.
        output: the predictor's file.
        nets: number of networks of a run to measure.
        classes: number of classes of a CSV file's networks; None for the space's.
        seed: seed of networks and folds.
        rounds: rounds of active learning, as of ``search.predictor.active_learning.fit_actively``.
        space: the user's name of the space: of a CSV file that does not name it, or of a run if its class is the user's own.
        data: present path of a run's images, if they moved.
        test_data: present path of its test images, if they moved.
        trust: whether to import a ``module:attribute`` that the run names.
        on: processor that measures a run's networks: ``cpu``, ``cuda`` or ``cuda:N``; None for a GPU if there is one.
        resume: whether to continue after the measurements of an interrupted command.
        overwrite: whether an existing file may be replaced.

    Returns:
        The JSON object of ``ofa predictor fit --json``, with warnings about the predictor in the list ``warnings``.

    Raises:
        OfaError: the source cannot be read, or does not suffice for a predictor.
    """
    import numpy as np

    from ofa.training import load_run
    from search.predictor.accuracy_predictor import AccuracyPredictor

    rng = np.random.default_rng(seed)
    changes: dict[str, Any] = {}
    images: int | None = None
    inputs = {"seed": seed, "nets": nets, "rounds": rounds}
    kept: Any = {"resume": resume, "overwrite": overwrite, "inputs": inputs, "ending": PARQUET}
    with making(output, "fit", doing="fitting a predictor", **kept) as journal:
        if has_ended(output, journal, resume=resume, overwrite=overwrite):
            return _report(AccuracyPredictor.load(output), output, seed)
        if source.is_file():
            predictor = _from_csv(source, space, classes, rng)
        else:
            wanted = named(space)
            run = load_run(source, trust=trust)
            check_named(wanted, run.supernet.space, f"'{source}'")
            place_run(run, on)
            found = load_run_data(run, data=data, test_data=test_data)
            predictor, changes = _from_run(run, found.splits, nets, rounds, rng, journal), {"data_changes": found.changes.to_json()}
            images = len(found.splits.selection)
        predictor.save(output)
    return {**_report(predictor, output, seed, images), **changes}


def _report(predictor: AccuracyPredictor, output: Path, seed: int, images: int | None = None) -> dict[str, Any]:
    """The report about a predictor, with warnings."""
    from search.advice import advice_on_accuracy, advice_on_predictor

    low, high = predictor.span
    of_accuracies = advice_on_accuracy(
        high, predictor.space.num_classes, what="the most accurate network", images=images, metric=predictor.info.metric
    )
    warnings = [*of_accuracies, *advice_on_predictor(predictor.provenance)]
    span = {"least_accuracy": low, "greatest_accuracy": high}
    about = {"space": predictor.space_name, **predictor.provenance, **span, "seed": seed, "predictor": str(output)}
    return {**about, "warnings": warnings}


def _from_csv(path: Path, name: str | None, classes: int | None, rng: np.random.Generator) -> AccuracyPredictor:
    from ofa.families import named_space
    from ofa.training.spaces import find_space
    from search.predictor.accuracy_predictor import AccuracyPredictor
    from search.predictor.csv_results import read_results

    space = None if name is None else find_space(name, classes)
    archs, accuracies = read_results(path, space)
    return AccuracyPredictor.fit(space or named_space(archs[0].space, classes), archs, accuracies, rng)


def _from_run(run: Run, data: Splits, nets: int, rounds: int, rng: np.random.Generator, steps: Steps) -> AccuracyPredictor:
    from search.predictor.active_learning import fit_to_supernet

    with progress_bar(f"networks of {run.supernet.space.name}") as progress:
        task = run.recipe.get_task()
        return fit_to_supernet(run.supernet, data, nets=nets, rounds=rounds, rng=rng, progress=progress, task=task, steps=steps)


def _render(report: dict[str, Any]) -> RenderableType:
    from ofa.resolution import pixels

    low, high = report["resolutions"][0], report["resolutions"][-1]
    rows = [
        ("space", f"{report['space']}, {pixels(high)}" if low == high else f"{report['space']}, {low} to {pixels(high)}"),
        ("networks", str(report["networks"])),
        (
            f"their {'accuracies' if report['metric'] == 'accuracy' else report['metric']}, measured",
            f"{100 * report['least_accuracy']:.1f} .. {100 * report['greatest_accuracy']:.1f} %",
        ),
        ("regression", report["model"]),
    ]
    for words, trust in (("", report), (f", the {_fair(report)} evenly chosen alone", report.get("fair_sample"))):
        if trust is not None:
            rows.append((f"Kendall tau on unseen networks{words}", f"{trust['kendall_tau']:.3f}"))
            rows.append((f"RMSE on unseen networks{words}", f"{100 * trust['rmse']:.3f} points"))
    width = f"± {100 * report['half_width']:.3f} points on average"
    rows.append(("90 % intervals", f"cover {100 * report['coverage']:.0f} % of unseen networks, {width}"))
    return facts(rows, title=report["predictor"])


def _fair(report: dict[str, Any]) -> int:
    return int(report.get("fair_sample", {}).get("networks", 0))
