"""``ofa space``: size of a space, costs of its networks, and feasibility of a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import LatencyOption, taking_costs
from ofa.cli.console import (
    JsonOption,
    emit,
    format_bytes,
    format_conditions,
    format_count,
    format_ms,
    format_percent,
    warn,
)
from ofa.cli.deriving import (
    Changes,
    ChannelsOption,
    ClassesOption,
    KeepOption,
    NameOption,
    OutputOption,
    ResolutionsOption,
    write_space,
)
from ofa.cli.sheets import records, words
from ofa.cli.spaces import parse_resolution_option
from ofa.costs import COSTS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from latency_tables import LatencyTable
    from ofa.arrays import Rows
    from ofa.resolution import Resolution
    from ofa.space import Space

__all__ = ["register"]

_EXAMPLE = "Example: ofa space ofa-mbv3-w1.0 --resolution 224 --macs 300M --memory 2MiB"
_USED = 0.8
"""Warn if even the most costly network uses less than this share of the budget."""


def register(app: typer.Typer) -> None:
    """Add ``ofa space``."""
    app.command("space", epilog=_EXAMPLE)(taking_costs(space, ranges=False))


def space(
    name: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help="A space: its name, its file, a run, or module:attribute; without it, all names are listed."),
    ] = None,
    resolution: Annotated[
        Any, typer.Option(parser=parse_resolution_option, metavar="PIXELS", help="Only networks of this input size: 224 or 224x160.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of random networks to evaluate.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random networks.")] = 0,
    table: Annotated[Path | None, typer.Option(help="A latency table, to include latencies.")] = None,
    latency: LatencyOption = None,
    counts: Any = None,
    resolutions: ResolutionsOption = None,
    keep: KeepOption = None,
    channels: ChannelsOption = None,
    classes: ClassesOption = None,
    called: NameOption = None,
    output: OutputOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a space file that is already there.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the size of a space, the costs of its networks, and whether a budget can be met; derive spaces of your own.

    Fails if the budget cannot be met.
    """
    limits = {**({} if latency is None else {"latency_ms": latency}), **counts}
    if latency is not None and table is None:
        raise typer.BadParameter("a latency needs the table of a device; build one with `ofa table build`.", param_hint="--table")
    changes = Changes(resolutions=resolutions, keep=keep, channels=channels, classes=classes, name=called)
    if name is None:
        if limits or table is not None or resolution is not None or changes.any or output is not None:
            raise typer.BadParameter("these options need a space; run `ofa space` for the names.", param_hint="SPACE")
        spaces = list_spaces()
        emit(spaces, json=json, render=lambda: _render_spaces(spaces))
        return
    from ofa.errors import BudgetError

    examined = _named(name, changes, output, overwrite)
    report = examine(examined, resolution=resolution, samples=samples, seed=seed, table=table, limits=limits)
    emit(report, json=json, render=lambda: _render_report(report), warnings=warn(report.pop("warnings")))
    if report["budget"] is not None and report["budget"]["least"]:
        raise BudgetError(_impossible(report))


def _named(name: str, changes: Changes, output: Path | None, overwrite: bool) -> Space:
    """The named space, with the options' changes, and written if they ask for it."""
    from ofa.training.spaces import find_space

    found = changes.of(find_space(name), output)
    if output is not None:
        write_space(found, output, overwrite=overwrite)
    return found


def list_spaces() -> list[dict[str, Any]]:
    """All named spaces with their size and the MACs of their smallest and largest network."""
    from ofa.cost import macs
    from ofa.families import get_space, lower, space_names
    from ofa.resolution import resolutions_to_json

    return [
        {
            "space": known.name,
            "size": known.size,
            "resolutions": resolutions_to_json(known.resolutions),
            "smallest_macs": macs(lower(known, known.smallest())),
            "largest_macs": macs(lower(known, known.largest())),
        }
        for known in map(get_space, space_names())
    ]


