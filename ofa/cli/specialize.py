"""``ofa specialize``: extracts one network of a supernet, fine-tunes it, and writes it as a bundle to ship."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import Accuracy, ExpectedOption, Latencies, budget_of, taking_costs
from ofa.cli.console import (
    JsonOption,
    emit,
    format_bytes,
    format_conditions,
    format_count,
    format_ms,
    format_percent,
    progress_bar,
    remark,
    warn,
)
from ofa.cli.export import MostLossOption, Precision
from ofa.cli.keeping import ResumeOption, has_ended, making
from ofa.cli.outputs import OverwriteOption, check_output_folder
from ofa.cli.run_data import DataOption, OnOption, TestDataOption, load_run_data, place_run
from ofa.cli.sheets import facts
from ofa.cli.spaces import OwnSpaceOption, TrustOption, check_named, named, parse_resolution_option
from ofa.cli.stopping import stoppable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from ofa.arch import Arch
    from ofa.exporting.bundle import Bundle
    from ofa.space import Space
    from ofa.teachers import FoundTeacher
    from ofa.training import Run, RunData
    from search.budget import Budget
    from search.front.candidate import Candidate
    from search.front.front import Front

__all__ = ["register", "specialize", "specialize_run"]

_EXAMPLE = "Example: ofa specialize run --front run.front --latency 12ms -o network"


def register(app: typer.Typer) -> None:
    """Add ``ofa specialize``."""
    app.command("specialize", epilog=_EXAMPLE)(taking_costs(specialize))


def specialize(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `ofa train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write.")],
    arch: Annotated[Path | None, typer.Option("--arch", metavar="ARCH.json", help="The network, as `ofa query` writes it.")] = None,
    front: Annotated[
        Path | None, typer.Option("--front", metavar="FRONT", help="Or the front to query for the best network within:")
    ] = None,
    latency: Latencies = None,
    counts: Any = None,
    accuracy: Accuracy = None,
    expected: ExpectedOption = False,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning with the largest network as teacher; 0 only calibrates.")] = 5,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="RUN|BUNDLE|NAME", help="Another teacher: a run, a bundle, or module:attribute.")
    ] = "",
    teacher_resolution: Annotated[
        Any, typer.Option("--teacher-resolution", parser=parse_resolution_option, metavar="PX", help="Input size of --teacher.")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision",
            help="Number format of a further file; by default the front's choice, else none. Held-out images calibrate int8.",
            show_default=False,
        ),
    ] = None,
    most_loss: MostLossOption = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order and the augmentation of the images.")] = 0,
    data: DataOption = None,
    test_data: TestDataOption = None,
    on: OnOption = None,
    space: OwnSpaceOption = None,
    trust: TrustOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Extract one network, calibrate it, fine-tune it and write it as a bundle.

    The state of the fine-tuning is kept: an interrupted command continues with --resume.
    """
    from ofa.families import load_arch
    from ofa.teachers import find_teacher
    from ofa.training import load_run
    from ofa.training.memory import keep_freed_memory
    from search.advice import advice_on_accuracy

    keep_freed_memory()
    if (arch is None) == (front is None):
        raise typer.BadParameter("the network comes from one of --arch and --front; give one of them.", param_hint="--arch")
    check_output_folder(output, overwrite=overwrite or resume)
    budget = budget_of(latency=latency, counts=counts, accuracy=accuracy, expected=expected)
    wanted, warnings = named(space), list[str]()
    loaded = load_run(run, trust=trust)
    check_named(wanted, loaded.supernet.space, f"'{run}'")
    place_run(loaded, on)
    own_teacher = find_teacher(teacher, teacher_resolution)
    network: Arch | Candidate
    asked, device = None, None
    if front is not None:
        asked = _front_of(front, loaded.supernet.space)
        warnings += warn(_advice(asked, budget))  # before the long work
        network, device = _best_of(asked, budget)
    else:
        if budget:
            raise typer.BadParameter("budgets need a front to query; add --front, or leave them out.", param_hint="--arch")
        assert arch is not None
        network = load_arch(arch, loaded.supernet.space)
    report = specialize_run(
        loaded,
        network,
        output,
        front=asked,
        device=device,
        epochs=epochs,
        teacher=own_teacher,
        precision=precision,
        most_loss=most_loss,
        seed=seed,
        data=data,
        test_data=test_data,
        resume=resume,
        overwrite=overwrite,
    )
    classes, images = report["classes"], report["test_images"]
    warnings += warn(advice_on_accuracy(report["accuracy"], classes, what="the network", images=images, metric=report["metric"]))
    emit(report, json=json, render=lambda: _render(report), warnings=warnings)


def _front_of(path: Path, space: Space) -> Front:
    """The front in a file, which must be of the run's space."""
    from ofa.errors import SpaceError
    from search.front.front import Front

    front = Front.load(path)
    if not front.space.is_part_of(space, any_classes=True):
        raise SpaceError(
            f"a front must be of the run's space, but '{path}' is of another ({front.space.name}) than the run ({space.name}); "
            "take the front that was searched for this run"
        )
    return front


def _advice(front: Front, budget: Budget) -> Sequence[str]:
    from search.advice import advice_on_budget, advice_on_front

    return (*advice_on_front(front), *advice_on_budget(budget, front.columns, front.device_names))


