"""Long work that is cut off anywhere goes on, and ends as it would have without: what it measured and trained is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ofa
from devices import Device, Timing, describe, get_device
from latency_tables import Correction, LatencyTable, blocks_of_space, calibrate_table, check_table
from latency_tables.info import MeasuredNetwork, TableInfo
from latency_tables.table import row_of, rows_frame
from ofa.errors import FileError
from ofa.journal import UNKEPT, Journal, Steps
from ofa.training import Phase, Recipe, Run, load_run, save_run
from search.accuracy import MeasuredAccuracy
from search.budget import Budget
from search.front.front import Front
from search.predictor.active_learning import fit_to_supernet
from search.verification.query import query_verified
from tests.recipes import digits_recipe
from tests.search.fakes import SMALL, SPACE, FakeAccuracy
from tests.search.fronts import make_front

FAKE = Device(name="fake", runtime="fake")
Work = Callable[[Steps], Any]


class Cut:
    """Steps of a journal until there are so many; then the process is gone."""

    def __init__(self, journal: Journal, until: int) -> None:
        self._journal, self._until = journal, until

    def begin(self, inputs: Mapping[str, Any]) -> None:
        self._journal.begin(inputs)

    def once(self, key: str, work: Callable[[], Any], kind: Any, *, rng: np.random.Generator | None = None) -> Any:
        if len(self._journal) >= self._until:
            raise KeyboardInterrupt
        return self._journal.once(key, work, kind, rng=rng)


def ends_the_same_wherever_it_is_cut_off(work: Work, path: Path, cuts: Sequence[int]) -> None:
    """Cut off at one point after another, and resumed each time."""
    whole = work(UNKEPT)
    for until in cuts:
        with pytest.raises(KeyboardInterrupt), Journal(path, doing="working", resume=True) as journal:
            work(Cut(journal, until))
        assert path.exists()
    with Journal(path, doing="working", resume=True) as journal:
        assert journal.found == cuts[-1]
        assert work(journal) == whole
    assert not list(path.parent.glob("*"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A device whose times are drawn, so that nothing but the order of drawing and what is kept decides them; what it was asked for."""
    asked: list[str] = []

    def time_models(device: Device, models: Mapping[str, Any], *, rng: np.random.Generator, **_: Any) -> dict[str, Timing]:
        asked.extend(models)
        drawn = {name: float(np.exp(0.1 * rng.standard_normal())) * _size(str(path)) for name, path in models.items()}
        return {name: Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=3) for name, ms in drawn.items()}

    origin = describe(FAKE)
    for module in ("latency_tables.timing", "search.verification.networks"):
        monkeypatch.setattr(f"{module}.time_models", time_models)
    for module in ("latency_tables.calibrate", "latency_tables.check", "search.verification.query", "search.verification.networks"):
        monkeypatch.setattr(f"{module}.describe", lambda device: origin)
    monkeypatch.setattr("latency_tables.timing.ModelFiles.write", lambda files, named, progress: {name: len(named[name]) for name in named})
    return asked


def _size(text: str) -> float:
    return 1.0 + float(text) if text.isdigit() else 1.0


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    rows = []
    for placed in blocks_of_space(SPACE):
        ms = 0.01 + placed.block.macs(placed.input) / 1e6
        rows.append(row_of(placed, Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=3), batch=1, precision="fp32"))
    return LatencyTable(rows_frame(rows), TableInfo.of_origin(describe(get_device("fake"))).with_space(SPACE, SPACE.resolutions))


@pytest.fixture(scope="module")
def calibrated(table: LatencyTable) -> LatencyTable:
    rng = np.random.default_rng(0)
    networks = [MeasuredNetwork(arch=SMALL.sample(rng), measured_ms=1.0 + number) for number in range(9)]
    correction = Correction(intercept_ms=0.1, slope=1.0, half_width=0.1, coverage=0.9, nets=20)
    return LatencyTable(table.rows, replace(table.info, calibration=correction, networks=tuple(networks)))


