"""What the tasks of subnet_accuracy.py came to: a row a network, what follows from all of them, and the picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import describe_machine
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from tasks import Report

from ofa.arch import Arch
from ofa.cost import macs
from ofa.families import lower
from ofa.space import Space

METHODS, BEST = ("joint", "shrinking"), "joint"
"""How supernets are trained, and which of the ways is repeated with other seeds and fine-tuned from."""
KINDS = (*METHODS, "tuned")
"""What is held against the networks trained alone."""


def summary(work: Path, settings: Mapping[str, Any], space: Space, archs: Sequence[Arch]) -> Report:
    """The table: a row a network, and what follows from all of them.

    Args:
        work: folder of the tasks' results, which need not all be there.
        settings: the tasks' arguments.
        space: of the networks.
        archs: the networks, in the order of their numbers.
    """
    reports = [json.loads(path.read_text()) for path in sorted(work.glob("*.json"))]
    supernets = [report for report in reports if report["kind"] == "supernet"]
    rows = []
    for number, arch in enumerate(archs):
        row: Report = {"network": number, "macs": macs(lower(space, arch)), "arch": arch.to_json()}
        for method in METHODS:
            row[method] = spread([report["accuracy"][number] for report in supernets if report["method"] == method])
        of_network = [report for report in reports if report.get("network") == number]
        row["tuned"] = spread([report["accuracy"] for report in of_network if report["kind"] == "tuned"])
        # In favour of the twins: each has the better of its rates, going by the test images themselves.
        for rate in ("rate", "second_rate"):
            row[f"alone_{rate}"] = spread([report["accuracy"] for report in of_network if report.get("rate") == rate])
        found = [row[key] for key in ("alone_rate", "alone_second_rate") if row[key]]
        row["alone"] = max(found, key=lambda result: result["mean"], default=None)
        rows.append(row)
    widest = widest_spread(rows, settings["seeds"])
    return {
        "machine": describe_machine(),
        "settings": {name: Path(value).name if name in ("train", "test") else value for name, value in settings.items()},
        "recipes": {report["method"]: without_folders(report["recipe"], settings) for report in supernets if report["seed"] == 0},
        "durations_s": {label(report): round(report["duration_s"]) for report in reports},
        "kendall_supernet_alone": {kind: rank_correlation(rows, kind) for kind in KINDS},
        "spread_over_seeds": widest,
        "below_alone_by_more_than_spread": None if widest is None else {kind: below(rows, kind, widest) for kind in KINDS},
        "mean_above_alone": {kind: mean_difference(rows, kind) for kind in KINDS},
        "rows": rows,
    }


def draw(report: Report, path: Path) -> None:
    """Accuracy against MACs: from the supernet, fine-tuned, and trained alone, with bars from the least to the most of the seeds."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    kinds = {BEST: ("straight from the supernet", "o", "tab:blue"), "tuned": ("after a short fine-tuning", "^", "tab:green")}
    for number, (kind, (name, marker, colour)) in enumerate({**kinds, "alone": ("trained alone", "s", "tab:orange")}.items()):
        rows = [row for row in report["rows"] if row[kind]]
        shift = 0.12e6 * (number - 1)  # so that the bars stand side by side
        mean = [100 * row[kind]["mean"] for row in rows]
        bars = [[100 * abs(row[kind]["mean"] - row[kind][end]) for row in rows] for end in ("low", "high")]
        x = [(row["macs"] + shift) / 1e6 for row in rows]
        axes.errorbar(x, mean, bars, fmt=marker, color=colour, label=name, capsize=2, markersize=5, linewidth=1)
    axes.set_xlabel("MMACs")
    axes.set_ylabel("accuracy on test images (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def without_folders(recipe: str, settings: Mapping[str, Any]) -> str:
    """A recipe that names its files and not where they lay."""
    for name in ("train", "test"):
        recipe = recipe.replace(settings[name], Path(settings[name]).name)
    return recipe


def below(rows: list[Report], kind: str, spread: float) -> list[int]:
    """The networks that are worse than their twins trained alone by more than the widest spread over seeds that was seen."""
    return [row["network"] for row in rows if row[kind] and row["alone"] and row[kind]["mean"] < row["alone"]["mean"] - spread]


def widest_spread(rows: list[Report], seeds: int) -> float | None:
    """The widest spread over seeds of any network, straight from the best supernet or alone; None where there was one seed."""
    spreads = [
        row[kind]["high"] - row[kind]["low"] for row in rows for kind in (BEST, "alone") if row[kind] and row[kind]["seeds"] == seeds
    ]
    return max(spreads, default=None) if seeds > 1 else None


def mean_difference(rows: list[Report], kind: str) -> float | None:
    """By how much the networks are above their twins trained alone, on average; None where none has both."""
    differences = [row[kind]["mean"] - row["alone"]["mean"] for row in rows if row[kind] and row["alone"]]
    return statistics.fmean(differences) if differences else None


def rank_correlation(rows: list[Report], kind: str) -> float | None:
    """Kendall's tau between the accuracies of a kind and alone; None where fewer than three networks have both."""
    pairs = [(row[kind]["mean"], row["alone"]["mean"]) for row in rows if row["alone"] and row[kind]]
    return float(kendalltau(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None


def label(report: Report) -> str:
    return "-".join(str(report[key]) for key in ("kind", "method", "network", "seed", "rate") if key in report)


def spread(values: list[float]) -> Report | None:
    """Mean, least and most over the seeds; None without any."""
    if not values:
        return None
    return {"mean": statistics.fmean(values), "low": min(values), "high": max(values), "seeds": len(values)}
