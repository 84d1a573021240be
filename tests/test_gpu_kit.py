"""The kit for GPUs, as far as a processor goes: its dry run, what a part leaves that is cut off, and what is packed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
RUN = ROOT / "benchmarks" / "gpu" / "run.py"
NAMES = ("correct", "speed", "tables", "evidence", "tensorrt-rtx")
MINUTES = 8.0


def load(name: str) -> ModuleType:
    """A script of the kit as a module; those beside it are found as when it runs."""
    folders = [str(RUN.parent), str(RUN.parents[1])]
    sys.path[:0] = folders
    try:
        spec = importlib.util.spec_from_file_location(f"gpu_kit_{name}", RUN.with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        spec.loader.exec_module(module)
    finally:
        for folder in folders:
            sys.path.remove(folder)
    return module


run, parts, pack, evidence, sharing, tables = map(load, ("run", "parts", "pack", "evidence", "sharing", "tables"))


def start(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True, check=False, timeout=60 * MINUTES)


# -- the run --------------------------------------------------------------------------------------------------------------


def test_a_dry_run_walks_through_every_part(tmp_path: Path) -> None:
    done = start("--dry-run", "--out", str(tmp_path), "--minutes", str(MINUTES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert (tmp_path / "table.txt").read_text() == done.stdout
    for name in NAMES:
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert report["part"] == name
        assert report["status"] == "ok" or (report["status"] == "skipped" and report["reason"]), report
        assert any(line.startswith(name) and report["status"] in line for line in done.stdout.splitlines())
    figures = {name: json.loads((tmp_path / f"{name}.json").read_text())["figures"] for name in ("tables", "evidence")}
    assert figures["tables"]["eager-1"]["nets"] == 4
    summary = figures["evidence"]["summary"]
    assert figures["evidence"]["all_ended"]
    assert len(summary["rows"]) == 12
    assert all(row["joint"] and row["shrinking"] for row in summary["rows"])
    assert sum(bool(row["alone"]) for row in summary["rows"]) == 2


def test_a_part_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    done = start("--out", str(tmp_path), "--only", "tables", "table")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"a part must be one of {', '.join(NAMES)}, but is 'table'; correct it")


def test_too_few_minutes_skip_every_part_with_a_sentence(tmp_path: Path) -> None:
    done = start("--out", str(tmp_path), "--minutes", "0.1")
    assert done.returncode == 0
    for name in ("correct", "tables", "evidence"):
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert report["status"] == "skipped"
        assert "s are left; allow more minutes" in report["reason"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_a_part_is_skipped_with_a_sentence(tmp_path: Path) -> None:
    done = start("--out", str(tmp_path), "--only", "tables")
    assert done.returncode == 0
    report = json.loads((tmp_path / "tables.json").read_text())
    assert report["status"] == "skipped"
    assert report["reason"].startswith("this part needs a GPU, but torch sees none")
    assert "torch sees none" in " ".join(done.stdout.split())


def run_script(folder: Path, code: str, limit_s: float) -> dict[str, Any]:
    """A part of our own, run as run.py runs parts."""
    (folder / "own.py").write_text(code)
    arguments = argparse.Namespace(out=folder, device="cpu", dry_run=True, data=None, kit=[], work=None)
    content: dict[str, Any] = run.run_part(run.Part("own", str(folder / "own.py"), 1.0, 1.0), limit_s, 60.0, arguments, dict(os.environ))
    assert json.loads((folder / "own.json").read_text()) == content
    return content


def test_a_part_that_is_cut_off_leaves_what_it_had_and_no_process(tmp_path: Path) -> None:
    code = (
        "import json, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "report = {'part': 'own', 'status': 'running', 'reason': '', 'figures': {'child': child.pid}, 'rows': [['half', 'done']]}\n"
        "open(sys.argv[sys.argv.index('--out') + 1], 'w').write(json.dumps(report))\n"
        "time.sleep(100)\n"
    )
    content = run_script(tmp_path, code, 5.0)
    assert content["status"] == "cut off"
    assert content["rows"] == [["half", "done"]]
    assert "its time was over" in run.table_of([content])
    assert ends(content["figures"]["child"])


def ends(process: int, seconds: float = 10.0) -> bool:
    """Whether a process that was killed is gone, or waits for its parent alone, within some time: a busy machine takes a while."""
    state, end = Path(f"/proc/{process}/stat"), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if state.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_part_that_fails_says_why_and_its_last_lines_are_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = run_script(tmp_path, "raise SystemExit('the rule, the value; the next step')", 30.0)
    assert content["status"] == "failed"
    assert content["reason"] == "its process ended with status 1: the rule, the value; the next step"
    assert "the rule, the value; the next step" in capfd.readouterr().err


def test_time_that_a_part_leaves_over_goes_to_later_ones() -> None:
    first, second = run.Part("a", "a.py", 0.25, 10), run.Part("b", "b.py", 0.75, 10)
    assert run.limit_s(first, [first, second], 100.0, dry=False) == pytest.approx(25)
    assert run.limit_s(second, [second], 95.0, dry=False) == pytest.approx(95)
    assert run.limit_s(first, [first, second], 20.0, dry=False) == pytest.approx(10), "what it needs at least"
    assert run.limit_s(first, [first, second], 9.0, dry=False) == 0


# -- the report of a part -------------------------------------------------------------------------------------------------


def report_at(path: Path) -> Any:
    return parts.Report("own", argparse.Namespace(out=path, seconds=60.0, device="cpu", work=None))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_report_is_on_disk_with_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    with report_at(path) as report:
        assert read(path)["status"] == "running"
        report.figure("error", 0.5)
        report.row("error", "50 %")
        report.row("error", "51 %")
        assert read(path)["figures"] == {"error": 0.5}
        assert read(path)["rows"] == [["error", "51 %"]]
        assert 0 < report.left_s < 60
    assert read(path)["status"] == "ok"
    assert read(path)["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("import no_such_library", "skipped", "this part needs no_such_library, which is not installed; pack it or install it"),
        ("raise parts.SkipError('a rule; a step')", "skipped", "a rule; a step"),
        ("import ofa.no_such_module", "failed", "ModuleNotFoundError: No module named 'ofa.no_such_module'"),
        ("raise ValueError('a\\nb')", "failed", "ValueError: a b"),
    ],
)
def test_what_is_raised_becomes_the_status(tmp_path: Path, code: str, status: str, reason: str) -> None:
    path = tmp_path / "own.json"
    raised = False
    try:
        with report_at(path):
            exec(code, {"parts": parts})
    except (ValueError, ModuleNotFoundError):
        raised = True
    assert raised == (status == "failed")
    assert (read(path)["status"], read(path)["reason"]) == (status, reason)


@pytest.mark.parametrize(("left_s", "least"), [(200.0, 8), (400.0, 18)])
def test_epochs_follow_from_the_time_that_is_left(left_s: float, least: int) -> None:
    speeds = [{"kind": "supernet", "step_s": 0.05, "judge_s": 1.0}, {"kind": "alone", "step_s": 0.02, "judge_s": 1.0}]
    steps = 195
    epochs = evidence.epochs_that_fit(speeds, steps, 8, left_s)
    assert epochs >= least
    assert epochs * steps * 0.05 < left_s
    assert evidence.epochs_that_fit(speeds, steps, 4, left_s) < epochs, "fewer processes take the tasks one after the other"
    assert evidence.epochs_that_fit(speeds, steps, 8, 20.0) == 0


SERVICE = """#!/bin/sh
if [ "$1" = -d ]; then
    {start}
