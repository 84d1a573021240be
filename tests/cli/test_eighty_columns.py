"""A terminal of 80 columns: what people type or copy is whole in every result, and no line of a table is wider."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from devices import device_names
from ofa.cli import demo
from ofa.cli.console import emit
from ofa.cli.sheets import Name, facts, line, records, words
from ofa.families import space_names
from tests.cli.files import COMMANDS, ENDINGS, call
from tests.commands import command_line

LONG = "a-name-of-a-network-that-somebody-has-chosen-with-much-care-and-little-thought-of-terminals-[v1.0]"
SHOWN = [command for command in COMMANDS if not command.slow]


@pytest.mark.parametrize("command", SHOWN, ids=[f"{command.words}-{'-'.join(command.outputs)}" for command in SHOWN])
def test_names_are_whole_in_every_result(command: Any, places: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / LONG
    folder.mkdir()
    shutil.copytree(places["bundle"], folder / "bundle")
    for kind in ("table", "front", "device"):
        shutil.copy(places[kind], folder / places[kind].name)
    device = folder / "device.toml"
    device.write_text(device.read_text(encoding="utf-8").replace('"mine"', f'"{"n" * 60}"'), encoding="utf-8")
    copies = {**places, "bundle": folder / "bundle", "table": folder / "table", "device": device}
    written = [(option, folder / f"{name}{ENDINGS.get(command.words, '')}") for name, option in command.outputs.items()]
    arguments = [part for pair in written for part in pair]
    result = command_line(*call(command, copies, *arguments), width=80)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for _, path in written[:1]:
        assert any(str(path) in each for each in lines) or command.words in ("query", "space", "table check", "table show"), result.stdout
    if command.words in ("devices show", "devices probe", "table build", "verify"):
        assert any("n" * 60 in each for each in lines), result.stdout
    for each in lines:
        assert len(each) <= 80 or LONG in each or "n" * 60 in each, each
    assert "…" not in result.stdout


def test_every_name_of_a_space_and_of_a_device_is_whole() -> None:
    spaces, devices = command_line("space", width=80).stdout, command_line("devices", width=80).stdout
    assert all(any(name in each for each in spaces.splitlines()) for name in space_names())
    assert all(any(name in each for each in devices.splitlines()) for name in device_names())


def test_a_query_for_several_networks_is_whole(places: dict[str, Path]) -> None:
    shown = command_line("query", places["front"], "--latency", "1s", "--top", 3, width=80).stdout
    assert "accuracy, predicted" in shown
    answer = json.loads(command_line("query", places["front"], "--latency", "1s", "--top", 3, "--json").stdout)
    for network in answer["results"]:
        assert f"{network['arch']['resolution']} px, blocks" in shown
        assert f"{100 * network['accuracy']:.1f} %" in shown


def shown_at(width: int, value: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setitem(os.environ, "COLUMNS", str(width))
    emit({}, json=False, render=lambda: value)
    return capsys.readouterr().out.splitlines()


def test_results_that_take_long_to_get_are_whole_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "arch": {"resolution": 32, "stages": [[{}, {}]] * 5},
        **dict.fromkeys(("accuracy", "latency_ms", "latency_low_ms", "latency_high_ms", "measured_ms", "difference"), 0.123456),
        **{"budget": "0.61 ms", "within_budget": True, "weight_bytes": 123456},
    }
    report = {
        "device": LONG,
        "conditions": None,
        "results": [row] * 3,
        "stages_s": {"train": 1.0},
        "predictor": {"kendall_tau": 0.9},
        "front": {"networks": 3, "evaluated": 9},
        "files": {key: f"/{LONG}/{key}" for key in ("folder", "picture", "front", "report")},
    }
    lines = shown_at(80, demo._render(report), monkeypatch, capsys)
    for part in (*report["files"].values(), "0.61 ms"):
        assert any(part in each for each in lines), part
    assert any(each.startswith("ofa query ") and each.endswith(" --latency 0.61ms") for each in lines)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_sheet_never_breaks_a_name(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(LONG, "12.3 ms", "1.2 M"), ("[bold]b", "0.1 ms", "3 M")]
    lines = shown_at(width, records(("network", "latency on this device", "MACs"), rows, title=LONG, caption="of two"), monkeypatch, capsys)
    assert lines[0] == LONG
    assert sum(LONG in each for each in lines) == 2
    for part in ("[bold]b", "12.3 ms", "0.1 ms"):
        assert any(part in each for each in lines)
    sentence = "one word after another, and so on, " * 9
    lines = shown_at(width, facts([("file", Name(LONG)), ("about", sentence)]), monkeypatch, capsys)
    assert any(LONG in each for each in lines)
    assert " ".join("".join(each.strip("│┌┐└┘─ ") + " " for each in lines).split()).count("another,") == 9
    assert shown_at(width, line(f"ofa query {LONG}"), monkeypatch, capsys) == [f"ofa query {LONG}"]
    assert all(len(each) <= width for each in shown_at(width, words(sentence), monkeypatch, capsys))
