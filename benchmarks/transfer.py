"""How well a table moves to a device of which ten networks were measured, on published measurements of two graphics cards.

    python benchmarks/transfer.py --data ofa_mbv3_w1.2_gpu_latency.csv --out benchmarks/results/transfer.json

The file (of HELP, Lee et al., NeurIPS 2021) has the latencies of 2,500 networks on an RTX 2080 Ti and a Titan RTX, at batch 1 and 64,
one column each, which makes four devices. No table of their blocks was published, so the known device's is learned from 2,000 of its
networks. The ten of the new device are drawn from the same 2,000, and everything is judged on the other 500, of which no model has seen
anything. Figures are medians over draws of the ten, several for each of several splits; shares ("coverage", "source_alone") are means.
The few constants of the method were chosen on other splits of the same file: no figure is of a device that nobody had looked at.

Beside the transfer stand: the known device's table as it is; the same times a factor; the costs of calls, blocks, layers, MACs, values
and weights alone, without the known device; a ridge regression over one-hot genes and resolution on the same ten networks, and one on
2,000 networks of the new device ("linear_on_2000"); and the new device's own table from these 2,000 ("own_table").
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge, RidgeCV
from threadpoolctl import threadpool_limits

from latency_tables import Estimator, LatencyTable
from latency_tables.from_networks import UNITS, fit_costs, measured_elsewhere, table_from_networks, units_of
from latency_tables.importing import IMPORTED
from latency_tables.transfer import transfer_table
from ofa.arch import Arch
from ofa.families import get_space, lower
from ofa.interop import mit

SPACE = get_space("ofa-mbv3-w1.2")
DEVICES = {"2080ti_1": 1, "titan_rtx_1": 1, "2080ti_64": 64, "titan_rtx_64": 64}
"""Columns of the file without their beginning, and the images of a call."""
ALPHAS = np.logspace(-3, 3, 13)
DISTURBED = (1.3, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nets", type=int, default=10, help="networks of the new device")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--draws", type=int, default=20, help="draws of the networks in each split")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()
    with threadpool_limits(1), others_during() as others:
        networks = Networks(arguments.data)
        splits = [measure_split(networks, seed, arguments) for seed in range(arguments.splits)]
    figures = {pair: summary([draw for split in splits for draw in split[pair]]) for pair in splits[0]}
    for pair, figure in figures.items():
        print(pair, json.dumps(figure, indent=1))
    if arguments.out:
        settings = {key: getattr(arguments, key) for key in ("nets", "splits", "draws", "train")}
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "seconds": round(time.perf_counter() - start, 1)}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({**value, "data": arguments.data.name, **settings, "figures": figures}, indent=1) + "\n")


class Networks:
    """The networks of the file: archs, what each took on each device, and their features for the linear model."""

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.archs = [arch_of(row) for row in rows]
        self.ms = {name: np.array([float(row[f"lat_ms_{name}"]) for row in rows]) for name in DEVICES}
        self.rows = np.array([SPACE.encode(arch) for arch in self.archs], dtype=np.int8)
        self.one_hot = one_hot(self.archs)
        self.units = np.array([np.sum([units_of(p.block, p.input) for p in lower(SPACE, arch)], axis=0) for arch in self.archs])

    def chosen(self, numbers: np.ndarray) -> list[Arch]:
        return [self.archs[number] for number in numbers]


def arch_of(row: Mapping[str, str]) -> Arch:
    settings = {key: [int(value) for value in row[name].split("-")] for key, name in (("d", "depths"), ("ks", "kernels"), ("e", "expands"))}
    return mit.arch(SPACE, settings, int(row["resolution"]))


def one_hot(archs: Sequence[Arch]) -> np.ndarray:
    """A feature for each slot, and for each value of the resolution and of each slot's genes; those of skipped blocks are all zero."""
    columns: dict[tuple[Any, ...], int] = {}
    rows = [[columns.setdefault(feature, len(columns)) for feature in features_of(arch)] for arch in archs]
    features = np.zeros((len(archs), len(columns)))
    for row, found in zip(features, rows, strict=True):
        row[found] = 1
    return features


def features_of(arch: Arch) -> list[tuple[Any, ...]]:
    slots = [(s, b, genes) for s, stage in enumerate(arch.stages) for b, genes in enumerate(stage)]
    present = [(s, b) for s, b, _ in slots]
    return [("resolution", arch.resolution), *present, *((s, b, name, value) for s, b, genes in slots for name, value in genes.items())]


