"""``ofa demo``: all stages on scikit-learn's handwritten digits, each by the function behind its own command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_bytes, format_conditions, format_ms, format_percent, progress_bar
from ofa.cli.outputs import OverwriteOption, check_output_folder
from ofa.cli.sheets import Name, facts, line, records, words
from ofa.locking import writing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices import Device
    from latency_tables import LatencyTable
    from search.front.candidate import Candidate
    from search.front.front import Front

__all__ = ["demo", "register"]

_EXAMPLE = "Example: ofa demo -o demo"

_BUDGETS = (0.15, 0.4, 0.75)
"""Position of the three budgets between the front's fastest (0) and most accurate network (1)."""

_NETS_FOR_TABLE = 20
_NETS_FOR_PREDICTOR = 60
_TRIALS = 160
_EVALUATIONS = 20_000
_FINE_TUNING_EPOCHS = 8


def register(app: typer.Typer) -> None:
    """Add ``ofa demo``."""
    app.command("demo", epilog=_EXAMPLE)(demo)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write everything.")] = Path("demo"),
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="The device to measure.")] = "local-cpu",
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train, measure, search, query, specialize, export and verify on handwritten digits, in a few minutes on a laptop CPU."""
    from ofa.training.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    # Networks for digits are so small that a second thread mostly waits for the first, on a busy machine for seconds.
    torch.set_num_threads(1)
    road = _Road(output, device, seed)
    with writing(output, "making the demo"):
        check_output_folder(output, overwrite=overwrite)
        report = road.walk()
    emit(report, json=json, render=lambda: _render(report))


@dataclass
class _Road:
    """One pass from images to verified networks."""

    output: Path
    device_name: str
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return self.output / "run"

    @property
    def table(self) -> Path:
        return self.output / "table.parquet"

    @property
    def predictor(self) -> Path:
        return self.output / "predictor.parquet"

    @property
    def front(self) -> Path:
        return self.output / "front.parquet"

    @property
    def picture(self) -> Path:
        return self.output / "front.png"

    @property
    def report(self) -> Path:
        return self.output / "report.html"

    def walk(self) -> dict[str, Any]:
        """All stages; returns the JSON object of ``ofa demo --json``."""
        from devices import get_device
        from ofa.cli.predictor import fit_predictor
        from ofa.cli.train import train_recipe
        from ofa.errors import FileError
        from ofa.training.presets import demo_recipe

        device = get_device(self.device_name)
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"'{self.output}' must be a folder that can be made, but {error.strerror}; choose another") from error
        with self._stage("train"):
            trained = train_recipe(demo_recipe(seed=self.seed), self.run, overwrite=True)
        with self._stage("measure"):
            table = self._measure(device)
        with self._stage("predict"):
            settings: dict[str, Any] = {"nets": _NETS_FOR_PREDICTOR, "classes": None, "seed": self.seed, "on": "cpu"}  # as it was trained
            predicted = fit_predictor(self.run, self.predictor, overwrite=True, **settings)
        with self._stage("search"):
            front = self._search(table)
        budgets = _budgets(front)
        chosen = _choose(front, budgets)
        with self._stage("specialize"):
            bundles = self._specialize(front, chosen, device)
        with self._stage("verify"):
            answers = self._verify(bundles, budgets, device)
        self._draw(front, chosen, answers)
        with self._stage("report"):
            self._report(front, chosen, answers)
        return {
            "device": device.name,
            "conditions": table.conditions.to_json(),
            "stages_s": {name: round(seconds, 1) for name, seconds in self.seconds.items()},
            "training": {key: trained[key] for key in ("space", "epochs", "networks")},
            "table": {"blocks": len(table), "networks_for_correction": _NETS_FOR_TABLE},
            "predictor": {key: predicted[key] for key in ("networks", "kendall_tau", "rmse")},
            "front": {"networks": len(front), "evaluated": front.info.evaluated},
            "results": answers,
            "files": {"folder": str(self.output), "picture": str(self.picture), "front": str(self.front), "report": str(self.report)},
        }

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def _measure(self, device: Device) -> LatencyTable:
        """Time every block of the space on the device, then whole networks to correct their sum."""
        import numpy as np

        from latency_tables import build_table, calibrate_table
        from ofa.training import load_run

        space = load_run(self.run).supernet.space
        with progress_bar(f"timing blocks on {device.name}") as progress:
            table = build_table(space, device, rng=np.random.default_rng(self.seed), progress=progress)
        with progress_bar(f"timing networks on {device.name}") as progress:
            rng = np.random.default_rng(self.seed)
            table = calibrate_table(table, space, device, nets=_NETS_FOR_TABLE, rng=rng, progress=progress)
        table.save(self.table)
        return table

    def _search(self, table: LatencyTable) -> Front:
        from latency_tables import Estimator
        from search.predictor.accuracy_predictor import AccuracyPredictor
        from search.problem import Problem
        from search.study import Effort, run_study

        accuracy = AccuracyPredictor.load(self.predictor)
        problem = Problem(space=accuracy.space, accuracy=accuracy, latencies=[Estimator(accuracy.space, table)])
        with progress_bar("searching with Optuna") as progress:
            front = run_study(problem, seed=self.seed, effort=Effort(trials=_TRIALS, evaluations=_EVALUATIONS), progress=progress)
        front.save(self.front)
        return front

    def _specialize(self, front: Front, chosen: dict[str, Candidate], device: Device) -> dict[str, Path]:
        from ofa.cli.specialize import specialize_run
        from ofa.training import load_run

        run = load_run(self.run)
        bundles = {}
        # Named by number, so that a second demo replaces these folders even if its budgets differ.
        for number, (name, candidate) in enumerate(chosen.items(), start=1):
            bundles[name] = self.output / f"network-{number}"
            specialize_run(
                run,
                candidate,
                bundles[name],
                epochs=_FINE_TUNING_EPOCHS,
                seed=self.seed,
                front=front,
                device=device.name,
                overwrite=True,
            )
        return bundles

    def _verify(self, bundles: dict[str, Path], budgets: dict[str, float], device: Device) -> list[dict[str, Any]]:
        """Compare the bundles' ONNX files with PyTorch, time them, and write both results to their cards."""
        import numpy as np

        from ofa.exporting.bundle import load_bundle
        from search.verification.bundle import subject_of_bundle
        from search.verification.networks import verify

        loaded = {name: load_bundle(path) for name, path in bundles.items()}
        subjects = [subject_of_bundle(bundle, device, budgets[name]) for name, bundle in loaded.items()]
        with progress_bar(f"verifying on {device.name}") as progress:
            found = verify(subjects, device, rng=np.random.default_rng(self.seed), progress=progress)
        answers = []
        for (name, bundle), verification in zip(loaded.items(), found, strict=True):
            card = bundle.note_measurement(device.name, verification.timing.median_ms, verification.to_json()["conditions"]).card
            answers.append(
                {"budget": name, "bundle": str(bundle.folder), **card.to_json(), **verification.to_json(), "arch": bundle.arch.to_json()}
            )
        return answers

    def _draw(self, front: Front, chosen: dict[str, Candidate], answers: list[dict[str, Any]]) -> None:
        from search.plot import Pick, save_front_picture

        measured = {answer["budget"]: answer["measured_ms"] for answer in answers}
        picks = [Pick(label=f"at most {name}", candidate=candidate, measured_ms=measured[name]) for name, candidate in chosen.items()]
        save_front_picture(front, self.picture, picks=picks)

    def _report(self, front: Front, chosen: dict[str, Candidate], answers: list[dict[str, Any]]) -> None:
        """Store the measurements in the front, and write its page."""
        from devices import Conditions
        from search.front.info import VerifiedNetwork
        from search.report import save_report

        (device,) = front.device_names
        measured = {answer["budget"]: answer for answer in answers}
        timed = [
            VerifiedNetwork(
                arch=candidate.arch,
                device=device,
                **candidate.latencies[device].to_json(),
                measured_ms=measured[name]["measured_ms"],
                conditions=Conditions.from_json(measured[name]["conditions"]),
            )
            for name, candidate in chosen.items()
        ]
        front = front.with_verified(timed)
        front.save(self.front)
        save_report(front, self.report)


