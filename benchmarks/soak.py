"""Whether memory, open files, threads, processes or temporary files grow while the same work is done again and again in one process.

    python benchmarks/soak.py --minutes 60 --out benchmarks/results/soak.json

A cycle is a whole road through the commands of ``ofa``, called in this process: training, a table of the device ``fake``, a predictor,
searches by arrays, with a study in SQLite and by workers, specializing, exporting, verifying on this machine's processor, and reports.
After each cycle the process is measured, with the caches of ``ofa`` and those of SQLAlchemy for compiled statements emptied: each has a
bound, and other networks and studies in each cycle fill them for hours. The first cycles, in which libraries load, are kept apart.

Counts must not be higher at the end than after the first cycles; memory grows where Theil and Sen's slope, the median over all pairs of
cycles, is above zero with 95 % confidence and makes more than ``MOST_GROWTH`` an hour. The exit status is 0 where nothing grows, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import _lru_cache_wrapper
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer
from machine import describe_machine, others_during
from scipy.stats import theilslopes
from sqlalchemy.orm import Mapper
from threadpoolctl import threadpool_limits

from ofa.cli.main import build_app
from ofa.files import write_json

WARM_UP = 3
"""Cycles before anything is judged."""
MOST_GROWTH = 0.02
"""Of the median, an hour, that memory may grow with confidence: what the allocator's pools still gather."""
MEMORY = ("rss_mib", "objects")
COUNTS = ("open_files", "threads", "children", "temporary_files")
PACKAGES = ("ofa.", "search.", "latency_tables.", "devices.")
SPACE = "ofa-mbv3-tiny"


def commands(folder: Path, cycle: int) -> Iterator[list[str]]:
    """The words of one cycle."""
    run, table, predictor, front = (str(folder / name) for name in ("run", "table", "predictor", "front"))
    bundle, database = str(folder / "bundle"), f"sqlite:///{folder / 'study.db'}"
    made = ["--overwrite", "--seed", str(cycle)]
    changes = ["--set", "progressive_shrinking.epochs=5", "--set", f"seed={cycle}", "--set", "fractions=[0.1, 0.1, 0.8]"]
    yield ["train", "digits", "-o", run, "--overwrite", *changes]
    yield ["table", "build", "--space", SPACE, "--device", "fake", "-o", table, *made]
    yield ["table", "calibrate", table, "--space", SPACE, "--device", "fake", "--nets", "12", *made[1:]]
    yield ["predictor", "fit", run, "--nets", "10", "-o", predictor, *made]
    yield ["search", "--predictor", predictor, "--table", table, "--evaluations", "20000", "--picture", f"{front}.png", "-o", front, *made]
    study = ["--storage", database, "--study", f"cycle {cycle}", "-o", f"{front}-study", *made]
    yield ["search", "--predictor", predictor, "--table", table, "--trials", "20", "--evaluations", "0", *study]
    measured = ["--supernet", run, "--table", table, "--trials", "4", "--workers", "2", "-o", f"{front}-measured", *made]
    yield ["search", *measured]
    yield ["query", front, "--latency", "1s", "--verify", "--device", "fake", "--table", table]
    yield ["specialize", run, "--front", front, "--latency", "1s", "--epochs", "1", "-o", bundle, *made]
    yield ["export", bundle, "--to", "onnx", "--dynamic-batch", "-o", str(folder / "network.onnx"), "--overwrite"]
    yield ["verify", bundle, "--device", "local-cpu", "--overwrite"]
    for source in (run, table, front, f"{front}-study"):
        yield ["report", source, "-o", f"{source}.html", "--overwrite"]


def empty_caches() -> None:
    """Empty what has a bound and is not full yet."""
    for each in gc.get_objects():
        if type(each) is _lru_cache_wrapper and str(each.__module__).startswith(PACKAGES):
            each.cache_clear()
        elif type(each) is Mapper:
            # Up to 150 statements a mapped class, for every engine that ever was; SQLAlchemy offers no way to empty it.
            each._compiled_cache.clear()
    gc.collect()


def sample(temporary: Path) -> dict[str, Any]:
    """What this process holds now."""
    empty_caches()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = [Path(f"/proc/self/task/{thread}/children").read_text().split() for thread in os.listdir("/proc/self/task")]
    return {
        "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "objects": len(gc.get_objects()),
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "python_threads": threading.active_count(),
        "children": sum(map(len, children)),
        "temporary_files": sum(len(folders) + len(files) for _, folders, files in os.walk(temporary)),
    }


def run_cycle(call: Callable[[list[str]], Any], said: io.StringIO, folder: Path, cycle: int) -> dict[str, float]:
    """One road, and the seconds of each command; the first that fails ends the soak with what it said."""
    seconds = dict[str, float]()
    for words in commands(folder, cycle):
        said.truncate(said.seek(0))
        start = time.perf_counter()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                call(words)
        except (Exception, SystemExit):
            print(f"cycle {cycle}: ofa {' '.join(words)}\n{said.getvalue()}", file=sys.stderr)
            raise
        seconds[words[0]] = round(seconds.get(words[0], 0) + time.perf_counter() - start, 1)
    return seconds


def judge(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each quantity: first, last, what it grows by an hour with its interval, and whether it grows."""
    warm = samples[WARM_UP:]
    hours = [each["seconds"] / 3600 for each in warm]
    verdict: dict[str, Any] = {}
    for name in MEMORY:
        values = [each[name] for each in warm]
        slope, _, low, high = theilslopes(values, hours)
        most = MOST_GROWTH * median(values)
        per_hour = {"per_hour": round(slope, 1), "per_hour_low": round(low, 1), "per_hour_high": round(high, 1)}
        verdict[name] = {"first": values[0], "last": values[-1], **per_hour, "most_per_hour": round(most, 1), "grows": bool(low > most)}
    part = max(1, len(warm) // 4)
    for name in COUNTS:
        first, last = (max(each[name] for each in some) for some in (warm[:part], warm[-part:]))
        verdict[name] = {"first": first, "last": last, "grows": last > first}
    return verdict


def main() -> int:
    """Soak, write the file, print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="how long cycles are begun")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soak.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are so small that a second thread mostly waits for the first
    said = io.StringIO()  # one for all: the parser of the command line keeps each stream that it writes to
    command, samples, start = typer.main.get_command(build_app()), list[dict[str, Any]](), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, others_during() as others, threadpool_limits(1):
        folder, temporary = Path(name, "files"), Path(name, "temporary")
        folder.mkdir()
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        while time.perf_counter() - start < 60 * arguments.minutes or len(samples) < WARM_UP + 4:
            commands_s = run_cycle(lambda words: command.main(words, prog_name="ofa", standalone_mode=False), said, folder, len(samples))
            samples.append({"seconds": round(time.perf_counter() - start, 1), **sample(temporary), "commands_s": commands_s})
            print(json.dumps(samples[-1]), flush=True)
            tempfile.tempdir = str(temporary)
        left = sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*"))
    verdict = judge(samples)
    grows = [name for name, each in verdict.items() if each["grows"]]
    summary = {"cycles": len(samples), "warm_up": WARM_UP, "verdict": verdict, "grows": grows, "left_in_temporary_folder": left}
    about = {**describe_machine(), "other_processes_cores": others.cores, "nice": os.nice(0)}
    write_json({"machine": about, "minutes": arguments.minutes, **summary, "samples": samples}, arguments.out)
    print(json.dumps(summary, indent=2))
    return 1 if grows else 0


if __name__ == "__main__":
    sys.exit(main())
