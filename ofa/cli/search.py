"""``ofa search``: finds the Pareto front of a space, for every budget at once."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import Accuracy, Energies, ExpectedOption, Latencies, budget_of, taking_costs
from ofa.cli.console import JsonOption, emit, format_conditions, format_ms, format_percent, progress_bar, remark, warn
from ofa.cli.devices import FoldersOption, SshConfigOption
from ofa.cli.outputs import PARQUET, OverwriteOption, check_output
from ofa.cli.problem import ProblemOfFiles, tradeable
from ofa.cli.run_data import DataOption, OnOption, TestDataOption
from ofa.cli.secrets import STORAGE_VARIABLE, command_without_secrets, take_storage
from ofa.cli.sheets import records, words
from ofa.cli.spaces import TrustOption
from ofa.cli.stopping import stoppable
from ofa.cli.table import ResolutionsOption
from ofa.cli.threads import let_threads_sleep
from ofa.locking import writing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ofa.storage_url import StorageUrl
    from search.front.front import Front

__all__ = ["register", "search"]

_EXAMPLE = "Example: ofa search --predictor run.predictor --table cpu.parquet -o run.front"

_TRIALS = 160
_EVALUATIONS = 200_000
_EFFORT_FOR_BEST = {"islands": 8}
"""One budget needs fewer islands."""
_TURN_S = 60.0
"""Seconds to wait until another machine with the same study has written its front."""


def register(app: typer.Typer) -> None:
    """Add ``ofa search``."""
    app.command("search", epilog=_EXAMPLE)(taking_costs(search))


def search(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FRONT", help="Where to write the front.")],
    table: Annotated[
        list[Path] | None, typer.Option("--table", metavar="TABLE", help="Latency table of a device; one for each of its precisions.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", metavar="NAME", help="Time every network on this device, without a table (slow, exact).")
    ] = None,
    space: Annotated[
        str | None, typer.Option(metavar="SPACE", help="The space: a name, a file, or module:attribute; by default the accuracies'.")
    ] = None,
    predictor: Annotated[Path | None, typer.Option(metavar="PREDICTOR", help="Predict accuracies.")] = None,
    supernet: Annotated[Path | None, typer.Option(metavar="RUN", help="Measure each network of this run (slow, exact).")] = None,
    losses: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LOSSES",
            help="Accuracy losses in a precision (`ofa predictor quantization`), for tables in several; one file per precision.",
        ),
    ] = None,
    trade: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COST",
            help=f"Cost to trade against accuracy: {', '.join(tradeable())}; repeatable. By default latency on every device, else MACs.",
        ),
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Find only the most accurate network within the budgets, not a front.")] = False,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the study.")] = _TRIALS,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="evolution (in arrays), or Optuna's nsga2, nsga3, tpe, gp, random; by default evolution, or nsga2 if networks are "
            "measured.",
            show_default=False,
        ),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(min=0, help=f"Networks that evolution evaluates besides the trials; {_EVALUATIONS} by default.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help=f"Database or journal file that keeps the study, to resume it; also from the environment variable {STORAGE_VARIABLE}.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that measure networks of one study; further machines join with the same command.")
    ] = 1,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the study in the storage; the space's by default.")] = None,
    resolutions: ResolutionsOption = None,
    picture: Annotated[Path | None, typer.Option(metavar="PNG", help="Also draw the front.")] = None,
    latency: Latencies = None,
    energy: Energies = None,
    counts: Any = None,
    accuracy: Accuracy = None,
    expected: ExpectedOption = False,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    data: DataOption = None,
    test_data: TestDataOption = None,
    trust: TrustOption = False,
    on: OnOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Find the best networks for every budget; all of them keep the limits that are given here.

    The front of a study in a --storage may be replaced by a later front of the same study, since the study keeps all trials.
    """
    let_threads_sleep()
    from search.advice import advice_on_front
    from search.study import EVOLUTION, Effort, run_workers
    from search.study.optuna_logging import known_as_experimental
    from search.study.storages import storage_file

    if (predictor is None) == (supernet is None):
        raise typer.BadParameter("accuracies come from one of --predictor and --supernet; give one of them.", param_hint="--predictor")
    if on is not None and supernet is None:
        raise typer.BadParameter("it is for measuring networks of a --supernet; leave it out.", param_hint="--on")
    if best and trade:
        raise typer.BadParameter("--best trades nothing against accuracy; leave out one of the two.", param_hint="--trade")
    budget = budget_of(latency=latency, energy=energy, counts=counts, accuracy=accuracy, expected=expected)
    files = ProblemOfFiles(
        space=space,
        predictor=predictor,
        supernet=supernet,
        tables=table or (),
        losses=losses or (),
        devices=device or (),
        device_folders=folders or (),
        ssh_config=ssh_config,
        resolutions=resolutions,
        budget=budget,
        trades=() if best else trade,
        seed=seed,
        data=data,
        test_data=test_data,
        trust=trust,
        on=on,
    )
    if evaluations is None:
        evolves = sampler == EVOLUTION if sampler else supernet is None and not device
        evaluations = _EVALUATIONS if evolves else 0
    effort = Effort(trials=trials, evaluations=evaluations, **(_EFFORT_FOR_BEST if best else {}))
    # Machines with one study take turns at writing its front, whose trials the study keeps.
    where = take_storage(storage)
    kept_in = None if where is None else storage_file(where)
    if kept_in is not None:
        check_output(kept_in, overwrite=True)
    with writing(output, "searching") if where is None else nullcontext():
        resumed = None if overwrite else _front_of(output, where, study)
        check_output(output, overwrite=overwrite or resumed is not None, ending=PARQUET)
        if picture is not None:
            check_output(picture, overwrite=overwrite or resumed is not None, ending=".png")
        kept = f"its trials are kept in {where}; continue with the same command" if where else "without --storage nothing is kept"
        if where is None and (supernet is not None or device):
            remark("measurements are lost if the search is interrupted; add --storage to be able to continue with the same command")
        with stoppable() as stop, progress_bar("networks") as progress, known_as_experimental():
            stop.words = f"interrupted; {kept}"
            front = run_workers(
                files, workers=workers, seed=seed, effort=effort, sampler=sampler, storage=where, name=study, progress=progress
            )
        front = front.with_info(command=command_without_secrets(), study={**front.info.study, **_identity(where, study)})
        with writing(output, "writing a front", wait_s=_TURN_S):
            if not overwrite and output.exists():  # another process may have written or verified it meanwhile
                check_output(output, overwrite=_front_of(output, where, study) == front.info.space)
            front.save(output)
        if picture is not None:
            from search.plot import save_front_picture

            save_front_picture(front, picture)
    report = _report(front, output)
    emit(report, json=json, render=lambda: _render(report), warnings=warn(advice_on_front(front)))


