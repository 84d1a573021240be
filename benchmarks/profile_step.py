"""Where the time of our training step goes, by operation.

python benchmarks/profile_step.py --out benchmarks/results/profile_step.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from machine import describe_machine, others_during
from step_worker import make_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--top", type=int, default=14)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    step = make_step("ofa", arguments.threads)
    for _ in range(6):  # until the memory that is kept has its size
        step()
    with others_during() as others:
        rows = profiled(step, arguments.top)
    for row in rows:
        print(f"{row['operation']:40s} {row['self_ms']:8.1f} ms {100 * row['share']:5.1f} %  {row['calls']} calls")
    if arguments.out:
        value = {"machine": describe_machine(), "threads": arguments.threads, "other_load_cores": others.cores, "operations": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def profiled(step: Any, top: int) -> list[dict[str, Any]]:
    """The operations of one step by their own time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {
            "operation": event.key,
            "self_ms": round(event.self_cpu_time_total / 1e3, 1),
            "share": round(event.self_cpu_time_total / total, 4),
            "calls": event.count,
        }
        for event in events[:top]
    ]


if __name__ == "__main__":
    main()
