"""``ofa train``: trains a supernet by a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_count, format_percent, progress_bar, remark, warn
from ofa.cli.outputs import check_folder
from ofa.cli.resuming import Resumption, Standing, recipe_and_run, resume_words, standing
from ofa.cli.run_data import DataOption, TestDataOption, changes_of, say_changes, say_left_out
from ofa.cli.spaces import OwnSpaceOption, TrustOption, check_named, named
from ofa.cli.stopping import Stop, stoppable
from ofa.locking import writing
from ofa.progress import silent

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ofa.running import Opened
    from ofa.training import EpochMetrics, Recipe, RunData, Setback, TrainingState
    from ofa.training.distributed import World

__all__ = ["register", "train", "train_recipe"]

_EXAMPLE = "Example: ofa train small-budget --set data=photos/ -o run\nTo go on: ofa train --resume run"


def register(app: typer.Typer) -> None:
    """Add ``ofa train``."""
    app.command("train", epilog=_EXAMPLE)(train)


def train(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG.toml", help="The recipe: a file, or a name of 'ofa recipes'. With --resume and no -o: the RUN."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="RUN", help="Folder to write: weights, recipe, metrics and checkpoints.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; dots separate tables or phases from keys.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="RUN|WEIGHTS", help="Start from the weights of a run, an import or a supernet's file; classes may differ."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted run: 'ofa train --resume RUN'. With CONFIG and -o RUN it begins one if there is none.",
        ),
    ] = False,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="With --resume: train a finished run for so many more epochs.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="With --epochs: their initial learning rate; by default a tenth of the last phase's."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the phases, the memory and the expected time after timing a few steps.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option("--on", "--device", metavar="PLACE", help="Where to train: cpu, cuda or cuda:1; by default a GPU if there is one."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write the metrics for TensorBoard, into RUN.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is already there.")] = False,
    data: DataOption = None,
    test_data: TestDataOption = None,
    space: OwnSpaceOption = None,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Train a supernet by a recipe, on one processor or, under torchrun, on several.

    Ctrl-C finishes the present step, keeps the run's state and says how to continue; a second Ctrl-C ends at once.
    """
    from ofa.cli.dry_run import dry_run_recipe, render_dry_run
    from ofa.training.distributed import joined
    from ofa.training.memory import keep_freed_memory

    keep_freed_memory()
    # Other start weights than the recipe's have another checksum.
    changes = [*(changes or ()), *changes_of(**({} if start is None else {"start.path": start, "start.sha256": ""}))]
    if not resume:
        _check_unresumed({"--epochs": epochs, "--learning-rate": learning_rate})
        changes += changes_of(data=data, test_data=test_data)
    if learning_rate is not None and epochs is None:
        raise typer.BadParameter("add --epochs, or set the recipe's rate with --set", param_hint="--learning-rate")
    if resume and overwrite:
        raise typer.BadParameter("choose one: --resume continues the run, --overwrite begins it anew", param_hint="--overwrite")
    if output is None and not resume and not dry_run:
        raise typer.BadParameter("name the folder to write, for example -o digits.run", param_hint="--output")
    if output is not None and not dry_run:
        check_folder(output)
    wanted = named(space)
    recipe, output = recipe_and_run(config, output, changes, resume=resume, trust=trust)
    check_named(wanted, recipe.get_space(), "the recipe")
    with joined(device) as world:
        if dry_run:
            report = dry_run_recipe(recipe, world)
        else:
            assert output is not None
            asked = Resumption(more_epochs=epochs, learning_rate=learning_rate, data=data, test_data=test_data)
            resumption = asked if resume else None
            report = train_recipe(recipe, output, overwrite=overwrite, resumption=resumption, tensorboard=tensorboard, world=world)
        if world.is_first:
            emit(report, json=json, render=lambda: render_dry_run(report) if dry_run else _render(report))


def _check_unresumed(options: dict[str, object]) -> None:
    """Refuse options for continued runs without ``--resume``."""
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter("it is for a continued run: add --resume, or change the recipe with --set", param_hint=name)


