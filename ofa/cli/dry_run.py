"""``ofa train --dry-run``: estimates time and memory of a run before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ofa.cli.console import format_bytes, format_count, format_ms, progress_bar, remark, warn

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ofa.data import Splits
    from ofa.training import Phase, Recipe
    from ofa.training.distributed import World
    from ofa.training.dry_run import PhaseEstimate

__all__ = ["dry_run_recipe", "render_dry_run"]


_MOST_IMAGES = 1000
"""Images that are read; with more, large ones take longer than half a minute."""


def dry_run_recipe(recipe: Recipe, world: World) -> dict[str, Any]:
    """Time a few steps of every phase of a recipe, and its data loader alone, in about half a minute on a CPU.

    Returns:
        The JSON object of ``ofa train --dry-run --json``.

    Raises:
        OfaError: the data cannot be used, or a step fails.
    """
    from ofa.running import open_recipe
    from ofa.training.advice import recipe_warnings
    from ofa.training.dry_run import estimate_phases, expected_memory, loader_rate

    opened = open_recipe(recipe)
    with progress_bar(f"reading {recipe.data}") as progress:
        splits = recipe.load_splits(progress, most=_MOST_IMAGES)
    counts = _counts(recipe, splits)
    supernet, recipe = opened.begin(splits.train, world.device)
    teacher = opened.teacher_for(splits.train, world.device)
    warnings = recipe_warnings(recipe, counts["train_images"])
    if world.is_first:
        warn(warnings)
        if recipe.start is not None:
            remark(recipe.start.sentence)
    phases = []
    estimates = estimate_phases(supernet, recipe, splits.train, images=counts["train_images"], teacher=teacher, world=world)
    with progress_bar("timing steps") as progress:
        for number, estimate in enumerate(estimates, start=1):
            progress(number, len(recipe.phases), estimate.phase.name)
            phases.append(_row(estimate))
    batch = min(recipe.batch_size, len(splits.train))
    timed = max(phase["timed_images"] for phase in phases)
    return {
        "space": supernet.space.name,
        "networks": supernet.space.size,
        "data": recipe.data,
        **counts,
        "classes": splits.train.num_classes,
        "skipped_images": len(splits.train.skipped),
        "device": str(world.device),
        "processes": world.size,
        "batch_images": batch,
        "extrapolated": any(phase["timed_images"] < batch for phase in phases),
        "peak_memory_bytes": expected_memory(supernet, recipe, splits.train, timed_images=timed, world=world),
        "loader_images_per_s": loader_rate(recipe, splits.train, world),
        "duration_s": sum(phase["duration_s"] for phase in phases),
        "phases": phases,
        "warnings": list(warnings),
    }


def _counts(recipe: Recipe, splits: Splits) -> dict[str, int]:
    """Number of images in each part, extrapolated if only a sample was read."""
    from ofa.data import count_items, data_names

    parts = splits[:2] if recipe.test_data else splits
    looked_at, listed = sum(map(len, parts)), count_items(recipe.data)
    sampled = listed > _MOST_IMAGES and recipe.data not in data_names()
    times = listed * sum(recipe.fractions) / looked_at if sampled else 1.0
    train, selection, test = (round(len(part) * times) for part in splits)
    return {
        "train_images": train,
        "selection_images": selection,
        "test_images": count_items(recipe.test_data) if recipe.test_data else test,
        "images": listed,
        "images_looked_at": looked_at if sampled else listed,
    }


def _row(estimate: PhaseEstimate) -> dict[str, Any]:
    return {
        "phase": estimate.phase.name,
        "epochs": estimate.phase.epochs,
        "steps": estimate.steps,
        "subnets_per_step": estimate.phase.subnets_per_step,
        "learning_rate": estimate.phase.learning_rate,
        "free": _free(estimate.phase),
        "timed_images": estimate.timed_images,
        "step_ms": estimate.step_ms,
        "images_per_s": estimate.images_per_s,
        "duration_s": estimate.duration_s,
    }


def _free(phase: Phase) -> str:
    return ", ".join(gene.name for gene in phase.free) or "-"


def render_dry_run(report: dict[str, Any]) -> RenderableType:
    """The printed table."""
    from ofa.cli.sheets import records

    images = f"{report['train_images']} images to train on, {report['selection_images']} to select on, {report['test_images']} to test on"
    caption = (
        f"{images}, {report['classes']} classes; loader alone {report['loader_images_per_s']:,.0f} images/s; "
        f"peak memory {format_bytes(report['peak_memory_bytes'])}; about {format_duration(report['duration_s'])} in all on "
        f"{report['device']}, evaluations not counted; nothing was written"
    )
    if report["images_looked_at"] < report["images"]:
        caption += f"; from {report['images_looked_at']} of {report['images']} images: others may be unreadable"
    if report["extrapolated"]:
        caption += "; extrapolated by multiply-accumulates from steps with fewer images, because full steps take too long to time"
    title = f"{report['space']} ({format_count(report['networks'])} networks) on {report['data']}"
    columns = ("phase", "epochs", "steps", "subnets", "rate", "free", "a step", "images/s", "time")
    rows = [
        (
            row["phase"],
            str(row["epochs"]),
            str(row["steps"]),
            str(row["subnets_per_step"]),
            f"{row['learning_rate']:g}",
            row["free"],
            _step(row["step_ms"]),
            f"{row['images_per_s']:,.0f}",
            format_duration(row["duration_s"]),
        )
        for row in report["phases"]
    ]
    return records(columns, rows, title=title, caption=caption)


def _step(milliseconds: float) -> str:
    return format_ms(milliseconds) if milliseconds < 10_000 else f"{milliseconds / 1e3:.1f} s"


def format_duration(seconds: float) -> str:
    """A duration such as 42 s, 5 min, 3 h 20 min, 4 d 2 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
