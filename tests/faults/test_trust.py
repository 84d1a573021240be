"""A file never decides what code runs or whom we call: each case is a file that tries, and leaves a mark where it succeeds."""

from __future__ import annotations

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

import pytest
from PIL import Image

from devices import RUNTIMES, Ssh, get_device, load_device
from devices.transports.ssh import _command as ssh_command
from ofa.data import load_data
from ofa.data.opening import UnreadableError, check_start, formats, open_image
from ofa.errors import DeviceError, OfaError, TrustError
from ofa.families import get_space
from ofa.registry import FromFile, from_file
from ofa.teachers import find_teacher
from ofa.training import DataRecord, Recipe, begin_run, first_data, save_run
from ofa.training.optimizer import OPTIMIZERS
from ofa.training.record import Source
from tests.faults.cli import ofa, said
from tests.search.fronts import make_front
from tests.sources import ROOT
from tests.traps import lay_traps

EVIL = "evil_of_a_file"
RECIPE = """
space = "ofa-mbv3-tiny"
data = "digits"
fractions = [0.3, 0.1, 0.1]

[[phases]]
name = "full"
epochs = 1
learning_rate = 0.05
resolutions = [16]
distillation_weight = 1.0
"""


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
    **{(key, command): "code is imported only on the user's request" for key in ("space", "data", "test_data") for command in OF_RUNS[:-1]},
    **{("optimizer", command): "code is imported only on the user's request" for command in ("train", "resume", "specialize")},
    **{("teacher", command): "code is imported only on the user's request" for command in ("train", "resume")},
    **{("task", command): "there is no task" for command in OF_RUNS[:-1]},
    **{(key, "report"): "" for key in ("space", "data", "test_data", "task", "optimizer", "teacher")},
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


DOORS = {"data": load_data, "space": get_space, "optimizer": OPTIMIZERS.find, "runtime": RUNTIMES.find, "teacher": find_teacher}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_no_door_opens_for_a_text_of_a_file(door: Callable[[str], object], mark: Path) -> None:
    with pytest.raises(TrustError, match=r"code is imported only on the user's request.*--trust"):
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
    ran = lay_traps(monkeypatch, tmp_path, "ssh")
    monkeypatch.chdir(tmp_path)
    Path("evil.toml").write_text('name = "evil"\nruntime = "fake"\n[transport]\nkind = "ssh"\nhost = "a"\nretries = 0\n')
    make_front(networks=50, devices=("evil.toml",)).save("front")
    for words in (("query", "front", "--macs", "1G"), ("report", "front", "-o", "page.html")):
        assert ofa(*words).exit_code == 0
    for words in (("query", "front", "--latency", "9s", "--verify"), ("query", "front", "--latency", "9s", "--verify", "--update")):
        result = ofa(*words)
        assert (result.exit_code, "evil.toml." in result.stderr) == (2, True)
    assert not ran.exists()
    agent = get_device("evil.toml").address.start()
    with pytest.raises(DeviceError):
        agent.request({"op": "describe"}, on_note=lambda note: None, silence_limit_s=20)
    agent.close()
    assert ran.exists(), "what is typed is reached"


# -- images -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0.png", "0.jpg", "0.eps", "0"])
def test_no_image_starts_ghostscript(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = lay_traps(monkeypatch, tmp_path, "gs", "gswin64c", "gswin32c", status=0)
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