def _budgets(front: Front) -> dict[str, float]:
    """Three plausible latency budgets in ms on this device, by name."""
    from search.budget import Budget

    (device,) = front.device_names
    fastest = float(front.columns[f"latency_high_ms@{device}"].min())
    (best,) = front.query(Budget())
    values = [fastest + share * (best.latencies[device].latency_high_ms - fastest) for share in _BUDGETS]
    # Two significant digits, upwards, so that the smallest budget stays possible.
    rounded = [float(f"{value * 1.03:.2g}") for value in values]
    return {f"{value:g} ms": value for value in rounded}


def _choose(front: Front, budgets: dict[str, float]) -> dict[str, Candidate]:
    from search.budget import Budget

    return {name: front.query(Budget({"latency_ms": value}))[0] for name, value in budgets.items()}


def _render(report: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    from ofa.resolution import pixels

    title = f"Best networks for three budgets on {report['device']}: {format_conditions(report['conditions'])}"
    columns = ("budget", "input", "blocks", "accuracy", "promised", "measured", "budget kept", "weights", "ONNX = PyTorch to")
    rows = []
    for row in report["results"]:
        interval = f"{format_ms(row['latency_ms'])} ({row['latency_low_ms']:.3f} .. {row['latency_high_ms']:.3f})"
        rows.append(
            (
                row["budget"],
                pixels(row["arch"]["resolution"]),
                "-".join(str(len(stage)) for stage in row["arch"]["stages"]),
                format_percent(row["accuracy"]),
                interval,
                format_ms(row["measured_ms"]),
                "yes" if row["within_budget"] else "no",
                format_bytes(row["weight_bytes"]),
                f"{row['difference']:.0e}",
            )
        )
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in report["stages_s"].items())
    predictor, front = report["predictor"], report["front"]
    said = (
        f"Accuracy is measured on the fine-tuned network, with digits that nothing else used. The front has {front['networks']} of "
        f"{front['evaluated']} networks; the predictor ranks unseen networks with a Kendall tau of {predictor['kendall_tau']:.2f}."
    )
    files = report["files"]
    written = facts((("files", Name(files["folder"])), ("picture", Name(files["picture"])), ("page", Name(files["report"]))))
    budget = report["results"][1]["budget"].replace(" ", "")
    command = line(f"ofa query {shlex.quote(files['front'])} --latency {budget}")
    sheet = records(columns, rows, title=title)
    return Group(sheet, words(said), words(f"{seconds}."), written, words("Ask for another budget:"), command)
