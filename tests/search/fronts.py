"""Fronts for the tests of pictures and reports, of networks whose accuracy and latencies are computed from their genes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ofa.arch import Arch
from ofa.families import get_space
from ofa.latency import LATENCIES
from ofa.row_costs import costs_of
from search.evolution.pareto import non_dominated
from search.front.candidate import Candidate
from search.front.columns import floats_of
from search.front.front import Front
from search.front.info import FrontInfo, VerifiedNetwork

HOSTILE = "</script><img src=x onerror=window.ran=1>&amp;\"'${1}`"
"""A name that would run if any part of a page took it for markup."""


def make_front(
    space: str = "ofa-mbv3-tiny", *, networks: int = 800, devices: Sequence[str] = ("pi", "phone"), seed: int = 0, **info: Any
) -> Front:
    """A front of random networks: the first device has intervals, the others have none; the last has energies."""
    searched = get_space(space)
    rng = np.random.default_rng(seed)
    rows = np.unique(searched.sample_rows(networks, rng), axis=0)
    columns = {"accuracy": _accuracies(rows, rng), **costs_of(searched)(rows)}
    columns |= {"accuracy_low": columns["accuracy"] - 0.01, "accuracy_high": columns["accuracy"] + 0.01}
    for number, device in enumerate(devices):
        ms = 0.5 + columns["macs"] / 2e5 + (1 + number) * columns["params"] / 1e5
        ends = (0.93 * ms, 1.08 * ms) if number == 0 else (np.full(len(ms), np.nan),) * 2
        columns |= {f"latency_ms@{device}": ms, f"latency_low_ms@{device}": ends[0], f"latency_high_ms@{device}": ends[1]}
    if devices:
        columns[f"energy_mj@{devices[-1]}"] = 3 * columns[f"latency_ms@{devices[-1]}"]
    frame = pd.DataFrame(columns).assign(arch=[json.dumps(searched.decode(row.tolist()).to_json()) for row in rows])
    first = f"latency_ms@{devices[0]}" if devices else "macs"
    best = non_dominated(
        np.stack([-columns["accuracy"], columns[first], columns["weight_bytes"], columns["peak_activation_bytes"]], axis=1)
    )
    known = FrontInfo(
        space=space,
        num_classes=searched.num_classes,
        devices=tuple(devices),
        accuracy={"source": "predicted", "model": "fake", "networks": 60, "kendall_tau": 0.8, "rmse": 0.01},
        objectives=tuple(f"latency_high_ms@{device}" if device == devices[0] else f"latency_ms@{device}" for device in devices)
        or ("macs",),
        study={"sampler": "random", "seed": seed, "trials": networks, "evaluated": len(rows), "seconds": 1.5},
    )
    on_front = frame[best].sort_values(first, kind="stable", ignore_index=True)
    beaten = frame[~best].drop(columns=["arch", "accuracy_low", "accuracy_high"]).reset_index(drop=True)
    return Front(on_front, beaten, replace(known, **info))


def _accuracies(rows: Any, rng: np.random.Generator) -> Any:
    """More with every gene, by weights of their own."""
    weights = rng.random(rows.shape[1]) * 0.3
    return 0.9 - 0.5 * np.exp(-(rows @ weights))


def candidate(front: Front, row: int) -> Candidate:
    """The network of a row."""
    return front.candidate(row)


def best_rows(front: Front, limits: Mapping[str, float], *, top: int = 5, expected: bool = False) -> list[int]:
    """The rows of the most accurate networks within limits on columns of costs, best first.

    A latency is compared by the upper end of its interval where it has one. With the front of schema 2, ``Front.query`` says the same.
    """
    networks = front.networks
    allowed = np.ones(len(networks), dtype=np.bool_)
    for column, limit in limits.items():
        values = floats_of(networks, column)
        high = floats_of(networks, column.replace("latency_ms@", "latency_high_ms@"))
        allowed &= np.where(np.isfinite(high) & (not expected), high, values) <= limit
    rows = np.flatnonzero(allowed)
    return [int(row) for row in rows[np.argsort(-floats_of(networks, "accuracy")[rows], kind="stable")][:top]]


def arch_of(front: Front, row: int) -> Arch:
    """The network of a row."""
    return Arch.from_json(json.loads(front.networks["arch"].iloc[row]))


def verified(front: Front, device: str, factors: Sequence[float]) -> list[VerifiedNetwork]:
    """What a verification would add to a front: the first networks, each measured at a factor of its prediction."""
    found = []
    for row, factor in enumerate(factors):
        ms, low, high = (float(front.networks[f"{name}@{device}"].iloc[row]) for name in LATENCIES)
        ends = {"latency_low_ms": None if np.isnan(low) else low, "latency_high_ms": None if np.isnan(high) else high}
        found.append(VerifiedNetwork(arch=arch_of(front, row), device=device, latency_ms=ms, **ends, measured_ms=factor * ms))
    return found