else
    cat > $CUDA_MPS_PIPE_DIRECTORY/asked
    rm $CUDA_MPS_PIPE_DIRECTORY/running
fi
"""


@pytest.mark.parametrize(
    ("start", "device", "words"),
    [
        ("touch $CUDA_MPS_PIPE_DIRECTORY/running", "a card", "at the same time, by the Multi-Process Service"),
        ("touch $CUDA_MPS_PIPE_DIRECTORY/running; sleep 100 &", "a card", "at the same time, by the Multi-Process Service"),
        ("touch $CUDA_MPS_PIPE_DIRECTORY/running", "no-such-place", "in turns, as the service fails: RuntimeError: "),
        ("echo it is no good; exit 3", "a card", "in turns, as the service fails: it is no good"),
    ],
)
def test_the_card_is_shared_by_the_service_if_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, device: str, words: str
) -> None:
    program = tmp_path / "bin" / sharing.PROGRAM
    program.parent.mkdir()
    program.write_text(SERVICE.format(start=start))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    # The check of the service makes a tensor on the card, which is not there.
    monkeypatch.setattr(sharing, "CHECK", "if '{device}' != 'a card': raise RuntimeError('{device}')")
    with sharing.shared_card(tmp_path, device) as found:
        assert found.startswith(words)
        assert (sharing.PIPES in os.environ) == found.startswith("at the same time")
    assert sharing.PIPES not in os.environ
    assert not (tmp_path / "pipes" / "running").exists()
    assert (tmp_path / "pipes" / "asked").read_text() == "quit\n"


def test_without_the_service_the_card_is_shared_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with sharing.shared_card(tmp_path, "cuda") as found:
        assert found == f"in turns, as there is no {sharing.PROGRAM}"
        assert sharing.PIPES not in os.environ


def test_a_check_takes_as_many_networks_as_there_is_time_for() -> None:
    figures = {"calibrate_s": 40.0}
    assert tables.nets_that_fit(figures, 20, 1000.0, 60) == 60
    assert 20 <= tables.nets_that_fit(figures, 20, 100.0, 60) < 60
    assert tables.nets_that_fit(figures, 20, 5.0, 60) == 0


# -- the packer -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 100), max_size=20))
def test_no_kit_is_larger_than_it_may_be_and_nothing_is_lost(sizes: list[int]) -> None:
    units = [pack.Unit(f"packages/{number}", Path(str(number)), size) for number, size in enumerate(sizes)]
    kits = pack.distribute(units, 100)
    assert all(sum(unit.size_bytes for unit in kit) <= 100 for kit in kits)
    assert sorted(unit.place for kit in kits for unit in kit) == sorted(unit.place for unit in units)


def test_what_fits_nowhere_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"packages/large has 2\.0 MiB; leave it out or raise --limit-mib"):
        pack.distribute([pack.Unit("packages/large", Path("large"), 2 * pack.MIB)], pack.MIB)


def test_sizes_are_those_of_the_files_that_are_carried(tmp_path: Path) -> None:
    for name, size in (
        ("a/code.py", 10),
        ("a/tests/data.bin", 1000),
        ("a/__pycache__/code.pyc", 1000),
        ("a/deep/er.so", 5),
        (".hidden/x", 7),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    pack.remove_dead_weight(tmp_path)
    assert pack.size_of(tmp_path) == 15
    pack.lay_out([[pack.Unit("packages/a", tmp_path / "a", 15)], [pack.Unit("mit", tmp_path / ".hidden", 7)]], tmp_path / "KIT")
    assert (tmp_path / "KIT" / "packages" / "a" / "deep" / "er.so").exists()
    assert (tmp_path / "KIT-2" / "mit" / "x").exists()


def test_only_packages_that_are_missing_or_too_old_are_used(tmp_path: Path) -> None:
    for name, least in (("numpy", "1.0"), ("torch", "99"), ("no-such-package", ""), ("pandas", "")):
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"name": name, "version": "99.0", "least": least}))
    assert [path.name for path in run.needed_packages(tmp_path)] == ["no-such-package", "torch"]
    paths = run.environment_of([tmp_path])["PYTHONPATH"].split(os.pathsep)
    assert paths[0] == str(ROOT), "nothing comes before the project"
    assert str(tmp_path / "packages" / "torch") in paths


def test_a_manifest_asks_for_what_the_project_and_the_packed_need(tmp_path: Path) -> None:
    for name, lines in (("mako", "Requires-Dist: MarkupSafe>=9.2\n"), ("markupsafe", "")):
        metadata = tmp_path / name / f"{name}-9.5.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.5\n{lines}")
    folders = [tmp_path / "mako", tmp_path / "markupsafe"]
    pack.write_manifests(folders)
    found = {folder.name: json.loads((folder / "manifest.json").read_text())["least"] for folder in folders}
    assert found == {"mako": "", "markupsafe": "9.2"}
    assert pack.not_packed(folders[:1]) == ["markupsafe"]


def test_every_packed_package_has_its_version() -> None:
    assert set(pack.with_versions(pack.PACKED)) == set(pack.PACKED)


def test_time_limits_of_processes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 0.5)
    started = time.monotonic()
    with (tmp_path / "log").open("w") as stream:
        code = run.wait_within(
            [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(100)"], stream, dict(os.environ), 1.0
        )
    assert code is None
    assert time.monotonic() - started < 30, "a process that does not listen is killed"
