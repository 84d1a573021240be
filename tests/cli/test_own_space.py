"""Spaces of one's own walk the whole road on the command line: a class that ofa does not know, and a file made from a named space."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime import InferenceSession
from typer.testing import CliRunner

from ofa.arch import Arch
from ofa.blocks import Classifier, ConvBlock, PlacedBlock
from ofa.cli.main import build_app
from ofa.errors import DataError
from ofa.exporting.bundle import load_bundle
from ofa.families import derive, get_space
from ofa.families.placing import Placer
from ofa.resolution import ascending, resolution_to_json, sides
from ofa.space import Gene, Space, Stage
from ofa.supernet import Supernet
from ofa.training import Phase, Recipe, load_run, train
from search.front.front import Front
from search.predictor.accuracy_predictor import AccuracyPredictor

ROOT = Path(__file__).parents[2]
PLAIN = f"{__name__}:plain"
RECIPE = """
space = "{space}"
data = "digits"
batch_size = 32
evaluate_every = 0
fractions = [0.2, 0.2, 0.6]

[[phases]]
name = "all"
epochs = 2
learning_rate = 0.1
free = {free}
subnets_per_step = 2
"""


@dataclass(frozen=True, kw_only=True)
class PlainNets(Space):
    """Plain convolutions: two stages of 3 x 3 convolutions whose number and kernels are elastic."""

    widths: tuple[int, ...]

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        placer, channels = Placer(self, arch), self.in_channels
        for s, (width, blocks) in enumerate(zip(self.widths, arch.stages, strict=True)):
            for b, genes in enumerate(blocks):
                stride = 2 if b == 0 else 1
                block = ConvBlock(in_channels=channels, out_channels=width, kernel=int(genes["kernel"]), stride=stride)
                placer.place(f"stages.{s}.{b}", block)
                channels = width
        placer.place("classifier", Classifier(in_channels=channels, out_channels=self.num_classes, pool=True))
        return placer.placed


def plain() -> PlainNets:
    stage = Stage((1, 2), (Gene("kernel", (1, 3)),))
    return PlainNets(name="plain", resolutions=(12, 16), stages=(stage, stage), widths=(8, 16), num_classes=10)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def ofa(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def road(folder: Path, space: str, free: str, again: tuple[str, ...] = ()) -> dict[str, Path]:
    """Walk it: every file carries its space, so that only a class of one's own is named ``again``."""
    paths = {name: folder / name for name in ("recipe.toml", "run", "table.parquet", "predictor", "front", "arch.json", "bundle")}
    paths["recipe.toml"].write_text(RECIPE.format(space=space, free=free))
    ofa("train", paths["recipe.toml"], "-o", paths["run"], *(("--trust",) if again else ()))
    on_device = ("--space", space, "--device", "fake")
    ofa("table", "build", *on_device, "-o", paths["table.parquet"])
    ofa("table", "calibrate", paths["table.parquet"], *on_device, "--nets", 9)
    ofa("predictor", "fit", paths["run"], "--nets", 10, "--rounds", 0, "-o", paths["predictor"], *again)
    found = ofa("search", "--predictor", paths["predictor"], "--table", paths["table.parquet"], "-o", paths["front"], *EFFORT, *again)
    budget = ("--latency", f"{found['most_accurate']['devices']['fake']['latency_high_ms'] * 1.01}ms")
    ofa("query", paths["front"], *budget, "-o", paths["arch.json"], *again)
    ofa("specialize", paths["run"], "--front", paths["front"], *budget, "-o", paths["bundle"], "--epochs", 0, *again)
    ofa("export", paths["bundle"], "--to", "onnx", "-o", folder / "network.onnx", *again)
    ofa("verify", paths["bundle"], "--device", "fake", *again)
    for name in ("run", "table.parquet", "front"):
        assert ofa("report", paths[name], "-o", folder / f"{name}.html", *again)["bytes"] > 1000
    return paths


EFFORT = ("--trials", 8, "--evaluations", 200)


