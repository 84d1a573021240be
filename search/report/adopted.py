"""What the networks of an adopted model may choose, and what stays as the model has it: rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["choice_rows", "fixed_rows"]

Json = Mapping[str, Any]


def choice_rows(groups: Sequence[Json], depths: Sequence[Json]) -> list[tuple[str, ...]]:
    """A row for each gene of each stage: its name, where, how many sizes it decides, their units, what networks have, tensors.

    Args:
        groups: JSON values of ``ofa.adopting.describing.SizeFacts``.
        depths: those of ``ElasticDepth``.
    """
    rows: dict[tuple[int, str], tuple[str, ...]] = {}
    for each in depths:
        stage = int(each["stage"])
        rows[stage, ""] = ("depth", f"stage {stage + 1}", "", f"{each['blocks']} blocks", _numbers(each["choices"]), "")
    together: dict[tuple[int, str], list[Json]] = {}
    for group in groups:
        together.setdefault((-1 if group.get("stage") is None else group["stage"], group["gene"]), []).append(group)
    for (stage, gene), own in together.items():
        units = sorted({group["units"] for group in own})
        choices = dict.fromkeys(tuple(group["choices"]) for group in own)
        rows[stage, gene] = (
            gene or "none",
            "too few units" if not gene else "network" if stage < 0 else f"stage {stage + 1}",
            str(len(own)),
            f"{units[0]}" if len(units) == 1 else f"{units[0]}..{units[-1]}",
            _numbers(next(iter(choices))) if len(choices) == 1 else f"{max(map(len, choices))} values",
            str(sum(group["tensors"] for group in own)),
        )
    return [rows[key] for key in sorted(rows)]


def fixed_rows(fixed: Sequence[Json], *, named: int) -> list[tuple[str, int, str]]:
    """By reason how many dimensions stay for it, and the first of them; the most common reason first.

    Args:
        fixed: JSON values of ``ofa.adopting.record.Fixed``.
        named: how many dimensions are named.
    """
    together: dict[str, list[str]] = {}
    for each in fixed:
        together.setdefault(each["reason"], []).append(f"{each['tensor']}[{each['dim']}] of {each['size']}")
    found = []
    for reason, names in sorted(together.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - named} more" if len(names) > named else ""
        found.append((reason, len(names), f"{', '.join(names[:named])}{more}"))
    return found


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
