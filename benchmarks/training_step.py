"""Time the training step of a supernet: a teacher and four random subnets on a batch of 32 images of 128 px.

Ours and, with --peer-python, MIT's once-for-all package run in processes of their own and take turns step by step, so that both
see the same minutes of the machine. The step is the same for both: the teacher's logits (largest network, training mode, no
gradient), then for each of four given subnets forward, soft-label plus label-smoothed cross entropy and backward, and one SGD step.

    python benchmarks/training_step.py --peer-python PEER/bin/python --repeats 9 --out benchmarks/results/training_step.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import describe_machine, others_during

HERE = Path(__file__).parent


class Worker:
    """A process that makes a step each time it is asked, and says how long it took."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []
        self.peak_mib = 0.0
        assert self._ask("ready")["ready"]

    def step(self, count: bool) -> None:
        answer = self._ask("step")
        if count:
            self.seconds.append(answer["seconds"])
        self.peak_mib = answer["peak_mib"]

    def _ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker {self.name} ended with status {self.process.wait()}; see its message above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment that has MIT's package (pip install --no-deps ofa) and torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--variants", nargs="+", default=["ofa"], help="of ours: ofa (as the command line runs it), plain (no memory policy)"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    tail = ["--threads", str(arguments.threads)]
    workers = [Worker(name, [sys.executable, str(HERE / "step_worker.py"), name, *tail]) for name in arguments.variants]
    if arguments.peer_python:
        workers.append(Worker("mit", [arguments.peer_python, str(HERE / "step_worker.py"), "mit", *tail]))
    for worker in workers:
        worker.step(count=False)
    with others_during() as others:
        for _ in range(arguments.repeats):
            for worker in workers:
                worker.step(count=True)
    figures = {w.name: figures_of(w, workers[-1]) for w in workers}
    for name, figure in figures.items():
        print(name, json.dumps(figure))
    if arguments.out:
        machine = describe_machine()
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        value = {"machine": machine, "threads": arguments.threads, "other_load_cores": others.cores, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def figures_of(worker: Worker, reference: Worker) -> dict[str, Any]:
    """Images a second, peak memory, and how many times faster than the reference, pair by pair."""
    ratios = [theirs / ours for ours, theirs in zip(worker.seconds, reference.seconds, strict=True)]
    median = statistics.median(worker.seconds)
    return {
        "images_per_s": round(32 / median, 2),
        "step_s": spread(worker.seconds),
        f"speed_against_{reference.name}": spread(ratios),
        "peak_mib": round(worker.peak_mib),
        "repeats": len(worker.seconds),
    }


if __name__ == "__main__":
    main()