def examine(
    examined: Space, *, resolution: Resolution | None, samples: int, seed: int, table: Path | None, limits: Mapping[str, float]
) -> dict[str, Any]:
    """Costs of random networks of a space, and the share of them that keeps the limits.

    Args:
        examined: the space.
        resolution: only networks of this input size in pixels; None for all, or all of the table.
        samples: number of random networks.
        seed: seed of the random networks.
        table: file of a latency table, which adds ``latency_ms`` to the costs.
        limits: upper limits by the names of the costs.

    Returns:
        The JSON object of ``ofa space --json``, with warnings about table and space in the list ``warnings``. A budget is satisfiable
        (True) if an evaluated network keeps it: a sampled one, or the network with the smallest value of a limited cost. It is not (False)
        if the smallest value of a cost is above its limit (``least``). Otherwise it is None: unknown.

    Raises:
        SpaceError: the space lacks the resolution.
        TableError: the table is unreadable, or lacks blocks of the networks.
    """
    import numpy as np

    from ofa.resolution import resolutions_to_json

    name = examined.name
    latencies = _load_table(table, examined)
    if resolution is not None:
        examined = examined.restrict(resolution=[resolution])
    elif latencies is not None:
        examined = examined.restrict(resolution=list(latencies.info.resolutions_of(name)) or None)
    costs_of = _costs(examined, latencies)
    rng = np.random.default_rng(seed)
    drawn = costs_of(examined.encode_all([examined.sample(rng) for _ in range(samples)]))
    smallest, largest = (costs_of(examined.encode_all([end])) for end in (examined.smallest(), examined.largest()))
    budget, unused = _answer(examined, costs_of, drawn, limits) if limits else (None, ())
    return {
        "space": name,
        "size": examined.size,
        "resolutions": resolutions_to_json(examined.resolutions),
        "in_channels": examined.in_channels,
        "num_classes": examined.num_classes,
        "samples": samples,
        "seed": seed,
        "conditions": None if latencies is None else latencies.conditions.to_json(),
        "costs": {cost: _summary(column_N.tolist(), smallest[cost].item(), largest[cost].item()) for cost, column_N in drawn.items()},
        "budget": budget,
        "warnings": [*_advice_on(latencies), *unused],
    }


def _advice_on(latencies: LatencyTable | None) -> Sequence[str]:
    from latency_tables.advice import advice_on_table

    return () if latencies is None else advice_on_table(latencies.info)


def _unused(limits: Mapping[str, float], most: Mapping[str, float]) -> Sequence[str]:
    """A warning if no network uses much of the budget, judged by the largest value of each cost."""
    from search.units import called, typed

    used = {cost: most[cost] / limit for cost, limit in limits.items()}
    if max(used.values()) >= _USED:
        return ()
    cost = max(used, key=lambda cost: used[cost])
    return (
        f"no network of the space uses the budget: the largest one has {called(cost)} {typed(cost, most[cost], up=True)} of "
        f"{typed(cost, limits[cost])}; a larger space or resolution could use the rest for accuracy",
    )


def _load_table(path: Path | None, space: Space) -> LatencyTable | None:
    if path is None:
        return None

    from latency_tables import LatencyTable

    table = LatencyTable.load(path)
    table.info.check_same(space, table.called)
    return table


def _costs(examined: Space, latencies: LatencyTable | None) -> Callable[[Rows], dict[str, Any]]:
    """A function that returns the costs of encoded archs by name, [N] each; counts are integers."""
    import numpy as np

    from latency_tables import Estimator
    from ofa.row_costs import costs_of

    estimator = None if latencies is None else Estimator(examined, latencies)

    def costs(rows_NC: Rows) -> dict[str, Any]:
        counted = {name: column_N.astype(np.int64) for name, column_N in costs_of(examined)(rows_NC).items()}
        if estimator is None:
            return counted
        latency_N, _, high_N = estimator.estimates_of_rows(rows_NC)
        # Only a calibrated table has an interval.
        interval = {"latency_high_ms": high_N} if (high_N > latency_N).any() else {}
        return {"latency_ms": latency_N, **interval, **counted}

    return costs


