"""One rule for all commands that write: what is there is replaced only with --overwrite, and stays whole whatever happens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from string import Formatter
from typing import Any, get_type_hints

import pytest

from ofa.cli.keeping import answering
from ofa.cli.outputs import check_output, check_output_folder
from ofa.errors import FileError
from ofa.exporting.bundle import load_bundle
from ofa.journal import UNKEPT
from ofa.outputs import ENDINGS as KINDS
from search.front.front import Front
from tests.cli.files import COMMANDS, ENDINGS, FOLDERS, Command, call, outputs_to
from tests.commands import command_line, commands_by_name
from tests.disk import room_for

OUTPUTS = [(command, name) for command in COMMANDS for name in command.outputs]
IDS = [f"{command.words}-{name}" for command, name in OUTPUTS]

WRITTEN_IN_PLACE = {"table calibrate", "query", "verify"}
"""Commands that add to what they read; tests of their own hold what they need for that."""


def test_every_path_of_every_command_is_known_here() -> None:
    known: dict[str, set[str]] = {}
    for command in COMMANDS:
        known.setdefault(command.words, set()).update(command.inputs, command.outputs, EITHER.get(command.words, ()))
    writing = {command.words for command in COMMANDS if command.outputs}
    for words, command in commands_by_name().items():
        assert words in known, f"ofa {words} is new: add it to tests/cli/files.py"
        hints = get_type_hints(command.callback, include_extras=False)
        paths = {name for name, hint in hints.items() if "Path" in str(hint) and name not in WAYS_TO_A_DEVICE}
        options = {option for parameter in command.params for option in parameter.opts}
        strange = paths - known[words]
        assert not strange, f"ofa {words} takes the path {strange}: say in tests/cli/files.py whether it reads or writes it"
        if words in writing:
            assert "--overwrite" in options, f"ofa {words} writes, and needs --overwrite"


WAYS_TO_A_DEVICE = ("folders", "ssh_config")

EITHER = {"search": {"supernet"}, "specialize": {"front"}}
"""Inputs that another one stands for."""


def target_of(command: Command, name: str, folder: Path) -> Path:
    return folder / f"mine{ENDINGS.get(command.words, '')}"


def fill(command: Command, name: str, target: Path) -> None:
    """Put something there that is not to be lost."""
    if name in FOLDERS.get(command.words, ()):
        target.mkdir()
        (target / ("config.toml" if command.words == "train" else "card.json")).write_text("mine", encoding="utf-8")
    else:
        target.write_text("mine", encoding="utf-8")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def arguments(command: Command, name: str, places: dict[str, Path], tmp_path: Path) -> tuple[list[str], Path]:
    folder = tmp_path / "folder"
    folder.mkdir()
    target = target_of(command, name, folder)
    others = [] if name == "output" else outputs_to(command, tmp_path)
    return call(command, places, *others, command.outputs[name], target), target


@pytest.mark.parametrize(("command", "name"), OUTPUTS, ids=IDS)
def test_what_is_there_is_not_replaced_unasked(command: Command, name: str, places: dict[str, Path], tmp_path: Path) -> None:
    words, target = arguments(command, name, places, tmp_path)
    fill(command, name, target)
    before = content(target.parent)
    result = command_line(*words)
    assert result.exit_code == 1, result.output
    assert "--overwrite" in result.stderr
    assert result.stderr.startswith("ofa: ")
    assert len(result.stderr.splitlines()) == 1
    assert content(target.parent) == before


LONG = {"table calibrate", "table check", "report-png"}
"""Whose work is minutes of a slow machine, and whose writing is that of others."""
ENDING = [
    pytest.param(
        command, name, id=f"{command.words}-{name}", marks=[pytest.mark.slow] if {command.words, f"{command.words}-{name}"} & LONG else []
    )
    for command, name in OUTPUTS
    if not command.slow
]


@pytest.mark.parametrize(("command", "name"), ENDING)
def test_what_is_there_is_replaced_when_asked_and_stays_on_a_full_disk(
    command: Command, name: str, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    words, target = arguments(command, name, places, tmp_path)
    fill(command, name, target)
    before = content(target.parent)
    with room_for(60):
        failed = command_line(*words, "--overwrite")
    assert failed.exit_code == 1, failed.output
    assert "file too large" in failed.stderr
    assert "should not have happened" not in failed.stderr
    kept = content(target.parent)
    assert {path: data for path, data in kept.items() if path != f"{target.name}.journal"} == before  # what was measured is kept apart
    done = command_line(*words, "--overwrite")
    assert done.exit_code == 0, done.output
    after = content(target.parent)
    assert after != before
    assert not [path for path in after if path.endswith((".part", ".old"))]


@pytest.mark.parametrize(("command", "name"), OUTPUTS, ids=IDS)
def test_a_place_that_cannot_be_written_is_said_before_any_work(
    command: Command, name: str, places: dict[str, Path], tmp_path: Path
) -> None:
    words, _ = arguments(command, name, places, tmp_path)
    is_folder = name in FOLDERS.get(command.words, ())
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    ending = ENDINGS.get(command.words, "")
    deep = tmp_path.joinpath(*["d" * 200] * 25)
    wrong = [deep / f"o{ending}", tmp_path / "absent" / f"o{ending}", tmp_path / ("n" * 300 + ending), tmp_path / "file" / f"o{ending}"]
    if is_folder:
        wrong.append(tmp_path / "file")
    elif not ending:
        wrong.append(tmp_path)
    for place in wrong:
        result = command_line(*words[:-1], place)
        assert result.exit_code == 1, (place, result.output)
        assert len(result.stderr.splitlines()) == 1
        assert "should not have happened" not in result.stderr
    assert set(content(tmp_path)) == {"file"}


OF_KIND = {
    **dict.fromkeys(("space-output", "query-output", "import mit-arch-output"), ".json"),
    **dict.fromkeys(("data-output", "report-output"), ".html"),
    **dict.fromkeys(("search-picture", "table check-plot"), ".png"),
    "export-output": ".onnx",
    "import mit-predictor-output": ".safetensors",
    "table show-csv": ".csv",
}
"""The endings that say what is written, where it is not Parquet."""


@pytest.mark.parametrize(
    ("command", "name"),
    [pytest.param(*each, id=own) for each, own in zip(OUTPUTS, IDS, strict=True) if each[1] not in FOLDERS.get(each[0].words, ())],
)
def test_a_name_that_says_another_kind_of_file_is_refused_at_once(
    command: Command, name: str, places: dict[str, Path], tmp_path: Path
) -> None:
    """As that of a predictor, whose readers would take p.safetensors for an imported one."""
    words, target = arguments(command, name, places, tmp_path)
    own = OF_KIND.get(f"{command.words}-{name}", ".parquet")
    for ending in [kind for kind in KINDS if kind != own][-2:]:
        result = command_line(*words[:-1], target.with_suffix(ending))
        assert result.exit_code == 1, result.output
        assert f"{target.stem}{ending}' " in result.stderr
        assert f"must end in {own}" in result.stderr or f"end it in {own}" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not list(target.parent.iterdir())


def test_python_refuses_such_a_name_too(places: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"must match its content, but '.*' would be a Parquet file, not tensors; end it in \.parquet"):
        Front.load(places["front"]).save(tmp_path / "front.safetensors")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder takes a file, whoever asks: those who may do everything run tests too."""

    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ofa.outputs.tempfile.TemporaryFile", refuse)