def _best_of(front: Front, budget: Budget) -> tuple[Candidate, str | None]:
    """The most accurate network of a front within the budget, and its device.

    In a front of several devices it is the first one that the budget names, or the front's first if the budget names none.
    """
    asked = {name.partition("@")[2] for name in budget.bounds}
    device = next((name for name in front.device_names if name in asked), next(iter(front.device_names), None))
    return front.query(budget)[0], device


def specialize_run(
    run: Run,
    network: Arch | Candidate,
    output: Path,
    *,
    front: Front | None = None,
    device: str | None = None,
    epochs: int,
    teacher: FoundTeacher | None = None,
    precision: str | None = None,
    most_loss: float = 0.01,
    seed: int = 0,
    data: str | None = None,
    test_data: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Specialize a network of a trained supernet and write its bundle.

    Args:
        run: the supernet, on its present processor, and its recipe, which names the data.
        network: an arch, or a candidate of a front, whose promise goes on the card.
        output: folder of the bundle; its parent folder must exist.
        front: the candidate's front.
        device: name of the device of the promise.
        epochs: epochs of fine-tuning.
        teacher: teacher; None for the supernet's largest network.
        precision: precision of a further file; None for the candidate's.
        most_loss: largest loss of score by int8 (0..1).
        seed: seed of the order and the augmentation of the images.
        data: present path of the run's images, if they moved.
        test_data: present path of its test images, if they moved.
        resume: whether to continue after the steps of an interrupted command.
        overwrite: whether an existing bundle may be replaced.

    Returns:
        The JSON object of ``ofa specialize --json``; accuracies (0..1) are of the test part, which was used for nothing else.

    Raises:
        OfaError: the arch is of another space, the data or the folder cannot be used, or the export fails.
    """
    from ofa.api import specialize as make
    from ofa.api.shipping import in_precision, precision_of
    from ofa.exporting.bundle import load_bundle
    from ofa.training.optimizer import check_trusted
    from search.front.candidate import Candidate

    if epochs:
        check_trusted(run.recipe.optimizer)
    kept: Any = {"resume": resume, "overwrite": overwrite, "inputs": {"seed": seed}}
    with making(output, "specialize", doing="specializing a network", folder=True, **kept) as journal, stoppable() as stop:
        run.supernet.space.check(network.arch if isinstance(network, Candidate) else network)
        found = load_run_data(run, data=data, test_data=test_data)
        if has_ended(output, journal, resume=resume, overwrite=overwrite):
            with progress_bar("quantizing") as progress:  # skipped if already done
                wanted = precision or precision_of(network)
                bundle = in_precision(load_bundle(output), found.splits, wanted, most_loss=most_loss, seed=seed, progress=progress)
            return _report(bundle, found)
        with progress_bar("fine-tuning") as progress, stop.waiting():
            try:
                bundle = make(
                    run,
                    network,
                    output,
                    front=front,
                    device=device,
                    epochs=epochs,
                    teacher=teacher or "",
                    precision=precision,
                    most_loss=most_loss,
                    seed=seed,
                    data=found,
                    overwrite=overwrite or resume,
                    progress=progress,
                    journal=journal,
                    stop=stop.asked,
                    on_note=remark,
                )
            except KeyboardInterrupt:
                raise stop.error() from None
        if stop.asked():
            stop.words = f"interrupted after the end; '{output}' is complete"
            raise stop.error()
        return _report(bundle, found)


def _report(bundle: Bundle, found: RunData) -> dict[str, Any]:
    """The report about a bundle, and about the images of its scores."""
    from ofa.training.specialization import SpecializeMetrics

    card, test = bundle.card, found.splits.test
    about = {"bundle": str(bundle.folder), "arch": bundle.arch.to_json(), "test_images": len(test), "classes": test.num_classes}
    measured = {field.name: card.provenance[field.name] for field in fields(SpecializeMetrics)}
    told = {name: getattr(card, name) for name in ("metric", "device", "latency_ms", "conditions")}
    return {**about, **measured, **told, **card.costs, "precisions": card.precisions, "data_changes": found.changes.to_json()}


def _render(report: dict[str, Any]) -> RenderableType:
    from ofa.resolution import pixels

    rows = [
        ("input", pixels(report["arch"]["resolution"])),
        (f"{report['metric']} as extracted and calibrated", format_percent(report["accuracy_before"])),
        (f"{report['metric']} after {report['epochs']} epochs", format_percent(report["accuracy"])),
        (f"{report['metric']} of the teacher", format_percent(report["teacher_accuracy"])),
    ]
    if report["latency_ms"] is not None:
        rows.append((f"latency on {report['device']}", f"{format_ms(report['latency_ms'])}, predicted"))
        rows.append(("timed as", format_conditions(report["conditions"])))
    for name, found in report["precisions"].items():
        rows.append((f"{report['metric']} in {name}", f"{found['score']:.2%}, {found['float_score']:.2%} before on the same images"))
    rows += [
        ("MACs", format_count(report["macs"])),
        ("parameters", format_count(report["params"])),
        ("weights", format_bytes(report["weight_bytes"])),
        ("largest activations", format_bytes(report["peak_activation_bytes"])),
    ]
    caption = f"{report['metric']} measured on {report['test_images']} test images"
    return facts(rows, title=f"{report['bundle']}: {report['arch']['space']}", caption=caption)
