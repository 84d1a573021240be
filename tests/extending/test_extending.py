"""docs/extending.md: its blocks are the files of docs/examples, its commands do what they say, and the examples hold their contracts."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from latency_tables import LatencyTable
from search.front.front import Front
from tests.documented.fences import EXTENDING, commands, page_of, read_fences
from tests.extending.examples import EXAMPLES, Workplace, make_workplace
from tests.sources import ROOT

BLOCKS = read_fences(EXTENDING, page_of(EXTENDING))
FILES = {block.name: block.text for block in BLOCKS if block.name}
COMMANDS = [command for block in BLOCKS if block.language == "sh" for command in commands(block)]
WALK = """
import json, shlex, sys
from tests.commands import command_line
for command in json.load(sys.stdin):
    done = command_line(*shlex.split(command)[1:])
    assert done.exit_code == 0, f"{command}: {done.stderr}"
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    found = make_workplace(tmp_path_factory.mktemp("mine"))
    found.python("-m", "zipfile", "-c", "photos.zip", *(f"photos/{each.name}" for each in (found.folder / "photos").iterdir()))
    return found


def test_the_page_shows_the_files_as_they_are() -> None:
    written = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".toml")}
    assert FILES.keys() == written
    for name, text in FILES.items():
        assert text == (EXAMPLES / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".py") and not name.startswith("test_")])
def test_an_example_names_nothing_private(name: str) -> None:
    imports = re.findall(r"^ *from ([\w.]+) import (.+)$", FILES[name], re.MULTILINE)
    assert imports
    assert not [line for line in imports if re.search(r"(^|[.\s])_", " ".join(line)) and line[0] != "__future__"]


def test_the_contracts_hold_in_a_folder_of_ones_own(workplace: Workplace) -> None:
    config = str(ROOT / "pyproject.toml")
    said = workplace.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", config, "test_mine.py")
    assert re.search(r"\d{2} passed", said), said
    assert "failed" not in said


@pytest.mark.slow
def test_the_commands_do_what_the_page_says(workplace: Workplace) -> None:
    ours = [command for command in COMMANDS if command.startswith("ofa ")]
    assert {command for command in COMMANDS if command not in ours} == {"python -m zipfile -c photos.zip photos/*"}
    workplace.python("-W", "error", "-c", WALK, given=json.dumps(ours))
    folder = workplace.folder
    table = LatencyTable.load(folder / "ort.parquet")
    assert table.info.device["runtime"] == "ort-file"
    assert Front.load(folder / "traffic.front").info.objectives == ("traffic_bytes",)
    for name, key in (("balanced", "task"), ("fisher", "importance")):
        assert tomllib.loads((folder / f"{name}.run" / "config.toml").read_text())[key] == name