def test_a_read_only_folder_is_said(tmp_path: Path, read_only: None) -> None:
    for check in (check_output, check_output_folder):
        with pytest.raises(FileError, match="must be in a folder that can be written, but permission denied"):
            check(tmp_path / "o", overwrite=True)


PLACES = {name for command in COMMANDS for _, name, _, _ in Formatter().parse(command.arguments) if name}


@pytest.mark.parametrize(("command", "name"), OUTPUTS, ids=IDS)
def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(
    command: Command, name: str, tmp_path: Path, read_only: None
) -> None:
    """What there is to be read is not even there."""
    words, target = arguments(command, name, dict.fromkeys(PLACES, tmp_path / "absent"), tmp_path)
    result = command_line(*words, "--overwrite")
    assert result.exit_code == 1, result.output
    first = words[words.index("-o") + 1] if "-o" in words else target
    assert f"'{first}' must be in a folder that can be written, but permission denied" in result.stderr
    assert not list(target.parent.iterdir())


IN_PLACE = {
    "table calibrate": ("{table} --space ofa-mbv3-tiny --device fake --nets 9 --overwrite", "table"),
    "query": ("{front} --latency 1s --verify --device fake --update", "front"),
    "verify": ("{bundle} --device fake", "bundle/card.json"),
    "export": ("{bundle} --to onnx --batch 2", "bundle/network.batch2.onnx"),
}