def train_recipe(
    recipe: Recipe,
    output: Path,
    *,
    overwrite: bool = False,
    resumption: Resumption | None = None,
    tensorboard: bool = False,
    world: World | None = None,
) -> dict[str, Any]:
    """Train a supernet and write its run.

    Args:
        recipe: the recipe.
        output: folder of the run; its parent folder must exist.
        overwrite: whether an existing run may be replaced.
        resumption: how to continue an existing run; None for a new one.
        tensorboard: whether to write TensorBoard event files as well.
        world: the processes that train together; the first one writes.

    Returns:
        The JSON object of ``ofa train --json``. Its accuracies are of calibrated networks on the selection part.

    Raises:
        OfaError: the data or the folder cannot be used, a run exists already, or training fails.
        Stopped: a signal ended training; the state is kept.
    """
    from ofa.running import open_recipe
    from ofa.training.distributed import ALONE

    world = world or ALONE
    check_folder(output)
    # Only the first of the processes that train together writes.
    with stoppable() as stop, writing(output, "training") if world.is_first else nullcontext():
        stand = standing(recipe, output, resumption, overwrite=overwrite, world=world)
        opened = open_recipe(stand.recipe, begins=stand.state is None) if stand.ended is None else None
        if opened is None and world.is_first:
            remark(f"'{output}' is finished, nothing is left to do; train it for longer with: {resume_words(output)} --epochs N")
        world.wait()  # no process may see files that the first one begins to write
        found = _read(stand, world)
        course = _Course(stand, opened, output, found, world, stop)
        for sentence in course.warnings:
            course.warn(sentence)
        if stand.ended is None:
            course.train(tensorboard=tensorboard)
        return course.report()


def _read(stand: Standing, world: World) -> RunData:
    """Read the images of a run, and print remarks about them."""
    import ofa.training as training

    with _bar(f"reading {stand.recipe.data}", world) as progress:
        if stand.state is None and stand.record is None:
            found = training.first_data(stand.recipe, progress)
        else:
            found = training.data_of_run(stand.recipe, stand.record, exact=True, progress=progress)
    if world.is_first:
        say_changes(found.changes)
        say_left_out(found.splits)
    return found


class _Course:
    """A run from its present state to its report."""

    def __init__(self, stand: Standing, opened: Opened | None, output: Path, found: RunData, world: World, stop: Stop) -> None:
        from ofa.training.advice import recipe_warnings

        self._state, self._metrics = stand.state, [*stand.metrics]
        self._output, self._found, self._splits, self._world, self._stop = output, found, found.splits, world, stop
        if opened is None:
            assert stand.ended is not None
            self._supernet, self._recipe, self._teacher = stand.ended.to(world.device), stand.recipe, None
        else:
            self._supernet, self._recipe = opened.begin(self._splits.train, world.device)
            self._teacher = opened.teacher_for(self._splits.train, world.device)
        self._noted = False
        self.warnings = [*stand.notes, *recipe_warnings(stand.recipe, len(self._splits.train))]

    def warn(self, sentence: str) -> None:
        """Warn of a setting that the user has probably not intended."""
        if self._world.is_first:
            warn([sentence])

    def _note(self, sentence: str) -> None:
        """Print a remark once, although every epoch repeats it."""
        if not self._noted:
            self._noted = True
            self.warnings.append(sentence)
            self.warn(sentence)

    def train(self, *, tensorboard: bool) -> None:
        """Train to the end, or until a signal, and write the run.

        Raises:
            Stopped: a signal ended training.
        """
        import ofa.training as training

        if self._state is None and self._world.is_first:
            if self._recipe.start is not None:
                remark(self._recipe.start.sentence)
            training.begin_run(self._output, self._recipe, self._found.record)
        again = f"go on with: {resume_words(self._output)}"
        self._stop.words = f"interrupted; {again}"
        with ExitStack() as stack:
            writer = _Writer(self._output, self._recipe, self._world, stack, self._stop, tensorboard=tensorboard)
            bar = stack.enter_context(_bar(f"training {self._supernet.space.name}", self._world))
            stack.enter_context(self._stop.waiting())
            self._metrics += training.train(
                self._supernet,
                self._recipe,
                self._splits.train,
                selection=self._splits.selection,
                world=self._world,
                state=self._state,
                progress=bar,
                on_metrics=writer.on_metrics,
                on_state=writer.on_state,
                on_setback=writer.on_setback,
                on_note=self._note,
                teacher=self._teacher,
                stop=self._stop.asked,
            )
        last = self._recipe.phases[-1]
        if not self._metrics or (self._metrics[-1].phase, self._metrics[-1].epoch) != (last.name, last.epochs):
            self._stop.words = f"interrupted at step {writer.step}, where its state is kept; {again}"
            raise self._stop.error()
        self._finish()

    def _finish(self) -> None:
        import ofa.training as training

        if self._world.is_first:
            training.save_run(self._output, self._supernet, self._recipe, self._metrics)
        self._stop.words = f"interrupted after the end of training; '{self._output}' is complete"
        if self._stop.asked():
            raise self._stop.error()

    def report(self) -> dict[str, Any]:
        """The JSON object of ``ofa train --json``."""
        from ofa.schema import to_json

        networks = self._ends() if self._world.is_first else []
        self._judge(networks)
        last = self._metrics[-1] if self._metrics else None  # an imported run has none
        return {
            "run": str(self._output),
            "space": self._supernet.space.name,
            "data": self._recipe.data,
            "start": to_json(self._recipe.start),
            "train_images": len(self._splits.train),
            "selection_images": len(self._splits.selection),
            "epochs": len(self._metrics),
            "loss": last and last.loss,
            "cross_entropy": last and last.cross_entropy,
            "chance_cross_entropy": self._recipe.get_task().chance_loss(self._splits.train.num_classes),
            "metric": self._recipe.get_task().metric,
            "duration_s": sum(epoch.duration_s for epoch in self._metrics),
            "networks": networks,
            "data_changes": self._found.changes.to_json(),
            "warnings": self.warnings,
        }

    def _ends(self) -> list[dict[str, Any]]:
        """The smallest and the largest network at the smallest and the largest trained resolution."""
        from ofa.calibrate import calibrate
        from ofa.costs import costs
        from ofa.families import lower
        from ofa.resolution import pixels, resolution_to_json
        from ofa.training import evaluate
        from ofa.training.loop import trained_resolutions

        space, rows = self._supernet.space, []
        resolutions = trained_resolutions(self._recipe, space)
        ends = [
            (name, resolution, arch)
            for resolution in dict.fromkeys((resolutions[0], resolutions[-1]))
            for name, arch in (("smallest", space.smallest(resolution)), ("largest", space.largest(resolution)))
        ]
        with _bar("evaluating", self._world) as progress:
            for number, (name, resolution, arch) in enumerate(ends):
                progress(number, len(ends), f"the {name} network at {pixels(resolution)}")
                network = self._supernet.extract(arch)
                calibrate(network, self._splits.train, resolution=resolution)
                accuracy = evaluate(network, self._splits.selection, resolution=resolution, task=self._recipe.get_task())
                row = {"network": name, "resolution": resolution_to_json(resolution), "accuracy": accuracy}
                rows.append({**row, **costs(lower(space, arch))})
            progress(len(ends), len(ends))
        return rows

    def _judge(self, networks: Sequence[dict[str, Any]]) -> None:
        """Warn of networks that learned nothing."""
        from ofa.resolution import pixels

        task, labels = self._recipe.get_task(), self._splits.selection.labels.cpu()
        lost = [row for row in networks if task.is_at_chance(row["accuracy"], labels)]
        if lost:
            told = ", ".join(f"{row['network']} {format_percent(row['accuracy'])} at {pixels(row['resolution'])}" for row in lost)
            self.warnings.append(
                f"networks should have clearly more {task.metric} than chance "
                f"({format_percent(task.chance(labels))} on {len(labels)} images), but {told} "
                f"{'has' if len(lost) == 1 else 'have'} not; train for longer, free the genes of these networks in a phase, or check labels"
            )
            self.warn(self.warnings[-1])


