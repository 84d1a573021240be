"""``ofa search``: finds the networks of a space that no other beats, for every budget at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import LatencyOption, MacsOption, MemoryOption, ParamsOption, WeightsOption, given
from ofa.cli.console import JsonOption, emit, format_ms, format_percent, progress_bar
from ofa.cli.outputs import check_folder
from ofa.cli.table import ResolutionsOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ofa.space import Space
    from search.accuracy import AccuracySource
    from search.front import Front

__all__ = ["register", "search"]

_EXAMPLE = "Example: ofa search --space ofa-mbv3-tiny --predictor digits.predictor --table cpu.parquet -o digits.front"

_NEIGHBOURS = 5000
"""By default with a predictor, which answers a thousand networks a second; a measured network costs too much to look around."""


def register(app: typer.Typer) -> None:
    """Add ``ofa search``."""
    app.command("search", epilog=_EXAMPLE)(search)


def search(
    table: Annotated[Path, typer.Option("--table", metavar="TABLE", help="Latency table of the device.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FRONT", help="Where to write the front.")],
    space: Annotated[str | None, typer.Option(metavar="SPACE", help="Name of the space, which the accuracies must be of.")] = None,
    predictor: Annotated[Path | None, typer.Option(metavar="PREDICTOR", help="Predict accuracies.")] = None,
    supernet: Annotated[Path | None, typer.Option(metavar="RUN", help="Measure each network of this run (slow, exact).")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Networks that the sampler proposes.")] = 1000,
    neighbours: Annotated[
        int | None,
        typer.Option(
            min=0, help="Most networks to look at around the best ones afterwards; 5000 by default, 0 with --supernet.", show_default=False
        ),
    ] = None,
    sampler: Annotated[str, typer.Option(help="nsga2, nsga3, tpe or random.")] = "nsga2",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler.")] = 0,
    storage: Annotated[
        str | None, typer.Option(metavar="URL|FILE", help="Keep the study in a database or a journal file, to resume it.")
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the study in the storage; the space's by default.")] = None,
    resolutions: ResolutionsOption = None,
    picture: Annotated[Path | None, typer.Option(metavar="PNG", help="Also draw the front.")] = None,
    latency: LatencyOption = None,
    macs: MacsOption = None,
    params: ParamsOption = None,
    weights: WeightsOption = None,
    memory: MemoryOption = None,
    json: JsonOption = False,
) -> None:
    """Find the best networks for every latency; budgets given here are kept by all of them."""
    from latency_tables import LatencyTable
    from search.budget import Budget
    from search.problem import Problem
    from search.study import run_study

    for path in (output, picture or output):
        check_folder(path)
    if (predictor is None) == (supernet is None):
        raise typer.BadParameter("accuracies come from one of --predictor and --supernet; give one of them.", param_hint="--predictor")
    limits = given(latency_ms=latency, macs=macs, params=params, weight_bytes=weights, peak_activation_bytes=memory)
    searched, accuracy = _accuracy(space, predictor, supernet, resolutions)
    problem = Problem(space=searched, accuracy=accuracy, latency=LatencyTable.load(table), budget=Budget.from_mapping(limits))
    if neighbours is None:
        neighbours = 0 if predictor is None else _NEIGHBOURS
    with progress_bar(f"networks of {searched.name}") as progress:
        front = run_study(
            problem, trials=trials, seed=seed, sampler=sampler, storage=storage, name=study, neighbours=neighbours, progress=progress
        )
    front.save(output)
    if picture is not None:
        from search.plot import save_front_picture

        save_front_picture(front, picture)
    report = _report(front, output)
    emit(report, json=json, render=lambda: _render(report))


def _accuracy(
    name: str | None, predictor: Path | None, supernet: Path | None, resolutions: list[int] | None
) -> tuple[Space, AccuracySource]:
    """The space to search, and what tells its networks' accuracies."""
    from ofa.families import get_space

    wanted = None if name is None else get_space(name)
    if predictor is not None:
        space, source = _predicted(predictor, wanted)
    else:
        assert supernet is not None
        space, source = _measured(supernet, wanted)
    return space if resolutions is None else space.restrict(resolution=resolutions), source


def _predicted(path: Path, wanted: Space | None) -> tuple[Space, AccuracySource]:
    """A predictor of ours, or MIT's, which `ofa import mit-predictor` writes as safetensors."""
    if path.suffix == ".safetensors":
        from ofa.interop import mit

        imported = mit.load_predictor(path, wanted)
        return imported.space.restrict(resolution=imported.resolutions), imported
    from search.predictor import AccuracyPredictor

    loaded = AccuracyPredictor.load(path, wanted)
    return loaded.space, loaded


def _measured(folder: Path, wanted: Space | None) -> tuple[Space, AccuracySource]:
    from ofa.training import load_run
    from search.accuracy import MeasuredAccuracy

    run = load_run(folder)
    data = run.recipe.load_splits()
    source, space = MeasuredAccuracy(run.supernet, data.selection, data.train), wanted or run.supernet.space
    # The run's own space has as many classes as its data.
    return run.supernet.space if space.name == run.supernet.space.name else space, source


def _report(front: Front, output: Path) -> dict[str, Any]:
    """The JSON object of ``ofa search --json``."""
    from search.budget import Budget

    (best,) = front.query(Budget())
    return {
        "front": str(output),
        "networks": len(front),
        **{key: front.metadata[key] for key in ("space", "device", "budget", "study")},
        "fastest": front.candidate(0).to_json(),
        "most_accurate": best.to_json(),
    }


def _render(report: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table("", "accuracy", "latency", title=f"{report['front']}: {report['networks']} networks on {report['device']}")
    for key in ("fastest", "most_accurate"):
        table.add_row(key.replace("_", " "), format_percent(report[key]["accuracy"]), format_ms(report[key]["latency_ms"]))
    table.caption = f"of {report['study']['evaluated']} networks evaluated in {report['study']['trials']} trials and their neighbourhood"
    return table
