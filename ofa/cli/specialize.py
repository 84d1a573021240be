"""``ofa specialize``: one network of a supernet, made as good as it gets and ready to ship."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import Accuracy, ExpectedOption, Latencies, Macs, Memory, Params, Weights, budget_of
from ofa.cli.console import JsonOption, emit, format_bytes, format_count, format_percent, progress_bar, warn
from ofa.cli.outputs import OverwriteOption, check_output_folder
from ofa.cli.run_data import DataOption, TestDataOption, load_run_data
from ofa.cli.sheets import facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from ofa.arch import Arch
    from ofa.training import Run, RunData
    from search.budget import Budget
    from search.front import Candidate

__all__ = ["register", "specialize", "specialize_run"]

_EXAMPLE = "Example: ofa specialize digits.run --front digits.front --latency 2ms -o digits.bundle"


def register(app: typer.Typer) -> None:
    """Add ``ofa specialize``."""
    app.command("specialize", epilog=_EXAMPLE)(specialize)


def specialize(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `ofa train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write.")],
    arch: Annotated[Path | None, typer.Option("--arch", metavar="ARCH.json", help="The network, as `ofa query` writes it.")] = None,
    front: Annotated[Path | None, typer.Option("--front", metavar="FRONT", help="Or the front to ask for the best one within:")] = None,
    latency: Latencies = None,
    macs: Macs = None,
    params: Params = None,
    weights: Weights = None,
    memory: Memory = None,
    accuracy: Accuracy = None,
    expected: ExpectedOption = False,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning with the largest network as teacher; 0 only calibrates.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order and the augmentation of the images.")] = 0,
    data: DataOption = None,
    test_data: TestDataOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Extract one network, calibrate it, fine-tune it and write it as a bundle."""
    from ofa.arch import Arch
    from ofa.training import load_run
    from ofa.training.memory import keep_freed_memory
    from search.advice import advice_on_accuracy

    keep_freed_memory()
    if (arch is None) == (front is None):
        raise typer.BadParameter("the network comes from one of --arch and --front; give one of them.", param_hint="--arch")
    check_output_folder(output, overwrite=overwrite)
    budget = budget_of(latency=latency, macs=macs, params=params, weights=weights, memory=memory, accuracy=accuracy, expected=expected)
    warnings = []
    if front is not None:
        promise, device, advice = _best_of(front, budget)
        warnings += warn(advice)  # before the work, which may be long
        chosen = promise.arch
    else:
        if budget:
            raise typer.BadParameter("budgets need a front to ask; add --front, or leave them out.", param_hint="--arch")
        assert arch is not None
        promise, device, chosen = None, None, Arch.load(arch)
    report = specialize_run(
        load_run(run),
        chosen,
        output,
        epochs=epochs,
        seed=seed,
        source=str(run),
        promise=promise,
        device=device,
        data=data,
        test_data=test_data,
        overwrite=overwrite,
    )
    classes, images = report["classes"], report["test_images"]
    warnings += warn(advice_on_accuracy(report["accuracy"], classes, what="the network", images=images))
    emit(report, json=json, render=lambda: _render(report), warnings=warnings)


def _best_of(path: Path, budget: Budget) -> tuple[Candidate, str | None, Sequence[str]]:
    """The most accurate network of a front within the budget, the first device that the front is of, and what warns of them."""
    from search.advice import advice_on_budget, advice_on_front
    from search.front import Front

    front = Front.load(path)
    advice = (*advice_on_front(front), *advice_on_budget(budget, front.columns, front.device_names))
    return front.query(budget)[0], next(iter(front.device_names), None), advice


def specialize_run(
    run: Run,
    arch: Arch,
    output: Path,
    *,
    epochs: int,
    seed: int = 0,
    source: str | None = None,
    promise: Candidate | None = None,
    device: str | None = None,
    data: str | None = None,
    test_data: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Specialize a network of a trained supernet and write its bundle.

    Args:
        run: the supernet and its recipe, which names the data.
        arch: the network.
        output: the bundle; the folder it stands in must exist.
        epochs: of fine-tuning.
        seed: of the order and the augmentation of the images.
        source: what the bundle's card calls the run.
        promise: the answer of a front that the network is, whose latency goes on the card.
        device: name of the device that this latency is of.
        data: where the run's images are now, if they moved.
        test_data: where those to test on are now, if they moved.
        overwrite: whether a bundle that is there may be replaced.

    Returns:
        the JSON object of ``ofa specialize --json``; accuracies are shares (0..1) of the test part, which was used for nothing else.

    Raises:
        OfaError: the arch is of another space, the data or the folder cannot be used, or the export fails.
    """
    import torch

    from ofa.export.bundle import write_bundle
    from ofa.export.card import Card
    from ofa.specialize import FineTuning
    from ofa.specialize import specialize as make

    check_output_folder(output, overwrite=overwrite)
    run.supernet.space.check(arch)
    found = load_run_data(run, data=data, test_data=test_data)
    splits = found.splits
    with progress_bar("fine-tuning") as progress:
        made = make(
            run.supernet,
            arch,
            splits.train,
            splits.test,
            epochs=epochs,
            generator=torch.Generator().manual_seed(seed),
            settings=FineTuning.like(run.recipe),
            progress=progress,
        )
    mean, std = splits.train.normalization
    provenance = {
        "run": source,
        **_known_of(found, run),
        "recipe_seed": run.recipe.seed,
        "seed": seed,
        "test_images": len(splits.test),
        **asdict(made.metrics),
    }
    bundle = write_bundle(
        output,
        made.network,
        arch,
        Card(accuracy=made.metrics.accuracy, provenance=provenance, **_promised(promise, device)),
        class_names=splits.train.class_names,
        mean=mean,
        std=std,
        generator=torch.Generator().manual_seed(seed),
    )
    counted = {name: getattr(bundle.card, name) for name in ("macs", "params", "weight_bytes", "peak_activation_bytes")}
    return {
        "bundle": str(output),
        "arch": arch.to_json(),
        "test_images": len(splits.test),
        "classes": splits.test.num_classes,
        **asdict(made.metrics),
        **counted,
        "data_changes": found.changes.to_json(),
    }


def _known_of(found: RunData, run: Run) -> dict[str, Any]:
    """What the bundle's card says of the images: their name as it was typed, and whether they are what the run began with."""
    if found.record is None:
        return {"data": run.recipe.data}
    record = found.record
    return {
        "data": record.facts.data.typed,
        "data_digest": record.digest,
        "data_images": record.counts,
        "data_changed": found.changes.changed,
    }


def _promised(promise: Candidate | None, device: str | None) -> dict[str, Any]:
    """The fields of a card that say what a front promised."""
    if promise is None or device is None:
        return {}
    return {"device": device, **asdict(promise.latencies[device])}


def _render(report: dict[str, Any]) -> RenderableType:
    rows = (
        ("input", f"{report['arch']['resolution']} px"),
        ("accuracy as extracted and calibrated", format_percent(report["accuracy_before"])),
        (f"accuracy after {report['epochs']} epochs", format_percent(report["accuracy"])),
        ("accuracy of the teacher", format_percent(report["teacher_accuracy"])),
        ("MACs", format_count(report["macs"])),
        ("parameters", format_count(report["params"])),
        ("weights", format_bytes(report["weight_bytes"])),
        ("largest activations", format_bytes(report["peak_activation_bytes"])),
    )
    caption = f"accuracy measured on {report['test_images']} test images"
    return facts(rows, title=f"{report['bundle']}: {report['arch']['space']}", caption=caption)
