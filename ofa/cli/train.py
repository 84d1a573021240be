"""``ofa train``: from a recipe to a trained supernet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_count, format_percent, progress_bar

if TYPE_CHECKING:
    from rich.table import Table

    from ofa.data import Splits
    from ofa.supernet import Supernet
    from ofa.training import Recipe

__all__ = ["register", "train", "train_recipe"]

_EXAMPLE = "Example: ofa train digits.toml -o digits.run --set seed=1 --set phases.full.epochs=4"


def register(app: typer.Typer) -> None:
    """Add ``ofa train``."""
    app.command("train", epilog=_EXAMPLE)(train)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The recipe.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder to write: weights, recipe and metrics.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; a dot leads into a table or a phase.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is already there.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a supernet by a recipe."""
    from ofa.training import Recipe
    from ofa.training.memory import keep_freed_memory

    keep_freed_memory()
    report = train_recipe(Recipe.load(config, changes or ()), output, overwrite=overwrite)
    emit(report, json=json, render=lambda: _render(report))


def train_recipe(recipe: Recipe, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Train a supernet and write its run.

    Args:
        recipe: what to do.
        output: the folder; the one it stands in must exist.
        overwrite: whether a run that is there may be replaced.

    Returns:
        the JSON object of ``ofa train --json``. Its accuracies are those of calibrated networks on the selection part.

    Raises:
        OfaError: the data or the folder cannot be used, a run is there already, or training fails.
    """
    import ofa.training as training
    from ofa.cli.outputs import check_folder
    from ofa.errors import FileError
    from ofa.training.checkpoint import WEIGHTS

    check_folder(output)
    if (output / WEIGHTS).exists() and not overwrite:
        raise FileError(f"'{output}' must not hold a run yet, but has {WEIGHTS}; choose another folder or add --overwrite")
    splits = recipe.load_splits()
    supernet = recipe.build_supernet(splits.train.num_classes)
    training.begin_run(output, recipe)
    with progress_bar(f"training {recipe.space}") as progress:
        metrics = training.train(
            supernet,
            recipe,
            splits.train,
            generator=recipe.generator("training"),
            rng=recipe.rng("training"),
            progress=progress,
            on_metrics=lambda epoch: training.append_metrics(output, epoch),
        )
    training.save_run(output, supernet, recipe, metrics)
    return {
        "run": str(output),
        "space": recipe.space,
        "data": recipe.data,
        "train_images": len(splits.train),
        "selection_images": len(splits.selection),
        "epochs": len(metrics),
        "loss": metrics[-1].loss,
        "duration_s": sum(epoch.duration_s for epoch in metrics),
        "networks": list(_ends(supernet, splits)),
    }


def _ends(supernet: Supernet, splits: Splits) -> Iterator[dict[str, Any]]:
    """The smallest and the largest network at each end of the resolutions."""
    from ofa.calibrate import calibrate
    from ofa.cost import costs
    from ofa.families import lower
    from ofa.training import evaluate

    space = supernet.space
    for resolution in sorted({space.resolutions[0], space.resolutions[-1]}):
        for name, arch in (("smallest", space.smallest(resolution)), ("largest", space.largest(resolution))):
            network = supernet.extract(arch)
            calibrate(network, splits.train, resolution=resolution)
            accuracy = evaluate(network, splits.selection, resolution=resolution)
            yield {"network": name, "resolution": resolution, "accuracy": accuracy, **costs(lower(space, arch))}


def _render(report: dict[str, Any]) -> Table:
    from rich.table import Table

    title = f"{report['run']}: {report['space']} on {report['data']}, {report['epochs']} epochs in {report['duration_s']:.0f} s"
    caption = f"accuracy of calibrated networks on {report['selection_images']} images that were not trained on"
    table = Table("network", "input", "accuracy", "MACs", "parameters", title=title, caption=caption)
    for row in report["networks"]:
        costs = (format_count(row["macs"]), format_count(row["params"]))
        table.add_row(row["network"], f"{row['resolution']} px", format_percent(row["accuracy"]), *costs)
    return table
