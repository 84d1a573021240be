"""``ofa train``: from a recipe to a trained supernet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, console, emit, format_count, format_percent, progress_bar
from ofa.cli.run_data import DataOption, TestDataOption, say_changes, say_skipped
from ofa.progress import silent

if TYPE_CHECKING:
    from rich.table import Table

    from ofa.data import Splits
    from ofa.supernet import Supernet
    from ofa.training import DataRecord, EpochMetrics, Recipe, Setback, TrainingState
    from ofa.training.distributed import World

__all__ = ["register", "train", "train_recipe"]

_EXAMPLE = "Example: ofa train digits.toml -o digits.run --set seed=1 --set phases.full.epochs=4"
_SECONDS_BETWEEN_STATES = 30.0


def register(app: typer.Typer) -> None:
    """Add ``ofa train``."""
    app.command("train", epilog=_EXAMPLE)(train)


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG.toml", help="The recipe: a file, or the name of one that comes with ofa.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="RUN", help="Folder to write: weights, recipe, metrics and checkpoints.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; a dot leads into a table or a phase.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that stopped; begins one if there is none.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the phases, the memory and the expected time after timing a few steps.")
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="Where to train: cpu, cuda or cuda:1; a GPU if there is one.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write the metrics for TensorBoard, into RUN.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is already there.")] = False,
    data: DataOption = None,
    test_data: TestDataOption = None,
    json: JsonOption = False,
) -> None:
    """Train a supernet by a recipe, on one processor or, under torchrun, on several."""
    from ofa.cli.dry_run import dry_run_recipe, render_dry_run
    from ofa.training.distributed import joined
    from ofa.training.memory import keep_freed_memory
    from ofa.training.presets import load_recipe

    keep_freed_memory()
    recipe = load_recipe(config, changes or ())
    if output is None and not dry_run:
        raise typer.BadParameter("name the folder to write, for example -o digits.run", param_hint="--output")
    if (data or test_data) and not resume:
        raise typer.BadParameter("it is for a run that goes on; name other images with --set data=PATH.", param_hint="--data")
    with joined(device) as world:
        if dry_run:
            report = dry_run_recipe(recipe, world)
        else:
            assert output is not None
            report = train_recipe(
                recipe, output, overwrite=overwrite, resume=resume, tensorboard=tensorboard, world=world, data=data, test_data=test_data
            )
        if world.is_first:
            emit(report, json=json, render=lambda: render_dry_run(report) if dry_run else _render(report))


def train_recipe(
    recipe: Recipe,
    output: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
    world: World | None = None,
    data: str | None = None,
    test_data: str | None = None,
) -> dict[str, Any]:
    """Train a supernet and write its run.

    Args:
        recipe: what to do.
        output: the folder; the one it stands in must exist.
        overwrite: whether a run that is there may be replaced.
        resume: go on with the run that is there.
        tensorboard: also write event files.
        world: the processes that train together; the first of them writes.
        data: where the images of a run that goes on are now, if they moved.
        test_data: where those to test on are now, if they moved.

    Returns:
        the JSON object of ``ofa train --json``. Its accuracies are those of calibrated networks on the selection part.

    Raises:
        OfaError: the data or the folder cannot be used, a run is there already, or training fails.
    """
    import ofa.training as training
    from ofa.cli.outputs import check_folder
    from ofa.training.distributed import ALONE

    world = world or ALONE
    check_folder(output)
    state, earlier = _stand(recipe, output, overwrite=overwrite, resume=resume, world=world)
    own, record = _begun(recipe, output) if resume else (recipe, None)
    own = replace(own, data=data or own.data, test_data=test_data or own.test_data)
    world.wait()  # none may see what the first begins to write
    with _bar(f"reading {own.data}", world) as progress:
        if state is None and record is None:
            found = training.first_data(own, progress)
        else:
            found = training.data_of_run(own, record, exact=True, progress=progress)
    splits = found.splits
    if world.is_first:
        say_changes(found.changes)
        say_skipped(splits)
    supernet = recipe.build_supernet(splits.train.num_classes).to(world.device)
    if state is None and world.is_first:
        training.begin_run(output, own, found.record)
    with ExitStack() as stack:
        writer = _Writer(output, recipe, world, stack, tensorboard=tensorboard)
        later = training.train(
            supernet,
            recipe,
            splits.train,
            selection=splits.selection,
            world=world,
            state=state,
            progress=stack.enter_context(_bar(f"training {supernet.space.name}", world)),
            on_metrics=writer.on_metrics,
            on_state=writer.on_state,
            on_setback=writer.on_setback,
        )
    metrics = [*earlier, *later]
    if world.is_first:
        training.save_run(output, supernet, own, metrics)
    return {
        "run": str(output),
        "space": supernet.space.name,
        "data": recipe.data,
        "train_images": len(splits.train),
        "selection_images": len(splits.selection),
        "epochs": len(metrics),
        "loss": metrics[-1].loss,
        "duration_s": sum(epoch.duration_s for epoch in metrics),
        "networks": list(_ends(supernet, splits)) if world.is_first else [],
        "data_changes": found.changes.to_json(),
    }


def _begun(recipe: Recipe, output: Path) -> tuple[Recipe, DataRecord | None]:
    """The recipe of a run that goes on, which finds its images from any folder, and its record of them."""
    import ofa.training as training
    from ofa.training.checkpoint import CONFIG

    if not (output / CONFIG).exists():
        return recipe, None
    return training.own_recipe(output, recipe), training.DataRecord.load(output)


def _stand(
    recipe: Recipe, output: Path, *, overwrite: bool, resume: bool, world: World
) -> tuple[TrainingState | None, tuple[EpochMetrics, ...]]:
    """Where the run in a folder stands; nothing of it if there is none, or if it may be replaced."""
    import ofa.training as training
    from ofa.errors import FileError
    from ofa.training.checkpoint import CONFIG, WEIGHTS

    if resume and (output / WEIGHTS).exists():
        raise FileError(f"a run that goes on must not have ended, but '{output}' has {WEIGHTS}; query it, or train anew with --overwrite")
    if resume and (output / CONFIG).exists():
        return training.continue_run(output, recipe, write=world.is_first)
    if (output / WEIGHTS).exists() and not overwrite:
        raise FileError(f"'{output}' must not hold a run yet, but has {WEIGHTS}; choose another folder or add --overwrite")
    if (output / CONFIG).exists() and not overwrite:
        raise FileError(f"'{output}' must not hold a run yet, but has one that has not ended; add --resume to go on or --overwrite")
    return None, ()


class _Writer:
    """Writes what a run tells, if this is the process that writes."""

    def __init__(self, output: Path, recipe: Recipe, world: World, stack: ExitStack, *, tensorboard: bool) -> None:
        from ofa.training.tensorboard import board

        self._output, self._recipe, self._first = output, recipe, world.is_first
        self._board = stack.enter_context(board(output)) if tensorboard and self._first else None
        self._latest = time.monotonic()

    def on_metrics(self, epoch: EpochMetrics) -> None:
        from ofa.training import append_metrics

        if self._first:
            append_metrics(self._output, epoch)
            if self._board is not None:
                self._board.write(epoch)

    def on_state(self, state: TrainingState) -> None:
        from ofa.training import save_state

        # A run that goes on from an older state ends the same, so states are written no oftener than is worth the disk's time.
        if self._first and (time.monotonic() - self._latest >= _SECONDS_BETWEEN_STATES or not state.step):
            save_state(self._output, self._recipe, state)
            self._latest = time.monotonic()

    def on_setback(self, setback: Setback) -> None:
        if self._first:
            console.print(
                f"ofa: {setback.reason} in phase {setback.phase}, epoch {setback.epoch}, so training goes back from step {setback.step} to "
                f"{setback.back_to} and on with {setback.rate_factor:g} times the recipe's learning rates",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _bar(description: str, world: World) -> Any:
    from contextlib import nullcontext

    return progress_bar(description) if world.is_first else nullcontext(silent)


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
