"""Trainings of a benchmark as tasks, whose results lie in a folder: several processes share it, and what was stopped goes on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from machine import describe_machine
from torch import nn

from ofa.calibrate import calibrate
from ofa.data import ImageData, Splits
from ofa.errors import DataError
from ofa.files import replacing
from ofa.resolution import Resolution
from ofa.training import TrainingState, evaluate
from ofa.training.single import FineTuning, train_network
from ofa.weights import read_weights, write_weights

__all__ = ["SETTINGS", "Report", "judge", "kept_settings", "own_settings", "run_once", "splits_in", "train_alone"]

Report = dict[str, Any]

SETTINGS, SPLITS = "settings.txt", "images.safetensors"
"""What the tasks' arguments are kept in, as JSON, apart from the results beside it; and the decoded images."""
NOT_SETTINGS = ("work", "out", "picture", "only", "wait")
"""Arguments that do not decide the results."""


def own_settings(arguments: argparse.Namespace) -> Report:
    """The arguments that decide the results."""
    return {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}


def kept_settings(arguments: argparse.Namespace) -> Report:
    """The arguments that decide the results, kept in the folder: all its processes must have the same."""
    own = own_settings(arguments)
    settings = arguments.work / SETTINGS
    arguments.work.mkdir(parents=True, exist_ok=True)
    with FileLock(arguments.work / f"{SETTINGS}.lock"):
        if not settings.exists():
            settings.write_text(json.dumps(own))
    if json.loads(settings.read_text()) != own:
        raise SystemExit(f"the tasks in '{arguments.work}' must have one set of arguments, but {settings} has others; take a new folder")
    return own


def splits_in(work: Path, load: Callable[[], Splits]) -> Splits:
    """The images, decoded once for all processes."""
    with FileLock(work / f"{SPLITS}.lock"):
        if not (work / SPLITS).exists():
            _keep_splits(load(), work / SPLITS)
    return _kept_splits(work / SPLITS)


def _keep_splits(splits: Splits, path: Path) -> None:
    tensors = {}
    for name, part in splits._asdict().items():
        if not isinstance(part, ImageData):
            raise DataError("images must be of one size and fit into memory to be kept decoded, but these do not; resize them")
        tensors |= {f"{name}.images": part.images, f"{name}.labels": part.labels}
    normalization, names = splits.train.normalization, splits.train.class_names
    write_weights(tensors, path, {"kind": "images", "classes": json.dumps(names), "normalization": json.dumps(normalization)})


def _kept_splits(path: Path) -> Splits:
    kept = read_weights(path, kind="images")
    mean, std = (tuple(values) for values in json.loads(kept.metadata["normalization"]))
    names = tuple(json.loads(kept.metadata["classes"]))

    def part(name: str) -> ImageData:
        images, labels = (kept.tensors[f"{name}.{what}"] for what in ("images", "labels"))
        return ImageData(images=images, labels=labels, class_names=names, mean=mean, std=std)

    return Splits(*map(part, Splits._fields))


def run_once(work: Path, name: str, task: Callable[[], Report | None]) -> bool:
    """Run a task unless it is done, another process has it, or it cannot begin yet; whether it is done."""
    result = work / f"{name}.json"
    if result.exists():
        return True
    try:
        with FileLock(work / f"{name}.lock", timeout=0):
            report = None if result.exists() else task()
            if report is not None:
                with replacing(result) as temporary:
                    temporary.write_text(json.dumps({"date_utc": describe_machine()["date_utc"], **report}) + "\n")
                print(name, {key: value for key, value in report.items() if key != "recipe"}, flush=True)
    except Timeout:
        return False
    return result.exists()


def train_alone(
    network: nn.Module,
    splits: Splits,
    last: Path,
    *,
    resolution: Resolution,
    epochs: int,
    generator: torch.Generator,
    settings: FineTuning,
    teacher: nn.Module | None = None,
) -> float:
    """Train a network in place, going on from the state in ``last``, which is kept there; the seconds of it all."""
    started, (state, earlier_s) = time.perf_counter(), _read_state(last)

    def keep(state: TrainingState) -> None:
        values = {**state.values, "duration_s": earlier_s + time.perf_counter() - started}
        header = {"kind": "checkpoint", "step": str(state.step), "values": json.dumps(values)}
        write_weights(state.tensors, last, header)

    train_network(
        network,
        splits.train,
        resolution=resolution,
        epochs=epochs,
        generator=generator,
        settings=settings,
        teacher=teacher,
        state=state,
        on_state=keep,
    )
    return earlier_s + time.perf_counter() - started


def _read_state(path: Path) -> tuple[TrainingState | None, float]:
    """Where the training of a network alone stands, and the seconds that it took until then."""
    if not path.exists():
        return None, 0.0
    kept = read_weights(path, kind="checkpoint")
    values = json.loads(kept.metadata["values"])
    return TrainingState(int(kept.metadata["step"]), dict(kept.tensors), values), values["duration_s"]


def judge(network: nn.Module, resolution: Resolution, splits: Splits) -> float:
    """Share of the test images that a network gets right once its batch norms are calibrated, as all networks are here."""
    calibrate(network, splits.train, resolution=resolution)
    return evaluate(network, splits.test, resolution=resolution)
