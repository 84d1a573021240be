from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devices import device_names
from tests.commands import command_line


def run(*arguments: str) -> Any:
    return command_line("devices", *arguments)


def ofa(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_all_devices_are_listed(arguments: tuple[str, ...]) -> None:
    assert [fields["name"] for fields in ofa(*arguments)] == list(device_names())


def test_users_own_devices_are_listed_and_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nruntime = "fake"\nthreads = 3\n')
    assert "mine" in [fields["name"] for fields in ofa("list", "--devices-dir", str(tmp_path))]
    assert ofa("show", "mine", "--devices-dir", str(tmp_path))["threads"] == 3
    assert ofa("show", str(tmp_path / "mine.toml"))["name"] == "mine"


def test_a_probe_reaches_the_runtime() -> None:
    answer = ofa("probe", "local-cpu")
    assert answer["device"]["name"] == "local-cpu"
    assert answer["probe"]["median_ms"] > 0
    assert answer["conditions"]["pause_ms"] == 0.0
    assert "calls in a row" in " ".join(run("probe", "fake").stdout.replace("│", " ").split())


@pytest.mark.parametrize("arguments", [(), ("show", "fake"), ("probe", "fake")])
def test_people_get_a_table(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "fake" in result.stdout


def test_an_unknown_device_is_one_sentence() -> None:
    result = run("probe", "lokal-cpu")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "did you mean 'local-cpu'" in result.stderr
