"""One file of every kind that commands read, and of every command an invocation that uses them: what tests of all commands walk over."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from devices import Timing, describe, get_device
from latency_tables import Correction, LatencyTable, blocks_of_space
from latency_tables.info import TableInfo
from latency_tables.table import row_of, rows_frame
from ofa.blocks import build_network
from ofa.exporting.bundle import write_bundle
from ofa.exporting.card import Card
from ofa.families import get_space, lower
from ofa.interop.mit_keys import key_names
from ofa.supernet import Supernet
from ofa.training import demo_recipe, save_run
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.sampling import sample_stratified
from tests.cli import own_model
from tests.commands import command_line
from tests.search.fakes import FakeAccuracy
from tests.search.predictor.losses import losses_of

SPACE = get_space("ofa-mbv3-tiny")


@dataclass(frozen=True)
class Command:
    """How a command is called in tests.

    Attributes:
        words: of the command.
        arguments: valid ones; ``{name}`` is one of the files, ``{out}`` a place to write.
        inputs: those of its files that it reads, by the name of their parameter.
        outputs: the options by which it is told where to write, by the name of their parameter.
        slow: whether it takes so long that tests do not let it end.
    """

    words: str
    arguments: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    slow: bool = False


_OUT = {"output": "-o"}
_FAKE = "--space ofa-mbv3-tiny --device fake"
_DEVICE = {"device": "{device}"}

COMMANDS = (
    Command("space", "ofa-mbv3-tiny --samples 2 --table {table}", {"table": "{table}"}),
    Command("space", "ofa-mbv3-tiny --samples 2 --resolutions 16,24", {}, _OUT),
    Command("recipes", ""),
    Command("data", "{photos}", {"source": "{photos}"}, _OUT),
    Command(
        "adopt",
        "tests.cli.own_model:model --input 3x16x16 --resolutions 16 --weights {state} --classes-from {names}",
        {"weights": "{state}", "classes_from": "{names}"},
        _OUT,
        slow=True,
    ),
    Command("train", "{recipe}", {"config": "{recipe}"}, _OUT, slow=True),
    Command("devices list", "--devices-dir {devices}", {"folders": "{devices}"}),
    Command("devices show", "{device}", {"name": "{device}"}),
    Command("devices probe", "{device}", {"name": "{device}"}),
    Command("table build", "--space ofa-mbv3-tiny --device {device} --resolutions 16", _DEVICE, _OUT),
    Command("table calibrate", f"{{table}} {_FAKE} --nets 9", {"table": "{table}"}, _OUT),
    Command("table check", f"{{table}} {_FAKE} --nets 3", {"table": "{table}"}, {"plot": "--plot"}),
    Command("table show", "{table}", {"table": "{table}"}, {"csv": "--csv"}),
    Command(
        "table transfer",
        "{table} --space ofa-mbv3-tiny --device {other} --measurements {measurements}",
        {"source": "{table}", "measurements": "{measurements}"},
        _OUT,
    ),
    Command("table import mit-yaml", "{yaml} --space ofa-mbv3-tiny --device phone", {"files": "{yaml}"}, _OUT),
    Command("predictor fit", "{results}", {"source": "{results}"}, _OUT),
    Command("predictor quantization", "{run} --nets 10", {"run": "{run}"}, _OUT, slow=True),
    Command(
        "search",
        "--predictor {predictor} --table {table} --trials 16 --evaluations 300",
        {"predictor": "{predictor}", "table": "{table}"},
        {**_OUT, "picture": "--picture"},
    ),
    Command(
        "search",
        "--predictor {predictor} --table {table} --table {table_int8} --losses {losses} --trials 16 --evaluations 300",
        {"losses": "{losses}"},
        _OUT,
    ),
    Command("query", "{front} --verify --device fake --table {table}", {"front": "{front}", "table": "{table}"}, _OUT),
    Command("specialize", "{run} --arch {arch} --epochs 0", {"run": "{run}", "arch": "{arch}"}, _OUT),
    Command("export", "{bundle} --to onnx --batch 2", {"bundle": "{bundle}"}, _OUT),
    Command("verify", "{bundle} --device {device}", {"bundle": "{bundle}", "device": "{device}"}),
    Command("report", "{front}", {"source": "{front}"}, {**_OUT, "png": "--png"}),
    Command("import mit-weights", "{weights} --space ofa-mbv3-tiny --data digits", {"file": "{weights}"}, _OUT),
    Command("import mit-arch", "{config} --resolution 192", {"file": "{config}"}, _OUT),
    Command("import mit-predictor", "{pickled} --space ofa-mbv3-w1.2", {"file": "{pickled}"}, _OUT),
    Command("demo", "", {}, _OUT, slow=True),
)

FOLDERS = {
    "adopt": ("output",),
    "train": ("output",),
    "specialize": ("output",),
    "import mit-weights": ("output",),
    "demo": ("output",),
    "report": ("png",),
}
"""Commands whose outputs are folders."""

REQUIRED = {
    "table build",
    "table transfer",
    "table import mit-yaml",
    "predictor fit",
    "predictor quantization",
    "search",
    "specialize",
    "report",
    "adopt",
    "train",
} | {f"import {name}" for name in ("mit-weights", "mit-arch", "mit-predictor")}
"""Commands that do not run without -o."""

ENDINGS = {"space": ".json", "import mit-predictor": ".safetensors", "table show": ".csv"}


def call(command: Command, places: dict[str, Path], *more: object) -> list[str]:
    """The words of a valid invocation."""
    return [*command.words.split(), *(part.format(**places) for part in command.arguments.split()), *map(str, more)]


def outputs_to(command: Command, folder: Path) -> list[str]:
    """Options for outputs that a command does not run without, in a folder."""
    return ["-o", str(folder / f"o{ENDINGS.get(command.words, '')}")] if command.words in REQUIRED else []


# -- the files ---------------------------------------------------------------------------------------------------------


def make_places(folder: Path) -> dict[str, Path]:
    """Write one of every kind."""
    recipe = demo_recipe()
    save_run(folder / "run", recipe.build_supernet(10), recipe, ())
    arch = SPACE.smallest(resolution=16)
    arch.save(folder / "arch.json")
    write_table(folder / "table")
    write_table(folder / "table_int8", device="fake-int8", precision="int8")
    _write_bundle(folder / "bundle")
    archs = sample_stratified(SPACE, 40, np.random.default_rng(0))
    accuracies = FakeAccuracy(noise=0.002)(archs)
    texts = [json.dumps(each.to_json()) for each in archs]
    pd.DataFrame({"arch": texts, "accuracy": accuracies}).to_csv(folder / "results.csv", index=False)
    AccuracyPredictor.fit(SPACE, archs, accuracies, np.random.default_rng(0)).save(folder / "predictor")
    losses_of(SPACE).save(folder / "losses")
    _write_measurements(folder / "measurements.csv")
    _write_photos(folder / "photos")
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    (folder / "devices").mkdir()
    device = 'name = "mine"\nruntime = "fake"\n'
    for name in ("device.toml", "devices/mine.toml"):
        (folder / name).write_text(device, encoding="utf-8")
    (folder / "other.toml").write_text(device.replace("mine", "other"), encoding="utf-8")
    torch.save(own_model.model().state_dict(), folder / "state.pth")
    (folder / "names.txt").write_text("ant\nbee\ncat\ndog\n", encoding="utf-8")
    write_mits(folder)
    places = {path.stem: path for path in folder.iterdir()}
    made = command_line(*call(_named("search"), places, "-o", folder / "front"))
    assert made.exit_code == 0, made.stderr
    return {**places, "front": folder / "front"}


def _named(words: str) -> Command:
    return next(command for command in COMMANDS if command.words == words)


def write_table(path: Path, *, device: str = "fake", precision: str = "fp32", block_ms: float = 0.01, per_mmac_ms: float = 1.0) -> None:
    """A latency table of the tiny space, whose times follow from the blocks."""
    rows = []
    for placed in blocks_of_space(SPACE):
        ms = block_ms + per_mmac_ms * placed.block.macs(placed.input) / 1e6
        rows.append(row_of(placed, Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=3), batch=1, precision=precision))
    correction = Correction(intercept_ms=0.1, slope=1.0, half_width=0.1, coverage=0.9, nets=20)
    measured = replace(get_device("fake"), name=device, precision=precision)
    info = TableInfo.of_origin(describe(measured)).with_space(SPACE, SPACE.resolutions)
    LatencyTable(rows_frame(rows), replace(info, calibration=correction)).save(path)


def _write_bundle(folder: Path) -> None:
    arch = SPACE.smallest(resolution=16)
    network = build_network(lower(SPACE, arch), generator=torch.Generator().manual_seed(0)).eval()
    look: dict[str, Any] = {"class_names": list("0123456789"), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    write_bundle(folder, network, arch, Card(), generator=torch.Generator().manual_seed(0), **look)


def _write_measurements(path: Path) -> None:
    table = LatencyTable.load(path.parent / "table")
    archs = sample_stratified(SPACE, 10, np.random.default_rng(1))
    times = [2 * table.estimate(SPACE, lower(SPACE, arch)).latency_ms for arch in archs]
    pd.DataFrame({"arch": [json.dumps(arch.to_json()) for arch in archs], "measured_ms": times}).to_csv(path, index=False)


def _write_photos(folder: Path) -> None:
    """Two classes of four images each, no two of which are alike."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def write_mits(folder: Path) -> None:
    """What MIT's package and its authors wrote: weights, a network, a predictor, a lookup table."""
    from tests.cli.test_importing import net_config
    from tests.cli.test_table_import import entries

    supernet, names = Supernet(SPACE, generator=torch.Generator().manual_seed(1)), key_names(SPACE)
    torch.save({names[name]: tensor for name, tensor in supernet.named_tensors().items()}, folder / "weights.pth")
    (folder / "config.json").write_text(json.dumps(net_config()), encoding="utf-8")
    sizes = (128, 400, 400, 400, 1)
    layers = {f"{2 * i}.weight": torch.full((o, n), 1 / n) for i, (n, o) in enumerate(pairwise(sizes))}
    torch.save(layers | {f"{2 * i}.bias": torch.zeros(o) for i, o in enumerate(sizes[1:])}, folder / "pickled.pth")
    lines = [f"{name}: {{mean: 0.5, std: 0.01, count: 20}}\n" for placed in blocks_of_space(SPACE, [16]) for name in entries(placed)]
    (folder / "yaml.yaml").write_text("".join(lines), encoding="utf-8")
