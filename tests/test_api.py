"""The Python API of the whole workflow, as ``ofa`` exports it, and the public names of the packages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import devices
import latency_tables
import ofa
import search as search_package
from ofa import build_table, export, fit_predictor, get_space, query, search, specialize, train, verify
from ofa.arch import Arch
from ofa.blocks import Classifier, ConvBlock, PlacedBlock
from ofa.errors import FileError, OfaError, RecipeError, SearchError
from ofa.exporting.bundle import load_bundle
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage
from ofa.training import load_run
from search.report import read_source, save_report

OWN = f"{__name__}:plain"
RECIPE = f"""
space = "{OWN}"
data = "digits"
fractions = [0.4, 0.1, 0.5]
batch_size = 32
workers = 0

[[phases]]
name = "full"
epochs = 1
learning_rate = 0.05
"""


@dataclass(frozen=True, kw_only=True)
class PlainNets(Space):
    """A family that lives here: plain convolutions, whose number and kernels are elastic."""

    width: int

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        placer, channels = Placer(self, arch), self.in_channels
        for b, genes in enumerate(arch.stages[0]):
            kernel, stride = int(genes["kernel"]), 2 if b == 0 else 1
            placer.place(f"stages.0.{b}", ConvBlock(in_channels=channels, out_channels=self.width, kernel=kernel, stride=stride))
            channels = self.width
        placer.place("classifier", Classifier(in_channels=channels, out_channels=self.num_classes, pool=True))
        return placer.placed


def plain() -> PlainNets:
    return PlainNets(name="plain-api", resolutions=(12, 16), stages=(Stage((1, 2), (Gene("kernel", (1, 3)),)),), width=8, num_classes=10)


NAMES = {
    ofa: (
        *("Arch", "OfaError", "Space", "Supernet", "__version__", "adopt", "build_table", "export", "fit_predictor", "get_space", "lower"),
        *("query", "search", "space_names", "specialize", "train", "verify"),
    ),
    search_package: (
        *("AccuracyPredictor", "AccuracySource", "Bound", "Budget", "Candidate", "Effort", "Front", "ImpossibleBudgetError"),
        *("LatencySource", "MeasuredAccuracy", "MeasuredLatency", "Pick", "Problem", "draw_front", "query_verified", "run_study"),
    ),
    latency_tables: (
        *("Correction", "Estimator", "Journal", "LatencyTable", "TableCheck", "blocks_of_space", "build_table", "calibrate_table"),
        *("check_table", "draw_check", "table_from_networks", "transfer_table"),
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


def test_the_main_road_of_a_family_of_ones_own(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with pytest.raises(RecipeError, match="code is imported only on the user's request"):
        train(str(recipe), tmp_path / "run")
    run = train(str(recipe), tmp_path / "run", changes=[f"space={OWN}"], on="cpu")
    assert run.supernet.space == get_space(OWN)
    table = build_table(OWN, "fake", nets=9)
    front = search(fit_predictor(run, nets=12, rounds=0), [table], trials=16, evaluations=2000)
    slowest = max(front.columns["latency_high_ms@fake"])
    (best,) = query(front, {"latency_ms": f"{slowest}ms", "weight_bytes": "1GiB"})
    bundle = specialize(run, best, tmp_path / "bundle", front=front, epochs=1)
    assert bundle.card.latency_ms == best.latencies["fake"].latency_ms
    assert export(bundle, "onnx", tmp_path / "network.onnx").stat().st_size > 1000
    found = verify(bundle, "fake", budget_ms=slowest)
    assert found.within_interval
    assert found.within_budget
    for number, source in enumerate((front, table, read_source(tmp_path / "run"))):
        save_report(source, tmp_path / f"{number}.html")
        assert "plain-api" in (tmp_path / f"{number}.html").read_text(encoding="utf-8")
    # Everything comes back from its files, and goes on to where it went before.
    again = search(load_run(tmp_path / "run"), trials=3, objectives=["macs"])
    assert query(again, {"macs": "1G"})[0].arch in run.supernet.space
    assert load_bundle(tmp_path / "bundle").space == run.supernet.space
    with pytest.raises(FileError, match=r"exists; name another (path|folder), or pass overwrite=True"):
        export(bundle, "onnx", tmp_path / "network.onnx")
    with pytest.raises(FileError, match="not empty"):
        train(str(recipe), tmp_path / "run", trust=True)
    with pytest.raises(SearchError, match="'pi' is none of fake"):
        specialize(run, best, tmp_path / "other", front=front, device="pi", epochs=0)
    with pytest.raises(OfaError, match=r"a latency must be a positive number with a unit \(us, ms, s\), but got '12'"):
        query(front, {"latency_ms": "12"})
