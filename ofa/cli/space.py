"""``ofa space``: how large a space is, what its networks cost, and whether a budget can be met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import LatencyOption, MacsOption, MemoryOption, ParamsOption, WeightsOption, given
from ofa.cli.console import (
    JsonOption,
    emit,
    format_bytes,
    format_conditions,
    format_count,
    format_ms,
    format_percent,
    progress_bar,
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

if TYPE_CHECKING:
    from rich.console import RenderableType

    from latency_tables import LatencyTable
    from ofa.blocks import PlacedBlock
    from ofa.space import Space

__all__ = ["register"]

_EXAMPLE = "Example: ofa space ofa-mbv3-w1.0 --resolution 224 --macs 300M --memory 2MiB"
_USED = 0.8
"""The share of a budget below which the most that any network uses leaves much of it."""


def register(app: typer.Typer) -> None:
    """Add ``ofa space``."""
    app.command("space", epilog=_EXAMPLE)(space)


def space(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[SPACE]", help="A space: its name, its file, or module:attribute; without it, all names are listed."),
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Only networks of this input size, in pixels.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many random networks to look at.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random networks.")] = 0,
    table: Annotated[Path | None, typer.Option(help="A latency table, to look at latencies as well.")] = None,
    latency: LatencyOption = None,
    macs: MacsOption = None,
    params: ParamsOption = None,
    weights: WeightsOption = None,
    memory: MemoryOption = None,
    resolutions: ResolutionsOption = None,
    keep: KeepOption = None,
    channels: ChannelsOption = None,
    classes: ClassesOption = None,
    called: NameOption = None,
    output: OutputOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a space file that is already there.")] = False,
    json: JsonOption = False,
) -> None:
    """Size of a space, the costs of its networks, and whether a budget can be met; and spaces of one's own from it.

    Fails if the budget cannot be met.
    """
    limits = given(latency_ms=latency, macs=macs, params=params, weight_bytes=weights, peak_activation_bytes=memory)
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
    if report["budget"] is not None and not report["budget"]["satisfiable"]:
        raise BudgetError(_impossible(report))


def _named(name: str, changes: Changes, output: Path | None, overwrite: bool) -> Space:
    """The space that is named, changed as the options say, and written where they say."""
    from ofa.families import get_space

    found = changes.of(get_space(name), output)
    if output is not None:
        write_space(found, output, overwrite=overwrite)
    return found


def list_spaces() -> list[dict[str, Any]]:
    """Every named space with its size and the MACs of its smallest and largest network."""
    from ofa.cost import macs
    from ofa.families import get_space, lower, space_names

    return [
        {
            "space": known.name,
            "size": known.size,
            "resolutions": list(known.resolutions),
            "smallest_macs": macs(lower(known, known.smallest())),
            "largest_macs": macs(lower(known, known.largest())),
        }
        for known in map(get_space, space_names())
    ]


def examine(
    examined: Space, *, resolution: int | None, samples: int, seed: int, table: Path | None, limits: Mapping[str, float]
) -> dict[str, Any]:
    """What random networks of a space cost, and which share of them keeps the limits.

    Args:
        examined: the space.
        resolution: look only at networks of this input size in pixels; None for all, or all that the table was built for.
        samples: number of random networks.
        seed: seed of their choice.
        table: file of a latency table, which adds ``latency_ms`` to the costs.
        limits: the most that a network may cost, by the names of the costs.

    Returns:
        the JSON object of ``ofa space --json``, with what warns of the table or the space in the list ``warnings``. A budget is
        satisfiable if a sampled network or the smallest one keeps it.

    Raises:
        SpaceError: it has no such resolution.
        TableError: the table is unreadable, or lacks blocks of the networks.
    """
    import numpy as np

    from ofa.families import lower

    name = examined.name
    latencies = _load_table(table, examined)
    if resolution is not None:
        examined = examined.restrict(resolution=[resolution])
    elif latencies is not None:
        examined = examined.restrict(resolution=latencies.metadata["spaces"].get(name))
    costs_of = _costs(examined, latencies)
    rng = np.random.default_rng(seed)
    drawn = []
    with progress_bar(f"costs of {name}") as progress:
        for done in range(1, samples + 1):
            drawn.append(costs_of(lower(examined, examined.sample(rng))))
            progress(done, samples)
    smallest, largest = costs_of(lower(examined, examined.smallest())), costs_of(lower(examined, examined.largest()))
    return {
        "space": name,
        "size": examined.size,
        "resolutions": list(examined.resolutions),
        "in_channels": examined.in_channels,
        "num_classes": examined.num_classes,
        "samples": samples,
        "seed": seed,
        "conditions": None if latencies is None else latencies.conditions.to_json(),
        "costs": {cost: _summary([network[cost] for network in drawn], smallest[cost], largest[cost]) for cost in smallest},
        "budget": _answer(limits, drawn, smallest) if limits else None,
        "warnings": [*_advice_on(latencies), *_unused(limits, largest)],
    }


def _advice_on(latencies: LatencyTable | None) -> Sequence[str]:
    from latency_tables.advice import advice_on_table

    return () if latencies is None else advice_on_table(latencies.metadata)


def _unused(limits: Mapping[str, float], largest: Mapping[str, float]) -> Sequence[str]:
    """What is said of a budget that not even the largest network uses."""
    from search.units import called, typed

    used = {cost: _compared(largest, cost) / limit for cost, limit in limits.items()}
    if not used or max(used.values()) >= _USED:
        return ()
    cost = max(used, key=lambda cost: used[cost])
    return (
        f"no network of the space uses the budget: the largest one has {called(cost)} {typed(cost, _compared(largest, cost), up=True)} of "
        f"{typed(cost, limits[cost])}; a larger space or resolution could use the rest for accuracy",
    )


def _load_table(path: Path | None, space: Space) -> LatencyTable | None:
    if path is None:
        return None

    from latency_tables import LatencyTable
    from latency_tables.spaces import check_same

    table = LatencyTable.load(path)
    check_same(table.metadata, space, f"table '{path}'")
    return table


def _costs(examined: Space, latencies: LatencyTable | None) -> Callable[[tuple[PlacedBlock, ...]], dict[str, float]]:
    from ofa.cost import costs

    if latencies is None:
        return lambda lowered: dict(costs(lowered))

    def with_latency(lowered: tuple[PlacedBlock, ...]) -> dict[str, float]:
        estimate = latencies.estimate(examined, lowered)
        # Only a calibrated table knows an interval; where it does, budgets are held against its upper end, as in a search.
        interval = {"latency_high_ms": estimate.latency_high_ms} if estimate.has_interval else {}
        return {"latency_ms": estimate.latency_ms, **interval, **costs(lowered)}

    return with_latency


def _compared(network: Mapping[str, float], cost: str) -> float:
    """What a limit is held against."""
    return network["latency_high_ms"] if cost == "latency_ms" and "latency_high_ms" in network else network[cost]


def _summary(values: Iterable[float], smallest: float, largest: float) -> dict[str, float]:
    ascending = sorted(values)
    return {
        "smallest": smallest,
        "min": ascending[0],
        "median": ascending[len(ascending) // 2],
        "max": ascending[-1],
        "largest": largest,
    }


def _answer(limits: Mapping[str, float], drawn: list[dict[str, float]], smallest: dict[str, float]) -> dict[str, Any]:
    kept = [[_compared(network, cost) <= limit for cost, limit in limits.items()] for network in drawn]
    impossible = [cost for cost, limit in limits.items() if _compared(smallest, cost) > limit]
    return {
        "limits": dict(limits),
        "shares": {cost: sum(column) / len(drawn) for cost, column in zip(limits, zip(*kept, strict=True), strict=True)},
        "share": sum(map(all, kept)) / len(drawn),
        "satisfiable": any(map(all, kept)) or not impossible,
        "least": {cost: _compared(smallest, cost) for cost in impossible},
    }


_FORMATS: dict[str, Callable[[float], str]] = {
    "latency_ms": format_ms,
    "latency_high_ms": format_ms,
    "macs": format_count,
    "params": format_count,
    "weight_bytes": format_bytes,
    "peak_activation_bytes": format_bytes,
}


def _render_spaces(spaces: list[dict[str, Any]]) -> RenderableType:
    rows = []
    for row in spaces:
        costs = (format_count(row["smallest_macs"]), format_count(row["largest_macs"]))
        rows.append((row["space"], format_count(row["size"]), _pixels(row["resolutions"]), *costs))
    return records(("space", "networks", "resolutions", "MACs of the smallest", "MACs of the largest"), rows)


def _pixels(resolutions: list[int]) -> str:
    first, last, count = resolutions[0], resolutions[-1], len(resolutions)
    return f"{first}..{last} px ({count})" if count > 1 else f"{first} px"


def _render_report(report: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    from search.units import called

    title = f"{report['space']}: {format_count(report['size'])} networks of {_pixels(report['resolutions'])}"
    columns = ("smallest", "min", "median", "max", "largest")
    caption = f"min, median, max over {report['samples']} random networks, seed {report['seed']}"
    ends = {"latency_high_ms": "latency, upper end"}
    rows = [
        (ends.get(cost, called(cost)), *(_FORMATS[cost](summary[column]) for column in columns))
        for cost, summary in report["costs"].items()
    ]
    timed = [] if report["conditions"] is None else [f"latency: {format_conditions(report['conditions'])}"]
    return Group(records(("", *columns), rows, title=title, caption=caption), *map(words, [*timed, *_words(report)]))


def _words(report: dict[str, Any]) -> list[str]:
    """The answer about the budget, a sentence a line."""
    from search.units import called, typed

    answer = report["budget"]
    if answer is None:
        return []
    shares = answer["shares"]
    said = [f"{called(cost)} of at most {typed(cost, limit)}: {format_percent(shares[cost])}" for cost, limit in answer["limits"].items()]
    if answer["satisfiable"]:
        said.append(f"The budget can be met: {format_percent(answer['share'])} of the sampled networks keep it.")
    return said


def _impossible(report: Mapping[str, Any]) -> str:
    """The sentence about a budget that no network of a space keeps."""
    from search.units import called, typed

    answer = report["budget"]
    limits = " and ".join(f"{called(cost)} of at most {typed(cost, limit)}" for cost, limit in answer["limits"].items())
    least = " and ".join(f"{called(cost)} {typed(cost, value, up=True)}" for cost, value in answer["least"].items())
    return (
        f"a budget must be one that some network keeps, but none of {report['space']} has {limits}: the least achievable is {least}; "
        "allow that"
    )
