"""Models pruned by Torch-Pruning 1.6.1 to a measured latency, and latencies measured in turns."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from ofa.adopting.adoption import adopt_model
from ofa.cost import macs
from ofa.exporting.onnx import export
from ofa.families import lower

__all__ = ["BUDGETS", "WAYS", "adopted", "candidates", "in_turns", "onnx_of", "rebuilt"]

BUDGETS = (75, 50, 30)
"""Percent of the whole model's latency."""
WAYS = ("uniform", "global")
"""One share of the channels of all layers, or the least important channels wherever they are."""
IMAGE = (3, 32, 32)
ROUNDINGS = (8, 4)
"""Widths are multiples of these; the networks of the supernet have multiples of 8."""
RATIOS = tuple(round(0.04 * step, 2) for step in range(1, 24))
ALLOWED = 1.02
"""A pruned model may take so many times what the network takes that it is compared with."""
ROUNDS, WARMUP = 60, 10


def pruned(model: nn.Module, way: str, ratio: float, rounding: int) -> nn.Module:
    """Prune a model in place, by the importance that Torch-Pruning takes by default: the norms of a group's weights."""
    import torch_pruning

    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, *IMAGE),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=way == "global",
        pruning_ratio=ratio,
        round_to=rounding,
        ignored_layers=[classifier],
    )
    pruner.step()
    return model


def candidates(make: Callable[[], nn.Module], work: Path) -> dict[str, Any]:
    """For each way and budget the pruned model that takes no longer than our network.

    That is the smallest ratio for each rounding of widths, and of the roundings the one with most multiply-accumulates. A way that
    prunes no model so far is left out.

    Args:
        make: the whole model.
        work: folder with the networks of ours as ``BUDGET.onnx`` and ``whole.onnx``, and for those pruned.
    """
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    folder = work / "pruned"
    folder.mkdir(exist_ok=True)
    for way, ratio, rounding in itertools.product(WAYS, RATIOS, ROUNDINGS):
        network = pruned(make(), way, ratio, rounding)
        shapes = tuple(length for tensor in network.parameters() for length in tensor.shape)
        if (way, *shapes) in found:
            continue
        network, cost = adopted(network)
        path = onnx_of(network, folder / f"{way}-{ratio}-{rounding}.onnx")
        found[(way, *shapes)] = {"way": way, "ratio": ratio, "rounding": rounding, "path": path, "macs": cost}
    ours = {name: work / f"{name}.onnx" for name in ("whole", *map(str, BUDGETS))}
    took = in_turns({**ours, **{str(each["path"]): each["path"] for each in found.values()}})
    chosen: dict[str, Any] = {}
    for way, budget in itertools.product(WAYS, BUDGETS):
        fitting = [each for each in found.values() if each["way"] == way and took[str(each["path"])] <= ALLOWED * took[str(budget)]]
        # Of large ratios those layers are not pruned at all in which nothing would be left.
        of_rounding = [[each for each in fitting if each["rounding"] == rounding] for rounding in ROUNDINGS]
        first = [min(each, key=lambda one: one["ratio"]) for each in of_rounding if each]
        if not first:
            continue
        best = max(first, key=lambda each: each["macs"])
        chosen[f"{way}-{budget}"] = {**best, "path": best["path"].name, "latency_ms": took[str(best["path"])]}
    return {"chosen": chosen, "latency_ms": {name: took[name] for name in ours}, "candidates": len(found)}


def ways_of(work: Path, budget: int) -> list[str]:
    """The ways of pruning that reach a budget."""
    chosen = json.loads((work / "torch-pruning.json").read_text())["chosen"]
    return [way for way in WAYS if f"{way}-{budget}" in chosen]


def rebuilt(model: nn.Module, work: Path, way: str, budget: int) -> nn.Module:
    """The pruned model that was chosen: pruning is the same every time."""
    chosen = json.loads((work / "torch-pruning.json").read_text())["chosen"][f"{way}-{budget}"]
    return pruned(model, way, chosen["ratio"], chosen["rounding"])


def adopted(model: nn.Module) -> tuple[nn.Module, int]:
    """A model in plain PyTorch as a network that ofa exports, so that all files come from one exporter; and its multiply-accumulates."""
    found = adopt_model(model, IMAGE, resolutions=())
    largest = found.space.largest()
    return found.supernet.extract(largest), macs(lower(found.space, largest))


def onnx_of(network: nn.Module, path: Path) -> Path:
    """Write one of ofa's networks."""
    export(network, (1, *IMAGE), path)
    return path


def in_turns(paths: Mapping[str, Path]) -> dict[str, float]:
    """Median milliseconds of one image in one thread of ONNX Runtime, networks in turns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {name: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for name, path in paths.items()}
    image = np.random.default_rng(0).standard_normal((1, *IMAGE), dtype=np.float32)
    took: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(WARMUP + ROUNDS):
        for name, session in sessions.items():
            feeds = {session.get_inputs()[0].name: image}
            session.run(None, feeds)
            start = time.perf_counter()
            session.run(None, feeds)
            if number >= WARMUP:
                took[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(each) for name, each in took.items()}
