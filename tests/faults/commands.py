"""The commands that are killed and refused a disk: each with what it starts from, and what of its outputs must be the same each time."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from latency_tables import LatencyTable
from ofa.errors import OfaError
from ofa.exporting.bundle import load_bundle
from ofa.training import has_ended, load_run
from ofa.training.checkpoint import CONFIG
from search.front.front import Front
from search.predictor.accuracy_predictor import AccuracyPredictor
from tests.faults.zygote import Ended, Zygote
from tests.recipes import digits_recipe

__all__ = ["COMMANDS", "Command", "Place", "Road", "by_name"]

RECIPE = digits_recipe(2, "fractions = [0.03, 0.04, 0.93]", "evaluate_every = 0", "checkpoint_steps = 2", batch_size=16)
TIMES = ("duration_s", "images_per_s", "waiting_s")

Content = Callable[[Path], dict[str, str | None]]


@dataclass(frozen=True)
class Command:
    """A command as it is tested.

    Attributes:
        name: in tests; it is also that of the folder it starts from.
        words: of the command line.
        content: the deterministic content of its outputs in the folder, by name; None for one that is not there or not finished.
        again: what a user adds to it after it was cut off.
        needs: commands whose files it starts from.
        begins: whether what it replaces may be gone, and say so, until the new is there.
        fuzzy: whether the machine decides the order of work: then only that nothing that was complete is lost is sure.
    """

    name: str
    words: str
    content: Content
    again: str = ""
    needs: tuple[str, ...] = ()
    begins: bool = False
    fuzzy: bool = False


def _digest(*parts: Any) -> str:
    """One hash of states of modules, bytes and JSON values."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, dict) and all(isinstance(value, torch.Tensor) for value in part.values()):
            for name in sorted(part):
                found.update(f"{name} {part[name].dtype} {tuple(part[name].shape)}".encode() + part[name].detach().numpy().tobytes())
        else:
            found.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return found.hexdigest()


def _run(folder: Path) -> dict[str, str | None]:
    if not (has_ended(folder / "run") and (folder / "run" / CONFIG).exists()):  # without a recipe it is no run, and told to be none
        return {"run": None}
    run = load_run(folder / "run")
    metrics = [{key: value for key, value in asdict(each).items() if key not in TIMES} for each in run.metrics]
    return {"run": _digest(run.supernet.state_dict(), [run.recipe.seed], metrics)}


def _table(folder: Path) -> dict[str, str | None]:
    if not (folder / "table").exists():
        return {"table": None}
    table = LatencyTable.load(folder / "table")
    rows = sorted(table.rows.drop(columns="peak_memory_bytes").to_json(orient="records", lines=True).splitlines())
    return {"table": _digest(rows, None if table.correction is None else asdict(table.correction))}


def _predictor(folder: Path) -> dict[str, str | None]:
    if not (folder / "predictor").exists():
        return {"predictor": None}
    predictor = AccuracyPredictor.load(folder / "predictor")
    archs = [predictor.space.smallest(), predictor.space.largest()]
    return {"predictor": _digest(predictor(archs).tolist(), [predictor.networks, predictor.kendall_tau])}


def _front(folder: Path) -> dict[str, str | None]:
    if not (folder / "front").exists():
        return {"front": None}
    front = Front.load(folder / "front")
    networks = front.networks.sort_values("arch")
    verified = [[each.arch.to_json(), each.device, each.measured_ms] for each in front.info.verified]
    return {"front": _digest(networks.to_json(orient="records"), verified)}


def _updated(folder: Path) -> dict[str, str | None]:
    return {**_front(folder), **_table(folder)}


def _bundle(folder: Path) -> dict[str, str | None]:
    if not (folder / "bundle").exists():
        return {"bundle": None}
    bundle = load_bundle(folder / "bundle")
    card = {key: value for key, value in bundle.card.to_json().items() if key not in ("provenance", "files")}
    network = bundle.network()
    return {"bundle": _digest(network.state_dict(), bundle.arch.to_json(), card, bundle.onnx_path.read_bytes())}


def _onnx(folder: Path) -> dict[str, str | None]:
    exported = folder / "bundle" / "network.batch2.onnx"
    if not exported.exists():
        return {**_bundle(folder), "onnx": None}
    return {**_bundle(folder), "onnx": _digest(exported.read_bytes())}


def _study(folder: Path) -> dict[str, str | None]:
    """Every trial that is complete, by its number."""
    if (folder / "worked").exists():
        Front.load(folder / "worked")
    # Of a copy, with the journal by which SQLite takes back what a kill cut off: reading must not mend what is looked at.
    with TemporaryDirectory() as copy:
        for path in folder.glob("study.db*"):
            shutil.copy(path, copy)
        study = sqlite3.connect(Path(copy) / "study.db")
        try:
            trials = study.execute(
                "select number, value from trials join trial_values using (trial_id) where state = 'COMPLETE' order by number, objective"
            ).fetchall()
        except sqlite3.OperationalError:  # its tables are not made yet
            trials = []
        finally:
            study.close()
    values: dict[int, list[float]] = {}
    for number, value in trials:
        values.setdefault(number, []).append(value)
    return {f"trial {number}": str(each) for number, each in values.items()}


