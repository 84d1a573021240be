"""The part `evidence`: subnets of supernets trained by two recipes, beside the same networks trained alone, on all of CIFAR-10.

Run by run.py. The tasks are those of subnet_accuracy.py, which several processes share on the one card. First the steps are timed with as
many processes side by side as will train, then all train for as many epochs as fit. The batch is 256 where the recipe has 64, so its
learning rate of 0.1 becomes 0.4, in proportion; the supernet's, a mean gradient of several subnets, twice that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from parts import GIB, ROOT, Report, SkipError, part_arguments, require_card
from sharing import shared_card

SCRIPT, SPEED = ROOT / "benchmarks" / "subnet_accuracy.py", ROOT / "benchmarks" / "subnet_speed.py"
TWINS, NETWORKS, SUPERNETS = 6, 12, 2
FINE_TUNING_EPOCHS, LEAST_EPOCHS, MOST_EPOCHS = 2, 6, 60
SETTINGS = {
    "images": 50_000,
    "test-images": 10_000,
    "batch-size": 256,
    "rate": 0.4,
    "second-rate": 0,
    "supernet-rate": 0.8,
    "subnets": 4,
    "distillation-weight": 1,
    "fine-tuning-epochs": FINE_TUNING_EPOCHS,
    "fine-tuning-rate": 0.05,
    "twins": TWINS,
    "seeds": 1,
    "tuned": "all",
    "threads": 1,
}
DRY = {
    "space": "ofa-mbv3-tiny",
    "images": 80,
    "of": 80,
    "test-images": 40,
    "batch-size": 40,
    "twins": 2,
    "tuned": "some",
    "fine-tuning-epochs": 1,
}
DRY_EPOCHS, DRY_PROCESSES, DRY_SECONDS = 6, 2, 1.0
"""Shrinking has six phases, and each must have an epoch."""
SPEED_SECONDS, START_S, END_S = 8.0, 12.0, 8.0
"""For which steps are timed; allowed for processes to start; and left for the summary."""
MOST_IN_TURNS = 4
"""Processes where the card gives each its turn: of eight, on an H100, twins ended ten epochs in 97 to 166 s and supernets not in 200."""
PROCESS_BYTES = 6 * GIB
LEAST_MEMORY_BYTES = 2 * PROCESS_BYTES
SLOWER_WITH_TEACHER = 1.5
"""Of a fine-tuning step beside that of a network alone: the teacher's forward pass, and what judging costs beside it."""


def main() -> None:
    parser = part_arguments(__doc__)
    parser.add_argument("--precision", default="bfloat16", help="of all training; float32 in a dry run")
    parser.add_argument("--epochs", type=int, help="instead of as many as fit, for which steps are timed")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the service that shares the card is ended too
    with Report("evidence", arguments) as report:
        require_card(arguments.device, LEAST_MEMORY_BYTES)
        settings = settings_of(arguments, report)
        with TemporaryDirectory(prefix="mps-") as folder, shared_card(Path(folder), arguments.device) as sharing:
            report.row("processes share the card", sharing)
            processes = processes_for(arguments, in_turns=sharing.startswith("in turns"))
            report.figure("processes", processes)
            epochs = arguments.epochs or fitting_epochs(settings, processes, report, dry=arguments.dry)
            report.figure("epochs", epochs)
            report.row("epochs", str(epochs))
            train([*settings, "--epochs", str(epochs)], processes, report)
        summarize(report)


def fitting_epochs(settings: list[str], processes: int, report: Report, *, dry: bool) -> int:
    """As many epochs as fit into the time, by the steps of all processes side by side.

    Raises:
        SkipError: they are too few.
    """
    speeds = time_steps(settings, processes, report, DRY_SECONDS if dry else SPEED_SECONDS)
    fitting = epochs_that_fit(speeds, steps_an_epoch(settings), processes, report.left_s)
    report.figure("epochs_that_fit", fitting)
    if fitting < LEAST_EPOCHS and not dry:
        raise SkipError(
            f"this part needs time for {LEAST_EPOCHS} epochs, but only {fitting} fit into the {report.left_s:.0f} s that are left; "
            "allow more minutes"
        )
    return DRY_EPOCHS if dry else min(MOST_EPOCHS, fitting)


def settings_of(arguments: argparse.Namespace, report: Report) -> list[str]:
    """The arguments that all processes have."""
    chosen: dict[str, Any] = {**SETTINGS, "device": arguments.device, "precision": "float32" if arguments.dry else arguments.precision}
    data = arguments.data
    if arguments.dry:
        chosen |= DRY
        data = report.work / "data"
        make_data(data, DRY["images"], DRY["test-images"])
    if data is None:
        raise SkipError("this part needs CIFAR-10, but no folder was given; pack it, or name its folder with --data")
    for purpose in ("train", "test"):
        if not (data / f"{purpose}.parquet").is_file():
            raise SkipError(f"this part needs CIFAR-10, but '{data}' has no {purpose}.parquet; pack it, or name its folder with --data")
        chosen[purpose] = data / f"{purpose}.parquet"
    words = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
    shutil.rmtree(report.work / "tasks", ignore_errors=True)  # of an earlier run, with other epochs
    return [*words, "--work", str(report.work / "tasks")]


def value_of(settings: list[str], name: str) -> str:
    return settings[settings.index(f"--{name}") + 1]


