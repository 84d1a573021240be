"""The table of adopted_accuracy.py: a row a budget."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pruned_models import BUDGETS, WAYS
from tasks import SETTINGS, Report

__all__ = ["summary"]


def summary(work: Path) -> Report:
    """What the results in a folder come to; of what is not there yet nothing is said.

    Args:
        work: folder of the tasks' results.
    """
    rows = [_row(work, budget) for budget in BUDGETS]
    settings, supernet = json.loads((work / SETTINGS).read_text()), _result(work, "supernet")
    settings |= {key: Path(settings[key]).name for key in ("train", "test")}
    if supernet:  # of files whose folders say nothing elsewhere
        supernet["recipe"] = re.sub(r'"/[^"]*/', '"', supernet["recipe"])
    return {"settings": settings, "model": _result(work, "model"), "supernet": supernet, "rows": rows}


def _row(work: Path, budget: int) -> Report:
    """Accuracies on the test images, and latencies as a share of the whole model's in the same turns."""
    networks, pruned = _result(work, "networks"), _result(work, "torch-pruning")
    row: dict[str, Any] = {"budget_percent": budget}
    if networks:
        row["latency_percent"] = _percent(networks["latency_ms"][str(budget)], networks["latency_ms"]["whole"])
    names = {"straight": "straight", "pruned_straight": "chosen-of-pruned", "tuned": "tuned", "pruned_tuned": "pruned", "alone": "alone"}
    row |= {key: _result(work, f"{name}-{budget}").get("accuracy") for key, name in names.items()}
    row["straight_held_out"] = _result(work, f"straight-{budget}").get("held_out")
    row["tried_of_pruned"] = _result(work, f"chosen-of-pruned-{budget}").get("tried")
    if pruned:
        whole = pruned["latency_ms"]["whole"]
        row["pruned_latency_percent"] = {
            way: _percent(pruned["chosen"][f"{way}-{budget}"]["latency_ms"], whole) for way in WAYS if f"{way}-{budget}" in pruned["chosen"]
        }
        row["latency_percent_beside_pruned"] = _percent(pruned["latency_ms"][str(budget)], whole)
    return row


def _result(work: Path, name: str) -> Report:
    path = work / f"{name}.json"
    found: Report = json.loads(path.read_text()) if path.exists() else {}
    return found


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 1)
