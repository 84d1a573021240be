"""A file never decides what code runs or whom we call: each case is a file that tries, and leaves a mark where it succeeds."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

import latency_tables
from devices import RUNTIMES, Settings, Ssh, get_device, load_device
from devices.runtimes import get_runtime
from devices.transports.ssh import _command as ssh_command
from latency_tables import LatencyTable
from ofa.cli.main import build_app
from ofa.data import load_data
from ofa.data.opening import UnreadableError, check_start, formats, open_image
from ofa.errors import DeviceError, OfaError, TrustError, WeightsError
from ofa.families import get_space
from ofa.interop.checkpoints import open_checkpoint
from ofa.registry import FromFile, from_file
from ofa.training import DataRecord, Recipe, begin_run, first_data, save_run
from ofa.training.optimizer import OPTIMIZERS
from ofa.training.record import Source
from search.report.pictures import save_pictures
from tests.search.fronts import make_front
from tests.sources import ROOT, sources

EVIL = "evil_of_a_file"
LATENCIES = Path(latency_tables.__file__).parent / "data" / "ofa-mbv3-32px_local-pytorch.parquet"
RECIPE = """
space = "ofa-mbv3-tiny"
data = "digits"
fractions = [0.3, 0.1, 0.1]

[[phases]]
name = "full"
epochs = 1
learning_rate = 0.05
resolutions = [16]
"""


def ofa(*arguments: object) -> Any:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def said(result: Any) -> str:
    assert result.exit_code == 1, result.output
    sentence = " ".join(result.stderr.split())
    assert "Traceback" not in sentence
    return sentence


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a module on the path writes as soon as it is imported; there is none at the end."""
    (tmp_path / "path").mkdir()
    ran = tmp_path / "it ran"
    (tmp_path / "path" / f"{EVIL}.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nthing = None\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield ran
    sys.modules.pop(EVIL, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    recipe = Recipe.from_toml(RECIPE)
    begin_run(folder, recipe, first_data(recipe).record)
    save_run(folder, recipe.build_supernet(10), recipe, ())
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def say(run: Path, key: str, text: str) -> None:
    """Let a run's recipe, and what it knows of its data, say something else."""
    said = {key: text, "fractions": [0.8, 0.2, 0]} if key == "test_data" else {key: text}
    path = run / "config.toml"
    lines = [line for line in path.read_text().splitlines() if line.partition(" =")[0] not in said and not line.startswith("# ofa-seal")]
    path.write_text("\n".join([*(f"{name} = {json.dumps(value)}" for name, value in said.items()), *lines]))
    record = DataRecord.load(run)
    assert record is not None
    if key in ("data", "test_data"):
        replace(record, facts=replace(record.facts, **{key: Source(path=text, typed=text)})).save(run)


# -- module:attribute ---------------------------------------------------------------------------------------------------


TEXTS = [field.name for field in fields(Recipe) if field.type == "str"]
OF_RUNS = ("train", "resume", "predictor", "specialize", "search", "data", "report")
REFUSED = {
    **{(key, command): "nothing is imported because a file says so" for key in ("space", "data", "test_data") for command in OF_RUNS[:-1]},
    **{("optimizer", command): "nothing is imported because a file says so" for command in ("train", "resume", "specialize")},
    **{("task", command): "there is no task" for command in OF_RUNS[:-1]},
    **{(key, "report"): "" for key in ("space", "data", "test_data", "task", "optimizer")},
}


def on_run(command: str, run: Path, folder: Path, *more: object) -> Any:
    (folder / "arch.json").write_text(json.dumps(get_space("ofa-mbv3-tiny").smallest(16).to_json()))
    out = folder / "out"
    if command == "resume":  # of a run that has not ended
        (run / "supernet.safetensors").unlink()
    words = {
        "train": ("train", run / "config.toml", "-o", out, "--on", "cpu"),
        "resume": ("train", "--resume", run, "--on", "cpu"),
        "predictor": ("predictor", "fit", run, "--nets", 10, "--rounds", 0, "-o", out, "--on", "cpu"),
        "specialize": ("specialize", run, "--arch", folder / "arch.json", "-o", out, "--epochs", 1, "--on", "cpu"),
        "search": ("search", "--supernet", run, "--trials", 1, "-o", out, "--on", "cpu"),
        "data": ("data", run),
        "report": ("report", run, "-o", out),
    }
    return ofa(*words[command], *more)


def _fast(key: str, command: str) -> bool:
    return key == "data" or command in ("train", "specialize")


@pytest.mark.parametrize(("key", "command"), [each if _fast(*each) else pytest.param(*each, marks=pytest.mark.slow) for each in REFUSED])
def test_no_command_imports_what_a_run_or_recipe_says(key: str, command: str, run: Path, mark: Path, tmp_path: Path) -> None:
    say(run, key, f"{EVIL}:thing")
    result = on_run(command, run, tmp_path)
    assert REFUSED[key, command] in (said(result) if REFUSED[key, command] else "")
    assert not mark.exists()
    assert EVIL not in sys.modules
    assert {path.name for path in tmp_path.iterdir()} <= {"path", "run", "arch.json", "out"} - ({"out"} if REFUSED[key, command] else set())


@pytest.mark.parametrize("command", OF_RUNS[:-1])
@pytest.mark.parametrize(
    "typed", [("--trust",), pytest.param(("--data", f"{EVIL}:thing"), marks=pytest.mark.slow)], ids=["trusted", "typed"]
)
def test_what_is_typed_again_or_trusted_is_imported(command: str, typed: tuple[str, ...], run: Path, mark: Path, tmp_path: Path) -> None:
    say(run, "data", f"{EVIL}:thing")
    assert "must name a dataset as module:attribute, but" in said(on_run(command, run, tmp_path, *typed))  # it is None
    assert mark.exists()


def test_every_text_of_a_recipe_is_known_to_be_a_files(tmp_path: Path) -> None:
    """A new key that names code cannot be forgotten: the door to a user's code asks the text itself."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe, typed = Recipe.load(tmp_path / "recipe.toml"), Recipe.load(tmp_path / "recipe.toml", ["data=digits"])
    texts = {key: getattr(recipe, key) for key in TEXTS if getattr(recipe, key)}
    assert {key for key, text in texts.items() if isinstance(text, FromFile)} >= {"space", "data"}
    assert not isinstance(typed.data, FromFile)
    assert not isinstance(Recipe.load(tmp_path / "recipe.toml", trust=True).data, FromFile)
    for again in (pickle.loads(pickle.dumps(recipe)), deepcopy(recipe), replace(recipe, seed=1)):
        assert isinstance(again.data, FromFile)


@pytest.mark.parametrize("door", [load_data, get_space, OPTIMIZERS.find, RUNTIMES.find], ids=["data", "space", "optimizer", "runtime"])
def test_no_door_opens_for_a_text_of_a_file(door: Callable[[str], object], mark: Path) -> None:
    with pytest.raises(TrustError, match=r"nothing is imported because a file says so.*--trust"):
        door(from_file({"key": f"{EVIL}:thing"})["key"])
    assert not mark.exists()
    with pytest.raises(OfaError):
        door(f"{EVIL}:thing")  # as it is nothing that could be used
    assert mark.exists()


# -- what lies in the working folder ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_in_the_working_folder_is_imported_unless_it_is_typed(tmp_path: Path) -> None:
    """A stranger's folder may hold what a library looks for and does not find, an installed package of its own, and other commands."""
    ran, here = tmp_path / "it ran", tmp_path / "here"
    (here / "evil-1.dist-info").mkdir(parents=True)
    (here / "evil-1.dist-info" / "METADATA").write_text("Name: evil\nVersion: 1\n")
    (here / "evil-1.dist-info" / "entry_points.txt").write_text("[ofa.data]\nevil = own:thing\n")
    for name in ("own", "pillow_heif", "pynvml", "pickle", "typer", "sitecustomize", "usercustomize"):
        (here / f"{name}.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n")
    code = "import sys; sys.path = [p for p in sys.path if p]; from ofa.cli.main import run; run()"  # as the installed command begins

    def said(*words: str) -> str:
        command = [sys.executable, "-P", "-c", code, "data", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False).stderr

    assert "but 'evil' is none of them" in said("evil")
    assert not ran.exists()
    assert "must name a dataset as module:attribute" in said("own:thing")
    assert ran.exists()


# -- devices ------------------------------------------------------------------------------------------------------------


ADDRESSES: list[tuple[str, object]] = [
    *[
        ("host", text)
        for text in ("-oProxyCommand=x", "a b", "a\nProxyCommand x", "$(x)", "`x`", "a;x", "ssh://a/", "u@a", "%h", "a'b", "")
    ],
    *[("user", text) for text in ("-oProxyCommand=x", "a;x", "%r", "a b", "$(x)", "a\nb", "'")],
    *[("identity", text) for text in ("-oProxyCommand=x", "%d/x", "${HOME}/x", "a\nb", "a\0b")],
    *[("python", text) for text in ("sh", "/bin/rm", "-c", "python3\nx", "python/sh", "")],
    *[("folder", text) for text in ("../../etc", "a/../b", "..", "-x", "a\nb")],
    *[("port", value) for value in (-1, 70000, True, "22", 1.5)],
    *[(key, "x") for key in ("config", "ProxyCommand", "proxy_command", "options", "jump", "command", "ssh_config", "-F")],
]


@pytest.mark.parametrize("table", ["transport", "ssh"])
@pytest.mark.parametrize(("key", "value"), ADDRESSES)
def test_a_device_file_cannot_speak_to_ssh(key: str, value: object, table: str, tmp_path: Path) -> None:
    fields = {**({"kind": "ssh"} if table == "transport" else {}), "host": "a", key: value}
    first = {"name": "evil", "runtime": "fake", **({"transport": "ssh"} if table == "ssh" else {})}
    lines = [*map(_toml, first.items()), f"[{table}]", *map(_toml, fields.items())]
    (tmp_path / "evil.toml").write_text("\n".join(lines))
    with pytest.raises(DeviceError) as caught:
        load_device(tmp_path / "evil.toml")
    assert key in str(caught.value)
    if key == "config":
        assert "type --ssh-config FILE" in str(caught.value)


def _toml(pair: tuple[str, object]) -> str:
    return f"{json.dumps(pair[0])} = {json.dumps(pair[1])}"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH is not installed")
def test_nothing_that_a_configuration_says_forwards_or_runs_a_command(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host *\n ForwardAgent yes\n ForwardX11 yes\n LocalForward 1234 localhost:80\n PermitLocalCommand yes\n LocalCommand touch x\n"
        " RemoteCommand touch x\n Tunnel yes\n BatchMode no\n"
    )
    (tmp_path / "pi.toml").write_text('name = "pi"\nruntime = "fake"\n[transport]\nkind = "ssh"\nhost = "pi"\n')
    address = get_device(tmp_path / "pi.toml", ssh_config=config).address
    assert isinstance(address, Ssh)
    ssh, *words = ssh_command(address)
    told = subprocess.run([ssh, "-G", *words[:-1]], capture_output=True, text=True, check=True).stdout.splitlines()
    settings = dict(line.split(" ", 1) for line in told if " " in line)
    off = ("forwardagent", "forwardx11", "permitlocalcommand")
    assert {key: settings[key] for key in off} == dict.fromkeys(off, "no")
    assert (settings["batchmode"], settings["clearallforwardings"], settings["tunnel"]) == ("yes", "yes", "false")
    assert settings.get("remotecommand", "none") == "none"
    assert "config" not in address.to_json()


def test_no_device_is_looked_up_because_a_front_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, tools = tmp_path / "it ran", tmp_path / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(f"#!/bin/sh\ntouch '{ran}'\nexit 1\n")
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    Path("evil.toml").write_text('name = "evil"\nruntime = "fake"\n[transport]\nkind = "ssh"\nhost = "a"\nretries = 0\n')
    make_front(networks=50, devices=("evil.toml",)).save("front")
    for words in (("query", "front", "--macs", "1G"), ("report", "front", "-o", "page.html")):
        assert ofa(*words).exit_code == 0
    for words in (("query", "front", "--latency", "9s", "--verify"), ("query", "front", "--latency", "9s", "--verify", "--update")):
        result = ofa(*words)
        assert (result.exit_code, "the front is of evil.toml" in " ".join(result.stderr.split())) == (2, True)
    assert not ran.exists()
    agent = get_device("evil.toml").address.start()
    with pytest.raises(DeviceError):
        agent.request({"op": "describe"}, on_note=lambda note: None, silence_limit_s=20)
    agent.close()
    assert ran.exists(), "what is typed is reached"


# -- images -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0.png", "0.jpg", "0.eps", "0"])
def test_no_image_starts_ghostscript(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, tools = tmp_path / "it ran", tmp_path / "tools"
    tools.mkdir()
    for tool in ("gs", "gswin64c", "gswin32c"):
        (tools / tool).write_text(f"#!/bin/sh\ntouch '{ran}'\n")
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    Image.new("RGB", (8, 8)).save(tmp_path / "real.eps")
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        shutil.copy(tmp_path / "real.eps", tmp_path / "photos" / label / name)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / label / "good.png")
    ofa("data", tmp_path / "photos", "-o", tmp_path / "page.html")
    assert len(load_data(str(tmp_path / "photos"), unreadable="skip")) == 2
    assert not ran.exists()
    with suppress(OSError), Image.open(tmp_path / "real.eps") as image:
        image.load()
    assert ran.exists(), "Pillow by itself would"


def test_no_plugin_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setitem(Image.OPEN, "EVIL", (lambda file, name: opened.append(name), lambda start: True))
    monkeypatch.setattr(Image, "ID", ["EVIL", *Image.ID])
    formats.cache_clear()
    (tmp_path / "a.evil").write_bytes(b"evil")
    for look in (lambda: open_image(b"evil"), lambda: check_start(tmp_path / "a.evil")):
        with pytest.raises(UnreadableError):
            look()
    assert opened == []


# -- what is never unpickled or executed ----------------------------------------------------------------------------------


class _Evil:
    """Writes the mark as soon as it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._mark),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "nested", "numpy"])
def test_no_weights_are_unpickled(kind: str, tmp_path: Path) -> None:
    ran, path = tmp_path / "it ran", tmp_path / "evil.pth"
    evil: Any = _Evil(ran)
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": evil}))
    else:
        value = {"nested": {"state_dict": {"a": torch.ones(1)}, "best": [evil]}, "numpy": {"a": np.array([evil], dtype=object)}}.get(
            kind, evil
        )
        torch.save(value, path, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(WeightsError, match=r"never unpickled|must be a whole file"):
        open_checkpoint(path)
    for words in (
        ("import", "mit-weights", path, "-o", tmp_path / "run"),
        ("import", "mit-predictor", path, "-o", tmp_path / "p.safetensors"),
    ):
        assert ofa(*words, "--space", "ofa-mbv3-w1.0").exit_code in (1, 2)
    assert not ran.exists()
    if kind == "pickle":
        pickle.loads(path.read_bytes())
        assert ran.exists(), "a reader that unpickles would"


def test_scalars_of_numpy_make_numbers_and_nothing_else(tmp_path: Path) -> None:
    numbers = {"a": np.float64(0.5), "b": np.float32(2), "c": np.int64(-3), "d": np.bool_(True)}
    torch.save(numbers, tmp_path / "fine.pth")
    assert dict(open_checkpoint(tmp_path / "fine.pth").tensors) == {"a": 0.5, "b": 2.0, "c": -3, "d": True}
    for other in (np.void(b"12345678"), np.str_("x"), np.datetime64("2026-01-01"), np.dtype([("a", "O")])):
        torch.save({"a": other}, tmp_path / "other.pth")
        with pytest.raises(WeightsError):
            open_checkpoint(tmp_path / "other.pth")


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    ran, path = tmp_path / "it ran", tmp_path / "evil.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{ran}']\n")
    result = ofa("table", "import", "mit-yaml", path, "--space", "ofa-mbv3-w1.2", "--device", "fake", "-o", tmp_path / "table")
    said(result)
    assert not ran.exists()


DOORS = {
    *("ofa.registry", "ofa.lazy", "ofa.telemetry"),
    *("ofa.exporting.tensorrt_package", "ofa.space_json"),  # names of a fixed list
}


def test_what_is_imported_by_name_is_a_name_in_the_code_or_goes_through_a_door() -> None:
    for source in sources():
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            call, keywords = ast.unparse(node.func), {each.arg: each.value for each in node.keywords}
            if call.endswith("import_module") and source.module not in DOORS:
                assert isinstance(node.args[0], ast.Constant), f"{source.path}:{node.lineno} imports what a text says"
            if call == "torch.load":
                assert ast.unparse(keywords.get("weights_only", ast.Constant(None))) == "True", f"{source.path}:{node.lineno}"
            assert ast.unparse(keywords.get("shell", ast.Constant(None))) != "True", f"{source.path}:{node.lineno} starts a shell"
            assert ast.unparse(keywords.get("allow_pickle", ast.Constant(None))) != "True", f"{source.path}:{node.lineno} unpickles"


# -- files that name other files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["../secret.bin", "{folder}/secret.bin", "link.bin"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "pytorch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_network_reads_no_file_outside_its_folder(runtime: str, location: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location.format(folder=tmp_path)), ("offset", "0"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
    (folder / "evil.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DeviceError):
        get_runtime(runtime).load(folder / "evil.onnx", Settings(runtime=runtime))


@pytest.mark.slow
def test_names_with_paths_in_them_write_nothing_elsewhere(tmp_path: Path) -> None:
    names = ("../../up", "/tmp/up", "a\\..\\b")
    written = save_pictures(make_front(networks=50, devices=names), tmp_path / "pictures")
    assert {path.parent for path in written} == {tmp_path / "pictures"}
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_a_study_that_a_front_names_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_front(networks=50, study={"storage": "sqlite:///evil.db", "name": "'; DROP TABLE studies; --", "journal": "evil.log"}).save(
        "front"
    )
    for words in (("query", "front", "--macs", "1G"), ("report", "front", "-o", "page.html")):
        assert ofa(*words).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"front", "page.html"}


@pytest.mark.parametrize(
    "path", ["../secret.png", "{folder}/secret.png", "a/../../secret.png", r"\\evil\share\x.png", "//evil/x.png", "C:x.png"]
)
def test_a_parquet_file_names_images_in_its_folder_alone(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for place in (tmp_path / "secret.png", folder / "own.png"):
        Image.new("RGB", (8, 8)).save(place)
    table = pa.table({"image": ["own.png", "own.png", path.format(folder=tmp_path)], "label": [0, 1, 1]})
    pq.write_table(table, folder / "data.parquet")
    left = load_data(str(folder), unreadable="skip").left_out
    assert [each.reason for each in left] == ["is named outside of the folder of its Parquet file"]


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path) -> None:
    table = LatencyTable.load(LATENCIES)
    table.rows["kind"] = ["=cmd|' /C calc'!A0", "@SUM(1)", *table.rows["kind"][2:]]
    table.save(tmp_path / "table.csv")
    cells = (tmp_path / "table.csv").read_text().splitlines()[1:3]
    assert [line[:2] for line in cells] == ["'=", "'@"]
