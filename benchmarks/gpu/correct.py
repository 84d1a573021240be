"""The part `correct`: the project's tests that are marked `gpu`.

Run by run.py. Without a GPU those tests skip themselves, and the part says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parts import ROOT, Report, SkipError, part_arguments

MARK = "mark.gpu"
FIRST = ("test_step", "test_subnets", "test_training")
"""Files that tell most, in case that the time is short."""
LONGEST = 600


def main() -> None:
    arguments = part_arguments(__doc__).parse_args()
    with Report("correct", arguments) as report:
        import pytest
        import torch  # noqa: F401  # without it the tests could not even be collected

        counts = counter(report)
        # Only the files that have such tests: others may import what this machine does not have.
        files = [str(path.relative_to(ROOT)) for path in marked_files()]
        if not files:
            raise SkipError("there must be tests marked gpu, but no file under tests has one; take a whole source tree")
        code = pytest.main(
            ["-m", "gpu and not slow", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "--tb=short", *files],
            [counts],
        )
        if not any(counts.counts.values()):
            raise RuntimeError(f"pytest must find tests marked gpu, but ended with status {int(code)} and ran none")
        if counts.bad:
            raise RuntimeError(f"{len(counts.bad)} of {sum(counts.counts.values())} tests failed, the first: {counts.bad[0]['test']}")
        if not counts.counts["passed"]:
            raise SkipError(f"all {counts.counts['skipped']} tests skipped themselves: {counts.reasons[0]}")


def marked_files() -> list[Path]:
    """Test files that mark tests with `gpu`, directly or by the conftest of their folder."""
    folders = {path.parent for path in (ROOT / "tests").rglob("conftest.py") if MARK in path.read_text(encoding="utf-8")}
    marked = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if MARK in path.read_text(encoding="utf-8") or folders & set(path.parents)
    ]
    return sorted(marked, key=lambda path: path.stem not in FIRST)


def counter(report: Report) -> Any:
    """A plugin of pytest that writes the report anew with every test."""

    class Counter:
        def __init__(self) -> None:
            self.counts = {"passed": 0, "failed": 0, "skipped": 0}
            self.bad: list[dict[str, str]] = []
            self.reasons: list[str] = []
            self.seconds: dict[str, float] = {}

        def pytest_runtest_logreport(self, report: Any) -> None:
            """Count a test when it has run, or when it fails or is skipped before or after."""
            file = report.nodeid.partition("::")[0]
            self.seconds[file] = round(self.seconds.get(file, 0.0) + report.duration, 1)
            if report.when != "call" and report.outcome == "passed":
                return
            self.counts[report.outcome] += 1
            if report.outcome == "failed":
                self.bad.append({"test": report.nodeid, "why": why_of(report)})
            elif report.outcome == "skipped":
                self.reasons.append(reason_of(report.longrepr))
            self.write()

        def pytest_collectreport(self, report: Any) -> None:
            """Count a file that cannot be imported as one that failed."""
            if report.failed:
                self.counts["failed"] += 1
                self.bad.append({"test": report.nodeid, "why": why_of(report)})
                self.write()

        def write(self) -> None:
            report.content["figures"] = {
                **self.counts,
                "not_passed": self.bad,
                "why_skipped": sorted(set(self.reasons)),
                "seconds": self.seconds,
            }
            for outcome, count in self.counts.items():
                report.row(f"tests {outcome}", str(count))
            for number, bad in enumerate(self.bad[:5]):
                report.row(f"failed {number + 1}", bad["test"].rpartition("::")[2])

    return Counter()


def why_of(report: Any) -> str:
    """The lines of a failure that pytest marks, so that the values are among them: a part that is cut off prints nothing else."""
    lines = str(report.longreprtext).strip().splitlines()
    marked = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return " ".join(marked or lines[-1:])[:LONGEST]


def reason_of(longrepr: Any) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")[:LONGEST]


if __name__ == "__main__":
    main()
