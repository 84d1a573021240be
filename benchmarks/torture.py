"""Every fault by the thousand: runs the tests that are marked ``torture`` and counts what they tried.

    python benchmarks/torture.py --out benchmarks/results/torture.json
    python benchmarks/torture.py --only "kills and train"

Each test says what it tried (``record_property("figures", {"what": "kills of train", "tried": 120, ...})``); numbers of the same ``what``
are added up. The exit status is pytest's: 0 only if every promise held.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from machine import describe_machine

ROOT = Path(__file__).parents[1]


class Figures:
    """A plugin of pytest that adds up what tests say they tried, and remembers which failed."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.failed: list[str] = []
        self.tests = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the figures of a test that has run; those of one that failed count as far as it told."""
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when != "call":
            return
        self.tests += 1
        for name, value in report.user_properties:
            if name == "figures" and isinstance(value, dict):
                count = self.counts.setdefault(str(value["what"]), Counter())
                count.update({key: number for key, number in value.items() if isinstance(number, int)})

    def table(self) -> str:
        """A line each, the number that was tried first."""
        width = max(map(len, self.counts), default=0)
        lines = []
        for what, count in sorted(self.counts.items()):
            others = ", ".join(f"{name} {number}" for name, number in sorted(count.items()) if name != "tried")
            lines.append(f"{what:<{width}}  {count['tried']:>9,}  {others}".rstrip())
        return "\n".join(lines)

    def to_json(self, seconds: float) -> dict[str, Any]:
        """All of it, and the machine."""
        counts = {what: dict(count) for what, count in sorted(self.counts.items())}
        return {**describe_machine(), "duration_s": round(seconds), "tests": self.tests, "failed": self.failed, "figures": counts}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--only", default="", help="tests, as pytest's -k chooses them")
    parser.add_argument("--processes", type=int, default=2, help="how many run tests at the same time")
    arguments = parser.parse_args()
    figures, start = Figures(), time.monotonic()
    # No test of these hangs for being long: each command has an end of its own.
    words = ["-m", "torture", "-k", arguments.only, "-q", "-n", str(arguments.processes), "--dist", "load", "-o", "faulthandler_timeout=0"]
    status = pytest.main([*words, f"--rootdir={ROOT}", str(ROOT / "tests" / "faults")], plugins=[figures])
    print(f"\n{figures.table()}\n{figures.tests} tests, {len(figures.failed)} failed, {time.monotonic() - start:.0f} s")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures.to_json(time.monotonic() - start), indent=2) + "\n", encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