_ON = "--space ofa-mbv3-tiny --device fake --resolutions 16"
_SMALL = "--trials 16 --evaluations 300"
COMMANDS = (
    Command("train", "train recipe.toml -o run --on cpu", _run, again="--resume", begins=True),
    Command("train-over", "train recipe.toml -o run --on cpu --overwrite --set seed=1", _run, needs=("train",), begins=True),
    Command("build", f"table build {_ON} -o table", _table, again="--resume"),
    Command("calibrate", f"table calibrate table {_ON} --nets 9", _table, again="--resume", needs=("build",)),
    Command("predictor", "predictor fit run -o predictor --nets 10 --rounds 1 --on cpu", _predictor, again="--resume", needs=("train",)),
    Command("search", f"search --predictor predictor --table table {_SMALL} -o front", _front, needs=("predictor", "calibrate")),
    Command(
        "workers",
        "search --supernet run --table table --trials 4 --evaluations 0 --workers 2 --storage sqlite:///study.db -o worked --on cpu",
        _study,
        needs=("train", "calibrate"),
        fuzzy=True,
    ),
    Command(
        "query",
        "query front --latency 9ms --verify --update --table table --device fake",
        _updated,
        again="--resume",
        needs=("search",),
    ),
    Command(
        "specialize",
        "specialize run --front front --latency 9ms --epochs 1 -o bundle --on cpu",
        _bundle,
        again="--resume",
        needs=("train", "search"),
    ),
    Command(
        "specialize-over",
        "specialize run --front front --latency 9ms --epochs 1 -o bundle --on cpu --seed 1 --overwrite",
        _bundle,
        again="--resume",
        needs=("specialize",),
    ),
    Command("export", "export bundle --to onnx --batch 2", _onnx, again="--overwrite", needs=("specialize",)),
    Command("verify", "verify bundle --device fake", _bundle, again="--resume", needs=("specialize",)),
)


def by_name(name: str) -> Command:
    """The command of a name."""
    return next(command for command in COMMANDS if command.name == name)


@dataclass(frozen=True)
class Place:
    """Where a command runs: ``work`` is its folder, ``temporary`` its TMPDIR, ``output`` takes what it prints."""

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def output(self) -> Path:
        return self.root / "out"

    @classmethod
    def of(cls, root: Path, start: Path) -> Place:
        """A new place with a copy of what a command starts from."""
        shutil.rmtree(root, ignore_errors=True)
        place = cls(root)
        shutil.copytree(start, place.work)
        place.temporary.mkdir()
        place.output.mkdir()
        return place

    def run(self, zygote: Zygote, words: str, decide: Any = None, **settings: Any) -> Ended:
        """Run a command here."""
        return zygote.run(words.split(), self.work, self.temporary, self.output, decide, **settings)

    def files(self) -> set[str]:
        """Everything that is there, but for what was printed and what is not ours (``_is_of_others``)."""
        found = (path for root in (self.work, self.temporary) for path in root.rglob("*") if not self._is_of_others(path))
        return {str(path.relative_to(self.root)) for path in found}

    def _is_of_others(self, path: Path) -> bool:
        """Torch's cache, which is meant to stay, and the four bytes by which Python tries a temporary folder, which a kill leaves there."""
        if not path.is_relative_to(self.temporary):
            return False
        probe = path.parent == self.temporary and re.fullmatch(r"[a-z0-9_]{8}", path.name) and path.is_file() and path.stat().st_size <= 4
        return bool(probe) or path.relative_to(self.temporary).parts[0].startswith("torchinductor")


@dataclass(frozen=True)
class Uninterrupted:
    """A command that was let alone: what it started from, what it did, and what came of it."""

    start: Path
    ended: Ended
    old: dict[str, str | None]
    new: dict[str, str | None]
    files: frozenset[str]


class Road:
    """All commands, each run once without a fault when it is first asked for, from the files of those that it needs."""

    def __init__(self, root: Path, zygote: Zygote) -> None:
        self.root, self.zygote, self._done = root, zygote, dict[str, Uninterrupted]()

    def to(self, command: Command) -> Uninterrupted:
        """What a command comes to."""
        if command.name not in self._done:
            self._done[command.name] = self._walk(command)
        return self._done[command.name]

    def _walk(self, command: Command) -> Uninterrupted:
        start = self.root / command.name / "start"
        shutil.rmtree(start, ignore_errors=True)  # of a time when it failed
        start.mkdir(parents=True)
        (start / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        for name in command.needs:
            self.to(by_name(name))
            shutil.copytree(self.root / name / "done" / "work", start, dirs_exist_ok=True)
        place = Place.of(self.root / command.name / "done", start)
        old = command.content(place.work)
        ended = place.run(self.zygote, command.words)
        if ended.status:
            raise OfaError(f"'ofa {command.words}' must work, but ended with {ended.status}: {ended.err}")
        return Uninterrupted(start, ended, old, command.content(place.work), frozenset(place.files()))
