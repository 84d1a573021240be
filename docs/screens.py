"""Pictures of what the tool shows, drawn anew: from raw files of benchmarks, and from what `ofa demo` wrote.

    python docs/screens.py --demo demo

Those of a demo are left out without ``--demo``; the report is shown by Chromium without a window.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from devices import Conditions
from latency_tables.check import compare
from latency_tables.plot import save_check_plot
from search import Front

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # what draws accuracies and drives a browser is not installed

RESULTS = ROOT / "benchmarks" / "results"
BUDGET = 0.5
"""Where the budget in the report lies between the fastest network of the front and the slowest one."""
SIZE = (1240, 1750)
"""Of the part of the report that is shown, in pixels."""


def main(words: Sequence[str] | None = None) -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder that `ofa demo` wrote; without it its two pictures stay")
    parser.add_argument("--only", nargs="+", choices=[*OF_RESULTS, *OF_DEMO], help="these pictures; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the pictures")
    arguments = parser.parse_args(words)
    drawn = arguments.only or [*OF_RESULTS, *(OF_DEMO if arguments.demo else ())]
    if arguments.demo is None and (asked := [name for name in drawn if name in OF_DEMO]):
        parser.error(f"{asked[0]} is of a demo, but there is none; run `ofa demo -o demo` and add --demo demo")
    for name in drawn:
        if name in OF_RESULTS:
            OF_RESULTS[name](arguments.out / name)
        else:
            OF_DEMO[name](arguments.demo, arguments.out / name)
        print(arguments.out / name)


def read_result(name: str) -> Any:
    """A raw file of a benchmark."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def latency_table(path: Path) -> None:
    """Estimates of 100 networks against what they took."""
    report = read_result("latency_table_w10-224.json")
    device, packages = report["device"], report["machine"]["packages"]
    networks = pd.DataFrame(report["networks"])
    check = replace(compare(networks), conditions=Conditions.of_fields(device, runtime_version=packages[device["runtime"]]))
    save_check_plot(check, path, title=f"{report['space']} on {device['name']}")


def subnet_accuracy(path: Path) -> None:
    """Subnets beside the same networks trained alone."""
    from subnet_summary import draw

    draw(read_result("subnet_accuracy.json"), path)


def demo_front(demo: Path, path: Path) -> None:
    """The front with three budgets, as the demo has drawn it."""
    shutil.copyfile(demo / "front.png", path)


def report(demo: Path, path: Path) -> None:
    """The upper part of the demo's report in a browser, after a budget was typed."""
    from tests.browser import Browser, find_chromium

    program = find_chromium()
    if program is None:
        raise SystemExit("report.png needs a browser, but no Chromium is installed; install it, or name other pictures with --only")
    width, height = SIZE
    with Browser(program) as browser, browser.open(demo / "report.html", width=width, height=height) as tab:
        tab.type("limit-0", f"{budget_of(Front.load(demo / 'front.parquet')):g}")
        tab.screenshot(path, whole=False)


def budget_of(front: Front) -> float:
    """A latency in ms, to two digits, that about half of a front keeps."""
    (device,) = front.device_names
    ends = front.columns[f"latency_high_ms@{device}"]
    return float(f"{ends.min() + BUDGET * (ends.max() - ends.min()):.2g}")


OF_RESULTS: dict[str, Callable[[Path], None]] = {"latency-table.png": latency_table, "subnet-accuracy.png": subnet_accuracy}
OF_DEMO: dict[str, Callable[[Path, Path], None]] = {"demo-front.png": demo_front, "report.png": report}

if __name__ == "__main__":
    main()
