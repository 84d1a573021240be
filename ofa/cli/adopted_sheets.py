"""The printed report of ``ofa adopt``: elastic and fixed dimensions, and the costs of the smallest and largest network."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ofa.cli.console import format_bytes, format_count, format_percent
from ofa.cli.sheets import Name, facts, line, records, words

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["render"]

_NAMED = 3
"""Tensors that are named for each reason."""
_REASONS = 8


def render(report: Mapping[str, Any]) -> RenderableType:
    """The report of ``ofa adopt`` for people.

    Args:
        report: its JSON object.
    """
    from rich.console import Group

    from search.report.adopted import CHOICE_HEADS, choice_rows, fixed_rows

    choices = records(
        CHOICE_HEADS,
        choice_rows(report["groups"], report["depths"]),
        title=f"{report['space']}: {format_count(report['size'])} networks",
    )
    fixed = fixed_rows(report["fixed"], named=_NAMED)
    lines = [f"Stays as it is, {count}: {names}: {reason}." for reason, count, names in fixed[:_REASONS]]
    if len(fixed) > _REASONS:
        lines.append(f"And {len(fixed) - _REASONS} more reasons (--json).")
    following = f"ofa train adopt --from {shlex.quote(report['run'])} --set data=DATA -o TRAINED"
    return Group(facts(list(_rows(report))), choices, *map(words, lines), line(f"Next: {following}"))


def _rows(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    from ofa.resolution import pixels

    yield "run", Name(report["run"])
    yield "space", Name(f"{report['run']}/space.json")
    yield "input", f"{report['in_channels']} channels, {_sizes([pixels(each) for each in report['resolutions']])}"
    yield "classes", str(report["num_classes"])
    for end in ("smallest", "largest"):
        cost = report[end]
        macs, params = format_count(cost["macs"]), format_count(cost["params"])
        yield f"{end} network", f"{macs} MACs, {params} parameters, {format_bytes(cost['weight_bytes'])} of weights"
    yield "elastic", f"{format_percent(report['elastic_share'])} of the parameters"
    exact = report["difference"] == 0
    difference = "bit for bit" if exact else f"but for {report['difference']:.1g} of the largest output"
    yield "exactness", f"the largest network computes what the model does, {difference}"


def _sizes(texts: Sequence[str]) -> str:
    return f"{', '.join(text.removesuffix(' px') for text in texts)} px"
