"""The main road in Python, with the names that ``ofa`` hands out, and the public names of the packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import devices
import latency_tables
import ofa
import search as search_package
from ofa import build_table, export, fit_predictor, get_space, query, search, specialize, train, verify
from ofa.errors import FileError, OfaError, SearchError

RECIPE = """
space = "ofa-mbv3-tiny"
data = "digits"
fractions = [0.4, 0.1, 0.5]
batch_size = 32
workers = 0

[[phases]]
name = "full"
epochs = 1
learning_rate = 0.05
resolutions = [16]
"""

NAMES = {
    ofa: (
        *("Arch", "OfaError", "Space", "Supernet", "__version__", "build_table", "export", "fit_predictor", "get_space", "lower"),
        *("query", "search", "space_names", "specialize", "train", "verify"),
    ),
    search_package: (
        *("AccuracyPredictor", "AccuracySource", "Bound", "Budget", "Candidate", "Effort", "Front", "ImpossibleBudgetError"),
        *("LatencySource", "MeasuredAccuracy", "MeasuredLatency", "Problem", "query_verified", "run_study"),
    ),
    latency_tables: (
        *("Correction", "Estimator", "Journal", "LatencyTable", "TableCheck", "blocks_of_space", "build_table", "calibrate_table"),
        *("check_table", "table_from_networks", "transfer_table"),
    ),
    devices: (
        *("Address", "Conditions", "Device", "Fake", "Local", "RUNTIMES", "Settings", "Ssh", "TRANSPORTS", "Timing"),
        *("TimingPolicy", "describe", "device_names", "get_device", "load_device", "probe", "time_models"),
    ),
}


@pytest.mark.parametrize("package", NAMES, ids=lambda package: package.__name__)
def test_public_names_are_these(package: object) -> None:
    """A name that goes or comes is a change for users: say it in CHANGELOG.md, and here."""
    assert sorted(package.__all__) == sorted(NAMES[package])  # type: ignore[attr-defined, index]
    assert all(hasattr(package, name) for name in NAMES[package])  # type: ignore[index]


def test_importing_is_cheap_and_every_name_is_what_it_says_in_any_order() -> None:
    """Names that are loaded when they are asked for must not be modules of the same name, whatever was imported before."""
    code = (
        "import sys, ofa, search\n"
        "assert not {'torch', 'numpy', 'optuna'} & set(sys.modules), sorted(sys.modules)\n"
        "import ofa.cli.export, ofa.exporting.bundle, ofa.training.specialization, search.study\n"
        "modules = [n for p in (ofa, search) for n in p.__all__ if type(getattr(p, n)).__name__ == 'module']\n"
        "assert modules == [], modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_main_road(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    run = train(str(tmp_path / "recipe.toml"), tmp_path / "run", on="cpu")
    space = run.supernet.space
    assert space.name == get_space("ofa-mbv3-tiny").name
    table = build_table(space, "fake", resolutions=[16], nets=9)
    predictor = fit_predictor(run, nets=12, rounds=0)
    front = search(predictor, [table], trials=16, evaluations=2000)
    slowest = max(front.columns["latency_high_ms@fake"])
    (best,) = query(front, {"latency_ms": f"{slowest}ms", "weight_bytes": "1GiB"})
    bundle = specialize(run, best, tmp_path / "bundle", front=front, epochs=1)
    assert bundle.card.latency_ms == best.latencies["fake"].latency_ms
    assert export(bundle, "onnx", tmp_path / "network.onnx").stat().st_size > 1000
    found = verify(bundle, "fake", budget_ms=slowest)
    assert found.within_interval
    assert found.within_budget
    with pytest.raises(FileError, match=r"exists; name another place, or pass overwrite=True"):
        export(bundle, "onnx", tmp_path / "network.onnx")
    with pytest.raises(FileError, match="not empty"):
        train(str(tmp_path / "recipe.toml"), tmp_path / "run")
    with pytest.raises(SearchError, match="'pi' is none of fake"):
        specialize(run, best, tmp_path / "other", front=front, device="pi", epochs=0)
    with pytest.raises(OfaError, match=r"a latency must be a positive number with a unit \(us, ms, s\), but got '12'"):
        query(front, {"latency_ms": "12"})