def measure_split(networks: Networks, seed: int, arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The figures of all draws, by known and new device."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(networks.archs))
    train, test = order[: arguments.train], order[arguments.train :]
    tables = {name: known_table(networks, name, train) for name in DEVICES}
    references = {name: reference(networks, tables[name], name, train, test) for name in DEVICES}
    draws = [rng.choice(train, arguments.nets, replace=False) for _ in range(arguments.draws)]
    return {
        f"{known} -> {new}": [
            {**references[new], **measure_draw(networks, tables[known], new, ten, test, np.random.default_rng([seed, number]))}
            for number, ten in enumerate(draws)
        ]
        for known, new in itertools.permutations(DEVICES, 2)
    }


def known_table(networks: Networks, name: str, train: np.ndarray) -> LatencyTable:
    return table_from_networks(SPACE, networks.chosen(train), networks.ms[name][train].tolist(), origin=origin(name))


def origin(name: str) -> dict[str, Any]:
    device = {"name": name, "runtime": IMPORTED, "threads": None, "precision": "fp32", "batch": DEVICES[name], "clocks": "unknown"}
    return measured_elsewhere(device)


def reference(networks: Networks, own: LatencyTable, name: str, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """What models reach that were fitted to 2,000 networks of the new device itself."""
    measured = networks.ms[name]
    linear = RidgeCV(ALPHAS).fit(networks.one_hot[train], measured[train]).predict(networks.one_hot[test])
    estimated = Estimator(SPACE, own).latencies_of_rows(networks.rows[test])
    return {"linear_on_2000": quality(linear, measured[test]), "own_table": quality(estimated, measured[test])}


def measure_draw(
    networks: Networks, known: LatencyTable, new: str, ten: np.ndarray, test: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """The figures of one draw."""
    measured = networks.ms[new]
    as_is = Estimator(SPACE, known)
    said, said_of_ten = as_is.latencies_of_rows(networks.rows[test]), as_is.latencies_of_rows(networks.rows[ten])
    disturbed = measured[ten].copy()
    disturbed[:2] *= rng.uniform(*DISTURBED, size=2)
    # Without an intercept a network of more blocks takes longer from the start: far better on so few.
    ridge = Ridge(1.0, fit_intercept=False).fit(networks.one_hot[ten], measured[ten]).predict(networks.one_hot[test])
    moved = transferred(networks, known, new, ten, measured[ten], test)
    return {
        "as_it_is": quality(said, measured[test]),
        "factor_alone": quality(said * np.median(measured[ten] / said_of_ten), measured[test]),
        "without_known_device": quality(units_alone(networks.units, ten, measured[ten])[test], measured[test]),
        "linear_on_the_same": quality(ridge, measured[test]),
        "transfer": moved,
        "transfer_two_disturbed": transferred(networks, known, new, ten, disturbed, test),
    }


def transferred(
    networks: Networks, known: LatencyTable, new: str, ten: np.ndarray, measured_ms: np.ndarray, test: np.ndarray
) -> dict[str, float]:
    table = transfer_table(known, SPACE, networks.chosen(ten), measured_ms.tolist(), origin=origin(new))
    latency, low, high = Estimator(SPACE, table).estimates_of_rows(networks.rows[test])
    measured = networks.ms[new][test]
    assert table.correction is not None
    interval = {"coverage": float(((low <= measured) & (measured <= high)).mean()), "half_width": table.correction.half_width}
    return {**quality(latency, measured), **interval, "source_alone": source_alone(table)}


def source_alone(table: LatencyTable) -> float:
    """1 if nothing but a factor was learned: the order of networks is the known device's."""
    shares = table.info.estimated.shares
    return float(sum(share for term, share in shares.items() if term != "source") == 0)


def units_alone(units: np.ndarray, ten: np.ndarray, measured_ms: np.ndarray) -> np.ndarray:
    """Estimates for all networks from the costs of a call and of each unit, as the transfer would fit them without a known device."""
    terms = np.column_stack([np.ones(len(units)), units])
    scale = terms[ten].mean(axis=0)
    typical = float(np.median(measured_ms))
    costs = fit_costs(terms[ten] / scale, measured_ms / typical, np.sqrt(1e-3) * np.eye(len(UNITS) + 1))
    return typical * (terms / scale) @ costs


def quality(estimated: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    return {
        "spearman": float(spearmanr(estimated, measured).statistic),
        "mean_error": float(np.abs(estimated / measured - 1).mean()),
    }


def summary(draws: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Medians over the draws (means of shares), and how the transfer stands to the model on 2,000 networks and to the known table."""
    medians = {
        model: {
            key: round(float((np.mean if key in ("coverage", "source_alone") else np.median)([draw[model][key] for draw in draws])), 4)
            for key in figures
        }
        for model, figures in draws[0].items()
    }
    spearman = [draw["transfer"]["spearman"] for draw in draws]
    reached = medians["transfer"]["spearman"]
    return {
        **medians,
        "transfer_spearman_10_to_90_percent": [round(float(np.quantile(spearman, q)), 4) for q in (0.1, 0.9)],
        "of_linear_on_2000": round(reached / medians["linear_on_2000"]["spearman"], 4),
        "at_least_0.98_of_linear_on_2000": bool(reached >= 0.98 * medians["linear_on_2000"]["spearman"]),
        "not_below_as_it_is": bool(reached >= medians["as_it_is"]["spearman"]),
    }


if __name__ == "__main__":
    main()
