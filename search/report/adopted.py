"""Elastic and fixed dimensions of an adopted model, as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa.adopting.describing import depths_of, sizes_of
from ofa.adopting.record import AdoptionRecord
from ofa.costs import COSTS, costs
from ofa.families import AdoptedSpace, lower
from ofa.resolution import pixels
from ofa.schema import to_json
from ofa.space import Space
from search.units import called, typed

__all__ = ["CHOICE_HEADS", "SECTION", "Adopted", "adopted_of", "choice_rows", "fixed_rows"]

Json = Mapping[str, Any]

SECTION = ("adopted", "Elastic sizes")
CHOICE_HEADS = ("gene", "stage: first layer", "of", "networks have", "tensors")
_FEW = 3
"""Up to so many consecutive numbers are listed one by one."""
_NAMED = 12
"""Fixed dimensions that a page names for each reason."""


@dataclass(frozen=True)
class Adopted:
    """Tables about an adopted model.

    Attributes:
        choices: rows under ``CHOICE_HEADS``.
        ends: a heading row, and one row of costs each for the smallest and the largest network.
        fixed: rows of reason, number of dimensions that are fixed for it, and the first of them.
        members: for each elastic size, the tensor dimensions that shrink with it.
        known: whether the record of the adoption, which lists fixed dimensions, is available.
    """

    choices: list[tuple[str, ...]]
    ends: list[tuple[str, ...]]
    fixed: list[tuple[str, int, str]]
    members: Mapping[str, tuple[str, ...]]
    known: bool

    heads = CHOICE_HEADS


def adopted_of(space: Space | None, record: AdoptionRecord | None = None) -> Adopted | None:
    """Tables of an adopted space and the record of its adoption; None for a space of another family.

    Args:
        space: the space of a front or run.
        record: record of the run that ``ofa adopt`` wrote; None for other sources.
    """
    if not isinstance(space, AdoptedSpace):
        return None
    fixed, members = ((), {}) if record is None else (record.fixed, record.members)
    choices = choice_rows(to_json(sizes_of(space)), to_json(depths_of(space)))
    return Adopted(choices, _end_rows(space), fixed_rows(to_json(fixed), named=_NAMED), members, record is not None)


def choice_rows(groups: Sequence[Json], depths: Sequence[Json]) -> list[tuple[str, ...]]:
    """A row under ``CHOICE_HEADS`` for each gene of each stage.

    Args:
        groups: JSON values of ``ofa.adopting.describing.SizeFacts``.
        depths: JSON values of ``ElasticDepth``.
    """
    rows: dict[tuple[int, str], tuple[str, ...]] = {}
    for each in depths:
        stage = int(each["stage"])
        rows[stage, ""] = ("depth", f"{stage + 1}: {each['origins'][0]}", f"{each['blocks']} blocks", _numbers(each["choices"]), "")
    together: dict[tuple[int, str], list[Json]] = {}
    for group in groups:
        together.setdefault((-1 if group.get("stage") is None else group["stage"], group["gene"]), []).append(group)
    for (stage, gene), own in together.items():
        units = sorted({group["units"] for group in own})
        choices = dict.fromkeys(tuple(group["choices"]) for group in own)
        rows[stage, gene] = (
            gene or "none",
            f"{'all' if stage < 0 else stage + 1}: {_layer(own[0]['name'])}",
            f"{len(own)} x " * (len(own) > 1) + (f"{units[0]}" if len(units) == 1 else f"{units[0]}..{units[-1]}"),
            _numbers(next(iter(choices))) if len(choices) == 1 else f"{max(map(len, choices))} values",
            str(sum(group["tensors"] for group in own)),
        )
    return [rows[key] for key in sorted(rows)]


def _end_rows(space: AdoptedSpace) -> list[tuple[str, ...]]:
    ends = {"smallest": space.smallest(), "largest": space.largest()}
    rows = [("network", "input", *map(called, COSTS.names()))]
    for name, arch in ends.items():
        found = costs(lower(space, arch))
        rows.append((name, pixels(arch.resolution), *(typed(cost, found[cost], up=True) for cost in COSTS.names())))
    return rows


def fixed_rows(fixed: Sequence[Json], *, named: int) -> list[tuple[str, int, str]]:
    """Rows of reason, number of dimensions that are fixed for it, and the first of them; the most common reason first.

    Args:
        fixed: JSON values of ``ofa.adopting.record.Fixed``.
        named: number of dimensions to name for each reason.
    """
    together: dict[str, list[str]] = {}
    for each in fixed:
        together.setdefault(each["reason"], []).append(f"{each['tensor']}[{each['dim']}] of {each['size']}")
    found = []
    for reason, names in sorted(together.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - named} more" if len(names) > named else ""
        found.append((reason, len(names), f"{', '.join(names[:named])}{more}"))
    return found


def _layer(size: str) -> str:
    """The layer of a size that is named after a tensor, or the tensor if it belongs to no layer."""
    tensor = size.rpartition("[")[0]
    return tensor.rpartition(".")[0] or tensor


def _numbers(values: Sequence[int]) -> str:
    if len(values) > _FEW and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}..{values[-1]}"
    return ", ".join(map(str, values))