@pytest.fixture(scope="module")
def own_class(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return road(tmp_path_factory.mktemp("class"), PLAIN, "{depth = [0, 1], kernel = [1, 3]}", ("--space", PLAIN))


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("file")
    path = folder / "small.space.json"
    ofa(
        "space",
        "ofa-mbv3-tiny",
        "--resolutions",
        "12x20,20",
        "--keep",
        "kernel=3",
        "--keep",
        "depth=1",
        "--channels",
        1,
        "-o",
        path,
        "--samples",
        2,
    )
    return {"space": path, **road(folder, str(path), "{expand = [3, 4, 6]}")}


def computes_images_of(paths: dict[str, Path], space: Space) -> bool:
    """Whether the exported file takes one image of a resolution of the space, and ONNX Runtime computes with it."""
    bundle = load_bundle(paths["bundle"])
    session = InferenceSession(str(paths["bundle"].parent / "network.onnx"), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert taken.shape == ["batch", *bundle.input_shape[1:]] == ["batch", space.in_channels, *sides(bundle.arch.resolution)]
    assert bundle.arch.resolution in space.resolutions
    (logits,) = session.run(None, {taken.name: np.zeros(bundle.input_shape, np.float32)})
    return logits.shape == (1, space.num_classes) and bool(np.isfinite(logits).all())


def test_a_class_of_ones_own_walks_the_whole_road(own_class: dict[str, Path]) -> None:
    run = load_run(own_class["run"])
    assert run.supernet.space == plain()
    assert AccuracyPredictor.load(own_class["predictor"]).whole == Front.load(own_class["front"]).space == plain()
    assert run.recipe.space.endswith("space.json")


def test_a_grey_space_file_walks_the_whole_road_at_sizes_below_the_named_ones_that_are_not_square(own_file: dict[str, Path]) -> None:
    space = get_space(str(own_file["space"]))
    assert (space.name, space.resolutions, space.in_channels) == ("small", ((12, 20), 20), 1)
    assert computes_images_of(own_file, space)
    assert load_run(own_file["run"]).supernet.space == Front.load(own_file["front"]).space == space
    # Nothing needs the file any more.
    own_file["space"].rename(own_file["space"].with_suffix(".away"))
    try:
        ofa("specialize", own_file["run"], "--arch", own_file["arch.json"], "-o", own_file["run"].parent / "again", "--epochs", 0)
    finally:
        own_file["space"].with_suffix(".away").rename(own_file["space"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "resolutions", "channels", "free"),
    [
        ("ofa-proxyless-tiny", "20x12,12x20", 1, "{depth = [0, 1], expand = [3, 4, 6]}"),
        ("ofa-resnet50-tiny", "16,20", 4, "{depth = [0, 1]}"),
    ],
)
def test_images_of_any_sides_and_channels_walk_the_whole_road(
    named: str, resolutions: str, channels: int, free: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.space.json"
    ofa("space", named, "--resolutions", resolutions, "--channels", channels, "-o", path, "--samples", 2)
    paths = road(tmp_path, str(path), free)
    space = get_space(str(path))
    assert space.resolutions == ascending(resolutions.split(","))
    assert computes_images_of(paths, space)
    looked = ofa("data", "digits", "--set", f"space={path}", "-o", tmp_path / "data.html")
    assert looked["resolution"] == resolution_to_json(space.resolutions[-1])
    for number, source in enumerate((paths["run"], paths["table.parquet"], paths["front"])):
        ofa("report", source, "-o", tmp_path / f"{number}.html")


def elsewhere(*commands: list[str]) -> list[str]:
    """What commands say that are refused in a process that does not know the class."""
    code = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from ofa.cli.main import build_app\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(build_app(), words)\n"
        "    assert done.exit_code == 1, (words, done.output)\n"
        f"    assert {__name__!r} not in sys.modules, words\n"
        "    print(done.stderr.strip().splitlines()[-1])  # after warnings\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_a_file_says_is_not_imported(own_class: dict[str, Path], tmp_path: Path) -> None:
    of = {name: str(path) for name, path in own_class.items()}
    carrying = (
        ["specialize", of["run"], "--arch", of["arch.json"], "--epochs", "0", "-o", f"{tmp_path}/bundle"],
        ["predictor", "fit", of["run"], "--nets", "10", "-o", f"{tmp_path}/predictor"],
        ["train", "--resume", of["run"], "--epochs", "1"],
        ["search", "--predictor", of["predictor"], "-o", f"{tmp_path}/front"],
        ["query", of["front"], "--macs", "1G", "-o", f"{tmp_path}/arch.json"],
        ["verify", of["bundle"], "--device", "fake"],
        ["export", of["bundle"], "--to", "onnx", "-o", f"{tmp_path}/network.onnx"],
        ["report", of["front"], "-o", f"{tmp_path}/front.html"],
    )
    said = elsewhere(*carrying, ["train", of["recipe.toml"], "-o", f"{tmp_path}/run"])
    assert len(said) == len(carrying) + 1, said
    assert all("name the space again with --space module:attribute" in sentence for sentence in said[:-1]), said
    assert f"code is imported only on the user's request, but a file's space is '{PLAIN}'" in said[-1]
    assert f"--set space={PLAIN}, or let the command trust the file: --trust" in said[-1]
    assert not any(tmp_path.iterdir())


def test_a_run_of_ones_own_space_goes_on_by_itself(own_file: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(own_file["run"], tmp_path / "run")
    assert ofa("train", "--resume", folder, "--epochs", 1)["epochs"] == 3
    assert load_run(folder).supernet.space == load_run(own_file["run"]).supernet.space


@pytest.mark.slow
def test_what_the_user_says_is_imported(own_class: dict[str, Path]) -> None:
    files = (own_class["run"], "--arch", own_class["arch.json"], "-o", own_class["run"].parent / "again")
    command = [sys.executable, "-m", "ofa", "specialize", *files, "--epochs", "0", "--space", PLAIN]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def fails_in_the_middle() -> PlainNets:
    """Networks of one block in the first stage and two in the second cannot be built, which neither end of the space tells."""
    return Lopsided(**{field.name: getattr(plain(), field.name) for field in fields(PlainNets)} | {"name": "lopsided"})


@dataclass(frozen=True, kw_only=True)
class Lopsided(PlainNets):
    """Plain convolutions, some of which its author forgot."""

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        if [len(blocks) for blocks in arch.stages] == [1, 2]:
            raise KeyError("stages.1.1")
        return super().lower(arch)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("no.such.module:plain", "importing it raised ModuleNotFoundError: No module named 'no'; check both names"),
        (f"{__name__}:absent", "importing it raised AttributeError"),
        (f"{__name__}:ROOT", "must name a space, or a function without arguments that returns one, but is PosixPath"),
        (f"{__name__}:fails_in_the_middle", "its class raised KeyError: 'stages.1.1'; correct Lopsided.lower"),
    ],
)
def test_a_space_that_cannot_be_had_or_built_is_one_sentence(attribute: str, words: str) -> None:
    result = run("space", attribute, "--json")
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert words in result.stderr


def refused(*arguments: object) -> str:
    result = run(*arguments, "--samples", 1)
    assert result.exit_code in (1, 2), result.output
    return " ".join(result.stderr.split())


def test_a_space_file_is_written_once_and_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "small.space.json"
    made = ("space", "ofa-mbv3-tiny", "--resolutions", "20", "-o", path)
    assert ofa(*made, "--samples", 1)["space"] == get_space(str(path)).name == "small"
    assert "add --overwrite" in refused(*made)
    assert ofa(*made, "--name", "other", "--overwrite", "--samples", 1)["space"] == "other"
    assert "must have another name" in refused(*made, "--name", "ofa-mbv3-tiny", "--overwrite")
    assert "has other networks" in refused(*made, "--name", "ofa-mbv3-32px", "--overwrite")
    assert "must end in .json" in refused("space", "ofa-mbv3-tiny", "-o", tmp_path / "small")
    assert get_space(str(path)).name == "other"


def test_an_unchanged_space_is_written_as_it_is(tmp_path: Path) -> None:
    ofa("space", "ofa-mbv3-tiny", "--classes", 3, "-o", tmp_path / "tiny.json", "--samples", 1)
    assert get_space(str(tmp_path / "tiny.json")) == get_space("ofa-mbv3-tiny", 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--resolutions", "0,16"), "pixels separated by commas"),
        (("--resolutions", "16x"), "32x24 for height x width"),
        (("--resolutions", "16.5"), "pixels separated by commas"),
        (("--keep", "kernel"), "gene=values"),
        (("--keep", "kernel=big"), "must be numbers with commas between"),
        (("--keep", "kernel=9"), "kernel must keep some of [3, 5]"),
        (("--keep", "width=9"), "must be a gene of ofa-mbv3-tiny"),
    ],
)
def test_a_change_that_cannot_be_is_refused(change: tuple[str, str], words: str) -> None:
    assert words in refused("space", "ofa-mbv3-tiny", *change).replace("│ ", "")


def test_without_a_file_the_changed_space_is_looked_at() -> None:
    assert ofa("space", "ofa-mbv3-tiny", "--resolutions", "12,16x12", "--samples", 1)["resolutions"] == [12, "16x12"]
    wide = ("space", "ofa-mbv3-tiny", "--resolutions", "16x24,24", "--resolution", "16x24", "--samples", 1)
    assert ofa(*wide)["resolutions"] == ["16x24"]
    assert "networks of 16x24 px" in run(*wide).stdout


def test_a_front_of_another_space_of_the_name_is_refused(own_file: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "small.space.json"
    ofa("space", "ofa-mbv3-tiny", "--resolutions", "12x20,24", "--keep", "kernel=3", "--keep", "depth=1", "-o", other, "--samples", 1)
    result = run("search", "--space", other, "--predictor", own_file["predictor"], "-o", tmp_path / "front", *EFFORT)
    assert "which is another of the name small" in " ".join(result.stderr.split())
    calibrate = ("table", "calibrate", own_file["table.parquet"], "-o", tmp_path / "table.parquet")
    result = run(*calibrate, "--space", other, "--device", "fake", "--nets", 9)
    assert "of another space that is called small too" in " ".join(result.stderr.split())


def test_a_space_of_other_channels_than_the_data_is_refused() -> None:
    supernet = Supernet(derive(get_space("ofa-mbv3-tiny"), "grey", in_channels=1))
    recipe = Recipe(space="ofa-mbv3-tiny", data="digits", phases=(Phase(name="all", epochs=1, learning_rate=0.1),))
    with pytest.raises(DataError, match="grey has 1 and the data 3"):
        train(supernet, recipe, recipe.load_splits().train)