def _summary(values: Sequence[float], smallest: float, largest: float) -> dict[str, float]:
    ascending = sorted(values)
    return {
        "smallest": smallest,
        "min": ascending[0],
        "median": ascending[len(ascending) // 2],
        "max": ascending[-1],
        "largest": largest,
    }


def _answer(
    examined: Space, costs_of: Callable[[Rows], dict[str, Any]], drawn: Mapping[str, Any], limits: Mapping[str, float]
) -> tuple[dict[str, Any], Sequence[str]]:
    """Whether a budget can be met, judged by random networks and by the smallest value of each cost; and warnings."""
    import numpy as np

    from search.evolution.local_search import extreme

    def compared(columns: Mapping[str, Any], cost: str) -> Any:
        # Budgets are compared with the upper end of the interval, if there is one, as in a search.
        return columns["latency_high_ms"] if cost == "latency_ms" and "latency_high_ms" in columns else columns[cost]

    least, rows, most = {}, [], {}
    for cost in limits:
        of_rows = partial(lambda cost, rows_NC: compared(costs_of(rows_NC), cost), cost)
        least[cost], row_1C = extreme(examined, of_rows)
        most[cost], _ = extreme(examined, of_rows, largest=True)
        rows.append(row_1C)
    ends = costs_of(np.concatenate(rows))
    kept = {cost: compared(drawn, cost) <= limit for cost, limit in limits.items()}
    kept_by_ends = [compared(ends, cost) <= limit for cost, limit in limits.items()]
    all_kept = np.all(list(kept.values()), axis=0)
    impossible = {cost: value for cost, value in least.items() if value > limits[cost]}
    answer = {
        "limits": dict(limits),
        "shares": {cost: float(column.mean()) for cost, column in kept.items()},
        "share": float(all_kept.mean()),
        "satisfiable": bool(all_kept.any() or np.all(kept_by_ends, axis=0).any()) or (False if impossible else None),
        "least": impossible,
    }
    return answer, _unused(limits, most)


def _format(cost: str) -> Callable[[float], str]:
    return {"count": format_count, "bytes": format_bytes}[COSTS.get(cost).unit] if cost in COSTS else format_ms


def _render_spaces(spaces: list[dict[str, Any]]) -> RenderableType:
    rows = []
    for row in spaces:
        costs = (format_count(row["smallest_macs"]), format_count(row["largest_macs"]))
        rows.append((row["space"], format_count(row["size"]), _pixels(row["resolutions"]), *costs))
    return records(("space", "networks", "resolutions", "MACs of the smallest", "MACs of the largest"), rows)


def _pixels(resolutions: list[int | str]) -> str:
    from ofa.resolution import pixels

    first, last, count = resolutions[0], pixels(resolutions[-1]), len(resolutions)
    return f"{first}..{last} ({count})" if count > 1 else last


def _render_report(report: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    from search.units import called

    title = f"{report['space']}: {format_count(report['size'])} networks of {_pixels(report['resolutions'])}"
    columns = ("smallest", "min", "median", "max", "largest")
    caption = f"min, median, max over {report['samples']} random networks, seed {report['seed']}"
    ends = {"latency_high_ms": "latency, upper end"}
    rows = [
        (ends.get(cost, called(cost)), *(_format(cost)(summary[column]) for column in columns)) for cost, summary in report["costs"].items()
    ]
    timed = [] if report["conditions"] is None else [f"latency: {format_conditions(report['conditions'])}"]
    return Group(records(("", *columns), rows, title=title, caption=caption), *map(words, [*timed, *_words(report)]))


def _words(report: dict[str, Any]) -> list[str]:
    """The answer about the budget, one sentence per line."""
    from search.units import called, typed

    answer = report["budget"]
    if answer is None:
        return []
    shares = answer["shares"]
    said = [f"{called(cost)} of at most {typed(cost, limit)}: {format_percent(shares[cost])}" for cost, limit in answer["limits"].items()]
    if answer["satisfiable"] is None:
        said.append("Each limit alone can be kept, but no evaluated network keeps all of them: a search finds out whether one does.")
    elif answer["satisfiable"]:
        said.append(f"The budget can be met: {format_percent(answer['share'])} of the sampled networks keep it.")
    return said


def _impossible(report: Mapping[str, Any]) -> str:
    """The error message for a budget that no network of a space keeps."""
    from search.units import called, typed

    answer = report["budget"]
    limits = " and ".join(f"{called(cost)} of at most {typed(cost, limit)}" for cost, limit in answer["limits"].items())
    least = " and ".join(f"{called(cost)} {typed(cost, value, up=True)}" for cost, value in answer["least"].items())
    return (
        f"a budget must be one that some network keeps, but none of {report['space']} has {limits}: the least achievable is {least}; "
        "allow that"
    )