@pytest.fixture(scope="module")
def front(calibrated: LatencyTable) -> Front:
    return make_front(networks=200, devices=["fake"], latency={"fake": calibrated.info})


def test_calibrating(quick: list[str], table: LatencyTable, tmp_path: Path) -> None:
    def work(steps: Steps) -> Any:
        rng = np.random.default_rng(0)
        made = calibrate_table(table, SPACE, FAKE, nets=9, rng=rng, steps=steps)
        return made.info, rng.random()

    ends_the_same_wherever_it_is_cut_off(work, tmp_path / "table.calibrate.journal", range(1, 6))


def test_checking(quick: list[str], calibrated: LatencyTable, tmp_path: Path) -> None:
    def work(steps: Steps) -> Any:
        found = check_table(calibrated, SPACE, FAKE, nets=3, rng=np.random.default_rng(1), steps=steps)
        return found, found.networks.to_json()

    ends_the_same_wherever_it_is_cut_off(work, tmp_path / "table.check.journal", [2, 5])


def test_verifying_a_front(quick: list[str], calibrated: LatencyTable, front: Front, tmp_path: Path) -> None:
    budget = Budget({"latency_ms": 12.0})
    fixed: dict[str, Any] = {"table": calibrated, "processes": 3, "most_rounds": 2, "top": 3}

    def work(steps: Steps) -> Any:
        found = query_verified(front, SPACE, budget, FAKE, rng=np.random.default_rng(0), steps=steps, **fixed)
        learned = None if found.table is None else found.table.info
        return found.to_json(), learned, found.front.info, found.front.networks.to_json()

    ends_the_same_wherever_it_is_cut_off(work, tmp_path / "front.verify.journal", range(1, 3))
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "it.journal", doing="verifying") as journal:
        work(Cut(journal, 2))
    fixed["top"] = 2
    with (
        pytest.raises(FileError, match="have top 3 and now it is 2; repeat the interrupted command"),
        Journal(tmp_path / "it.journal", doing="verifying", resume=True) as journal,
    ):
        work(journal)


def test_fitting_a_predictor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known, asked = FakeAccuracy(noise=0.002), list[Any]()

    def measure(source: MeasuredAccuracy, arch: Any) -> float:
        asked.append(arch)
        return float(known([arch])[0])

    monkeypatch.setattr(MeasuredAccuracy, "_measure", measure)
    run = _run(tmp_path / "run")
    splits = run.load_data().splits

    def work(steps: Steps) -> Any:
        asked.clear()
        predictor = fit_to_supernet(run.supernet, splits, nets=12, rounds=1, rng=np.random.default_rng(0), steps=steps)
        return replace(predictor.info, date=""), predictor.of_rows(SPACE.sample_rows(50, np.random.default_rng(1))).tolist()

    folder = tmp_path / "fit"
    folder.mkdir()
    ends_the_same_wherever_it_is_cut_off(work, folder / "it.journal", [1, 11])
    assert len(asked) == 1  # by the last of the commands


def _run(folder: Path) -> Run:
    """A supernet of random weights, and digits."""
    phase = Phase(name="full", epochs=1, learning_rate=0.1, resolutions=(16,))
    recipe = Recipe(space="ofa-mbv3-tiny", data="digits", phases=(phase,), batch_size=64, fractions=(0.1, 0.05, 0.85))
    save_run(folder, recipe.build_supernet(10), recipe, ())
    return load_run(folder)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 2])