@pytest.mark.parametrize("words", IN_PLACE)
def test_what_is_added_to_must_be_writable_before_anything_is_measured(
    words: str, places: dict[str, Path], read_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("latency_tables.timing", "search.verification.networks"):
        monkeypatch.setattr(f"{module}.time_models", None)
    more, written = IN_PLACE[words]
    result = command_line(*words.split(), *more.format(**places).split())
    assert result.exit_code == 1, result.output
    assert f"'{places['table'].parent / written}' must be in a folder that can be written, but permission denied" in result.stderr


@pytest.mark.parametrize("storage", ["{}/study.journal", "sqlite:///{}/study.db"])
def test_a_study_must_have_a_place_before_anything_is_read(storage: str, tmp_path: Path) -> None:
    words = ("--predictor", tmp_path / "absent", "-o", tmp_path / "front", "--storage", storage.format(tmp_path / "no"))
    result = command_line("search", *words)
    assert result.exit_code == 1
    assert "must be in a folder that exists, but" in result.stderr


def test_an_answer_is_given_where_nothing_can_be_kept_and_that_is_said(
    tmp_path: Path, read_only: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(tmp_path / "front", "verify", doing="verifying", resume=False, overwrite=False, inputs={}) as steps:
        assert steps is UNKEPT
    assert "measurements cannot be kept, and are lost if the command is interrupted" in " ".join(capsys.readouterr().err.split())


def test_a_bundle_that_was_exported_with_an_open_batch_is_still_the_one_that_was_verified(places: dict[str, Path], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(places["bundle"], bundle)
    before = content(bundle)
    assert command_line("export", bundle, "--to", "onnx", "--batch", "2").exit_code == 0
    after = content(bundle)
    assert after.keys() - before.keys() == {"network.batch2.onnx"}
    assert {path for path, data in before.items() if after[path] != data} == {"README.md", "card.json"}
    assert "network.batch2.onnx" in json.loads(after["card.json"])["files"]
    again = command_line("export", bundle, "--to", "onnx")
    assert again.exit_code == 1
    assert "network.onnx' exists; name another file or add --overwrite" in again.stderr
    verified = command_line("verify", bundle, "--device", "fake", "--json")
    assert verified.exit_code == 0, verified.stderr
    load_bundle(bundle).note_measurement("fake", 123.0)
    kept = content(bundle)["card.json"]
    second = command_line("verify", bundle, "--device", "fake")
    assert second.exit_code == 0
    assert "the card keeps its earlier 123 ms; add --overwrite" in second.stderr
    assert content(bundle)["card.json"] == kept
    assert command_line("verify", bundle, "--device", "fake", "--overwrite").exit_code == 0
    assert content(bundle)["card.json"] != kept


def test_a_calibration_is_not_replaced_unasked(places: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_bytes(places["table"].read_bytes())
    words = ("table", "calibrate", table, "--space", "ofa-mbv3-tiny", "--device", "fake", "--nets", 9)
    result = command_line(*words)
    assert result.exit_code == 1
    assert "it is calibrated already: name another file with -o, or add --overwrite" in result.stderr
    assert table.read_bytes() == places["table"].read_bytes()
    assert command_line(*words, "--overwrite").exit_code == 0
    assert table.read_bytes() != places["table"].read_bytes()


def test_a_resumed_study_may_replace_its_own_front_only(places: dict[str, Path], tmp_path: Path) -> None:
    front, search = tmp_path / "front", next(command for command in COMMANDS if command.words == "search")
    storage = ("--storage", tmp_path / "study.journal", "-o", front)
    words = call(search, places, *storage)
    assert command_line(*words).exit_code == 0
    assert command_line(*words, "--seed", 1).exit_code == 0
    for other in (["--study", "another"], ["--storage", tmp_path / "other.journal"]):
        result = command_line(*words, *other)
        assert result.exit_code == 1
        assert "--overwrite" in result.stderr
    assert command_line(*call(search, places, "-o", front)).exit_code == 1