def _identity(storage: StorageUrl | None, study: str | None) -> dict[str, Any]:
    """The identity of a front's study, as stored in the front."""
    return {} if storage is None else {"storage": str(storage), "name": study}


def _front_of(output: Path, storage: StorageUrl | None, study: str | None) -> str | None:
    """The space of the existing front, if it is of this study and has no verified networks; else None."""
    from ofa.errors import OfaError
    from search.front.front import Front

    if storage is None or not output.is_file():
        return None
    try:
        info = Front.load(output).info
    except OfaError:
        return None
    is_own = all(info.study.get(key, "") == value for key, value in _identity(storage, study).items())
    return info.space if is_own and not info.verified else None


def _report(front: Front, output: Path) -> dict[str, Any]:
    """The JSON object of ``ofa search --json``."""
    from ofa.schema import to_json
    from search.budget import Budget

    (best,) = front.query(Budget())
    return {
        "front": str(output),
        "networks": len(front),
        **{key: value for key, value in to_json(front.info).items() if key in ("space", "devices", "objectives", "budget", "study")},
        "accuracy_source": front.info.accuracy_source,
        "metric": front.info.metric,
        **({"precisions": {name: front.precisions.count(name) for name in _precisions(front)}} if front.precisions else {}),
        "conditions": {name: each.to_json() for name, each in front.conditions.items()},
        "cheapest": front.candidate(0).to_json(),
        "most_accurate": best.to_json(),
    }


def _precisions(front: Front) -> list[str]:
    """The precisions of a front's networks."""
    return list(dict.fromkeys(name for by_precision in front.info.precisions.values() for name in by_precision))


def _render(report: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    devices, study, rows = report["devices"], report["study"], []
    title = f"{report['front']}: {report['networks']} networks" + (f" on {', '.join(devices)}" if devices else "")
    accuracy = f"{report['metric']}, {report['accuracy_source']}" if report["accuracy_source"] else report["metric"]
    for key in ("cheapest", "most_accurate"):
        network = report[key]
        latencies = [format_ms(network["devices"][device]["latency_ms"]) for device in devices]
        meant = [network["precision"]] if "precision" in network else []
        rows.append((key.replace("_", " "), format_percent(network["accuracy"]), *meant, *latencies, f"{network['macs'] / 1e6:.3g} M"))
    died = f"; {study['died']} of {study['workers']} workers died" if study.get("died") else ""
    took = f"of {study['evaluated']} networks evaluated in {study['seconds']:.1f} s; the study has {study['trials']} trials"
    about = [f"{took} by the sampler {study['sampler']}{died}"]
    about += [f"latency on {name}: {format_conditions(each)}" for name, each in report["conditions"].items()]
    counted = report.get("precisions", {})
    about += [f"networks of the front: {', '.join(f'{count} in {name}' for name, count in counted.items())}"] if counted else []
    columns = ("", accuracy, *["precision"] * bool(counted), *(f"latency on {device}" for device in devices), "MACs")
    return Group(records(columns, rows, title=title), *map(words, about))
