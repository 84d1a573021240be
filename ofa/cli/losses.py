"""``ofa predictor quantization``: predicts the accuracy loss in int8 of a run's networks from some quantized ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, progress_bar, warn
from ofa.cli.keeping import ResumeOption, has_ended, making
from ofa.cli.outputs import PARQUET, OverwriteOption
from ofa.cli.run_data import DataOption, OnOption, TestDataOption, load_run_data, place_run
from ofa.cli.sheets import facts
from ofa.cli.spaces import OwnSpaceOption, TrustOption, check_named, named

if TYPE_CHECKING:
    from rich.console import RenderableType

    from search.predictor.quantization import QuantizationLoss

__all__ = ["EXAMPLE", "quantization"]

EXAMPLE = "Example: ofa predictor quantization run --precision int8 -o int8.losses"
_NETS = 16


def quantization(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `ofa train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="LOSSES", help="File to write the losses to.")],
    precision: Annotated[str, typer.Option(metavar="NAME", help="Precision of the quantized files.")] = "int8",
    nets: Annotated[int, typer.Option("--nets", "-n", min=10, help="Networks of the run to quantize.")] = _NETS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the networks.")] = 0,
    data: DataOption = None,
    test_data: TestDataOption = None,
    space: OwnSpaceOption = None,
    trust: TrustOption = False,
    on: OnOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Quantize networks of a trained supernet, and learn to predict the accuracy loss of all others; for `ofa search --losses`.

    Up to 128 of the run's held-out images calibrate the ranges of activations; the others give the scores. Every measurement is kept at
    once: an interrupted command continues with --resume.
    """
    import numpy as np

    from ofa.training import load_run
    from search.advice import advice_on_losses
    from search.predictor.measuring_losses import measure_losses
    from search.predictor.quantization import QuantizationLoss

    changes: dict[str, Any] = {}
    inputs = {"seed": seed, "nets": nets, "precision": precision}
    kept: Any = {"resume": resume, "overwrite": overwrite, "inputs": inputs, "ending": PARQUET}
    with making(output, "quantization", doing="measuring losses", **kept) as journal:
        if has_ended(output, journal, resume=resume, overwrite=overwrite):
            found = QuantizationLoss.load(output)
        else:
            wanted = named(space)
            loaded = load_run(run, trust=trust)
            check_named(wanted, loaded.supernet.space, f"'{run}'")
            place_run(loaded, on)
            images = load_run_data(loaded, data=data, test_data=test_data)
            with progress_bar(f"networks of {loaded.supernet.space.name}") as progress:
                found = measure_losses(
                    loaded.supernet,
                    images.splits,
                    precision=precision,
                    nets=nets,
                    rng=np.random.default_rng(seed),
                    progress=progress,
                    task=loaded.recipe.get_task(),
                    steps=journal,
                )
            changes = {"data_changes": images.changes.to_json()}
            found.save(output)
    report = {**_report(found, output, seed), **changes}
    emit(report, json=json, render=lambda: _render(report), warnings=warn(advice_on_losses(found.provenance)))


def _report(found: QuantizationLoss, output: Path, seed: int) -> dict[str, Any]:
    """The JSON object of ``ofa predictor quantization --json``."""
    least, largest = found.span
    about = {"space": found.space.name, "precision": found.precision, **found.provenance}
    return {**about, "least_loss": least, "largest_loss": largest, "seed": seed, "losses": str(output)}


def _render(report: dict[str, Any]) -> RenderableType:
    least, largest, mean = (100 * report[name] for name in ("least_loss", "largest_loss", "mean_loss"))
    rows = [
        ("space", report["space"]),
        ("networks", str(report["networks"])),
        ("quantized by", report["how"]),
        ("images", f"{report['fitted_images']} calibrate ranges, {report['judging_images']} give scores"),
        (f"{report['metric']} lost in {report['precision']}, measured", f"{mean:.2f} points on average, {least:.2f} .. {largest:.2f}"),
        ("expected of others", "predicted from genes" if report["by_genes"] else "the mean: genes do not predict the loss"),
        ("RMSE on left-out networks", f"{100 * report['rmse']:.3f} points"),
        (
            "90 % intervals",
            f"cover {100 * report['coverage']:.0f} % of left-out networks, ± {100 * report['half_width']:.3f} points on average",
        ),
    ]
    return facts(rows, title=report["losses"])