def test_specializing(cut: int, tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    arch = run.supernet.space.smallest(16)

    def specialize(name: str, journal: Journal | None, until: int = 9) -> Any:
        def progress(done: int, total: int, text: str = "") -> None:
            if done >= until and text.startswith("loss"):
                raise KeyboardInterrupt

        made = ofa.specialize(run, arch, tmp_path / name, epochs=3, journal=journal, progress=progress)
        metrics = {**made.card.provenance, "duration_s": 0}
        return metrics, {key: tensor.tolist() for key, tensor in made.network().state_dict().items()}

    path = tmp_path / "cut.specialize.journal"
    with pytest.raises(KeyboardInterrupt), Journal(path, doing="specializing") as journal:
        specialize("cut", journal, until=cut)
    assert [int(state.stem) for state in (tmp_path / "cut.specialize.states").iterdir()] == [2]  # later ones came within half a minute
    with Journal(path, doing="specializing", resume=True) as journal:
        resumed = specialize("cut", journal)
    assert resumed == specialize("whole", None)
    assert {each.name for each in tmp_path.iterdir()} == {"run", "cut", "whole"}


# -- real commands, really killed --------------------------------------------------------------------------------------


RECIPE = digits_recipe(2)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run and a table that commands are killed over."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "device.toml").write_text('name = "mine"\nruntime = "fake"\n')
    ofa_command("train", folder / "recipe.toml", "-o", folder / "run", "--on", "cpu")
    ofa_command("table", "build", "--space", "ofa-mbv3-tiny", "--device", folder / "device.toml", "-o", folder / "table")
    (folder / "arch.json").write_text(json.dumps(load_run(folder / "run").supernet.space.smallest(16).to_json()))
    return {path.stem: path for path in folder.iterdir()}


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
"""As many threads for all commands, which decide the last bits of sums."""


def ofa_command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ofa", *map(str, words)], check=True, capture_output=True, text=True, env=ENVIRONMENT)


KILLED = {
    "fit": "predictor fit {run} --nets 12 --rounds 1 --on cpu -o {out}",
    "calibrate": "table calibrate {table} --space ofa-mbv3-tiny --device {device} --nets 9 -o {out}",
    "transfer": "table transfer {table} --space ofa-mbv3-tiny --device {device} --nets 5 -o {out}",
    "specialize": "specialize {run} --arch {arch} --epochs 30 --on cpu -o {out}",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_command_goes_on_and_leaves_nothing(name: str, how: signal.Signals, places: dict[str, Path], tmp_path: Path) -> None:
    words = KILLED[name].format(**places, out=tmp_path / "cut").split()
    journal = tmp_path / f"cut.{name}.journal"
    kills = 0
    # A specialization is killed once its first state is there; the others after some steps, again and again.
    for steps in (2,) if name == "specialize" else (2, 4, 6):
        command = [sys.executable, "-m", "ofa", *words, *["--resume"] * (kills > 0)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        while process.poll() is None and not _has_kept(journal, steps):
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(how)
        _, told = process.communicate(timeout=60)
        kills += 1
        if how != signal.SIGKILL:
            assert process.returncode == 128 + how
            assert "the same command with --resume continues after them" in told
    assert kills
    refused = subprocess.run([sys.executable, "-m", "ofa", *words], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "add --resume to continue it, or --overwrite to start over" in refused.stderr
    ofa_command(*words, "--resume")
    assert {path.name for path in tmp_path.iterdir()} == {"cut"}
    ofa_command(*KILLED[name].format(**places, out=tmp_path / "whole").split())
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    again = ofa_command(*words, "--resume")
    assert "nothing is left to do; --overwrite makes it anew" in again.stderr


def _has_kept(journal: Path, steps: int) -> bool:
    """Whether so many steps are kept, or a state beside those that a specialization has."""
    if journal.name.startswith("cut.specialize"):
        return any(journal.with_suffix(".states").glob("[0-9]*.safetensors"))
    return journal.exists() and journal.read_bytes().count(b"\n") > steps


def content(path: Path) -> Any:
    """What decides later results: of a bundle its weights, of a table or a predictor what is known of it, but for times of day."""
    if path.is_dir():
        from ofa.exporting.bundle import load_bundle

        return {key: tensor.tolist() for key, tensor in load_bundle(path).network().state_dict().items()}
    try:
        table = LatencyTable.load(path)
    except ofa.errors.OfaError:
        from search.predictor.accuracy_predictor import AccuracyPredictor

        predictor = AccuracyPredictor.load(path)
        return replace(predictor.info, date=""), predictor.of_rows(SPACE.sample_rows(50, np.random.default_rng(1))).tolist()
    return table.rows.to_json(), table.info.networks, table.info.calibration