class _Writer:
    """Writes metrics and states of a run, in the first process only."""

    def __init__(self, output: Path, recipe: Recipe, world: World, stack: ExitStack, stop: Stop, *, tensorboard: bool) -> None:
        from ofa.training.state import Throttle
        from ofa.training.tensorboard import board

        self._output, self._recipe, self._first = output, recipe, world.is_first
        self._board = stack.enter_context(board(output)) if tensorboard and self._first else None
        self._stop = stop
        self._throttle = Throttle()
        self.step = 0
        """Of the latest state."""

    def on_metrics(self, epoch: EpochMetrics) -> None:
        from ofa.training import append_metrics

        if self._first:
            append_metrics(self._output, epoch)
            if self._board is not None:
                self._board.write(epoch)

    def on_state(self, state: TrainingState) -> None:
        from ofa.training import save_state

        self.step = state.step
        if self._first and self._throttle.is_due(always=self._stop.asked()):
            save_state(self._output, self._recipe, state)

    def on_setback(self, setback: Setback) -> None:
        if self._first:
            remark(
                f"{setback.reason} in phase {setback.phase}, epoch {setback.epoch}, so training goes back from step {setback.step} to "
                f"{setback.back_to} and on with {setback.rate_factor:g} times the recipe's learning rates"
            )


def _bar(description: str, world: World) -> Any:
    return progress_bar(description) if world.is_first else nullcontext(silent)


def _render(report: dict[str, Any]) -> RenderableType:
    from ofa.cli.sheets import records
    from ofa.resolution import pixels

    title = f"{report['run']}: {report['space']} on {report['data']}, {report['epochs']} epochs in {report['duration_s']:.0f} s"
    caption = f"{report['metric']} of calibrated networks on {report['selection_images']} images that were not trained on"
    if report["cross_entropy"] is not None:
        caption += f"; cross entropy {report['cross_entropy']:.3f} in the last epoch, {report['chance_cross_entropy']:.3f} is chance"
    rows = [
        (
            row["network"],
            pixels(row["resolution"]),
            format_percent(row["accuracy"]),
            format_count(row["macs"]),
            format_count(row["params"]),
        )
        for row in report["networks"]
    ]
    return records(("network", "input", report["metric"], "MACs", "parameters"), rows, title=title, caption=caption)