def make_data(folder: Path, *counts: int) -> None:
    """Small Parquet files of images whose colour tells their class."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for purpose, count in zip(("train", "test"), counts, strict=True):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 60, (count, 32, 32, 3)) + 18 * labels[:, None, None, None]
        cells = []
        for image in pixels.astype(np.uint8):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": ""})
        pq.write_table(pa.table({"image": cells, "label": labels}), folder / f"{purpose}.parquet")


def processes_for(arguments: argparse.Namespace, *, in_turns: bool) -> int:
    """As many as the card's memory and the cores have room for, up to the number that the card serves well."""
    if arguments.dry:
        return DRY_PROCESSES
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = torch.cuda.mem_get_info(torch.device(arguments.device))[0] // PROCESS_BYTES
    return int(max(1, min(MOST_IN_TURNS if in_turns else SUPERNETS + TWINS, cores, room)))


def steps_an_epoch(settings: list[str]) -> int:
    return int(value_of(settings, "images")) // int(value_of(settings, "batch-size"))


def time_steps(settings: list[str], processes: int, report: Report, seconds: float) -> list[dict[str, Any]]:
    """What steps take with all processes side by side."""
    folder = report.work / "speed"
    folder.mkdir(exist_ok=True)
    tasks = tasks_to_time(processes)
    commands = []
    for number, (kind, network) in enumerate(tasks):
        out = folder / f"{number}.json"
        out.unlink(missing_ok=True)
        own = ["--kind", kind, "--network", str(network), "--seconds", str(seconds), "--speed", str(out)]
        commands.append([sys.executable, str(SPEED), *own, *settings, "--epochs", str(10**4)])
    # Meanwhile this process decodes the images, once for all.
    running = [subprocess.Popen(command) for command in commands]
    decode(settings)
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"processes that time steps must end well, but ended with {codes}; see the log")
    speeds = [json.loads((folder / f"{number}.json").read_text()) for number in range(len(tasks))]
    report.figure("speeds", speeds)
    for kind in ("supernet", "alone"):
        slowest = max(speed["step_s"] for speed in speeds if speed["kind"] == kind)
        report.row(f"step, {kind}, {len(tasks)} processes", f"{1e3 * slowest:.1f} ms")
    return speeds


def tasks_to_time(processes: int) -> list[tuple[str, int]]:
    """Kinds and networks: as many of the tasks as there are processes, but a supernet and a network alone in any case."""
    twins = [round(i * (NETWORKS - 1) / (TWINS - 1)) for i in range(TWINS)]
    tasks = [("supernet", 0), *(("alone", number) for number in reversed(twins)), *[("supernet", 0)] * (SUPERNETS - 1)]
    return tasks[: max(2, processes)]


def decode(settings: list[str]) -> None:
    """Read the images, and keep them decoded for the processes that will train."""
    from subnet_accuracy import Work, arguments_of
    from tasks import own_settings

    arguments = arguments_of(settings)
    arguments.work.mkdir(parents=True)
    _ = Work(own_settings(arguments), arguments.work).splits


def epochs_that_fit(speeds: list[dict[str, Any]], steps: int, processes: int, left_s: float) -> int:
    """Epochs in which the supernets, the twins, their judging, and the fine-tuning of all subnets end in time."""
    step_s = {kind: [speed["step_s"] for speed in speeds if speed["kind"] == kind] for kind in ("supernet", "alone")}
    supernet_s, alone_s = map(mean, step_s.values())
    judge_s = mean([speed["judge_s"] for speed in speeds])
    turns = math.ceil(NETWORKS / processes)
    tuning_s = turns * (SLOWER_WITH_TEACHER * FINE_TUNING_EPOCHS * steps * alone_s + 4 * judge_s)
    rest_s = left_s - START_S - END_S - NETWORKS * judge_s - tuning_s
    # The processes share the tasks, but none ends before the longest.
    longest_s = max(map(max, step_s.values()))
    together_s = (SUPERNETS * supernet_s + TWINS * alone_s) / processes
    return max(0, int(rest_s / (steps * max(longest_s, together_s))))


def train(settings: list[str], processes: int, report: Report) -> None:
    """Let processes share the tasks until all are done or the time is over; what they had done lies in files."""
    command = [sys.executable, str(SCRIPT), *settings, "--wait"]
    running = [subprocess.Popen(command) for _ in range(processes)]
    end = time.monotonic() + report.left_s - END_S
    try:
        while any(process.poll() is None for process in running) and time.monotonic() < end:
            time.sleep(0.5)
    finally:
        report.figure("all_ended", all(process.poll() == 0 for process in running))
        for process in running:
            process.kill()
            process.wait()


def summarize(report: Report) -> None:
    """Figures of what the tasks came to."""
    from subnet_accuracy import summary_of

    found = summary_of(report.work / "tasks")
    report.figure("summary", found)
    rows = found["rows"]
    for kind in ("joint", "shrinking", "tuned", "alone"):
        accuracies = [row[kind]["mean"] for row in rows if row[kind]]
        words = f"{min(accuracies):.1%} .. {max(accuracies):.1%} ({len(accuracies)} networks)" if accuracies else "not done in time"
        report.row(f"accuracy, {kind}", words)
    for kind, tau in found["kendall_supernet_alone"].items():
        if tau is not None:
            report.row(f"{kind} beside alone", f"{100 * found['mean_above_alone'][kind]:+.2f} points, Kendall {tau:.2f}")
    if not found["durations_s"]:
        raise RuntimeError("at least one task must end in time, but none did; allow more minutes")


if __name__ == "__main__":
    main()
