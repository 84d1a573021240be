"""The command line as a whole: its exit statuses, what it keeps off stdout, what it does not load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ofa.cli import space
from ofa.cli.main import build_app
from ofa.errors import SpaceError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> typer.Typer:
    """The command line, with a command that raises what the test names."""

    def register(app: typer.Typer) -> None:
        @app.command("space")
        def fail(json: bool = False) -> None:
            raise request.param

    monkeypatch.setattr(space, "register", register)
    return build_app()


@pytest.mark.parametrize("failing", [SpaceError("no such space")], indirect=True)
def test_an_error_inside_a_command(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["space", "--json"])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "ofa: no such space\n")


@pytest.mark.parametrize("failing", [KeyboardInterrupt()], indirect=True)
def test_an_interruption_inside_a_command(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["space"])
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


@pytest.mark.parametrize("failing", [RuntimeError("odd")], indirect=True)
def test_a_bug_inside_a_command(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["space"])
    assert result.exit_code == 1
    assert "RuntimeError: odd" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["space", "--nonsense"], ["space", "ofa-mbv3-tiny", "--macs", "12"], ["--nonsense"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def test_every_command_has_help_with_an_example_and_json() -> None:
    app = build_app()
    paths: list[list[str]] = [[]]
    seen = 0
    while paths:
        path = paths.pop()
        result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
        assert result.exit_code == 0, path
        children = subcommands(app, path)
        paths += [[*path, child] for child in children]
        if not children:
            assert "Example: ofa " in result.stdout, f"ofa {' '.join(path)} --help needs an example"
            assert "--json" in result.stdout, f"ofa {' '.join(path)} needs --json"
            seen += 1
    assert seen >= 2


def subcommands(app: typer.Typer, path: list[str]) -> list[str]:
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return list(getattr(command, "commands", {}))


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(build_app(), ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("ofa ")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['ofa', '--help']\n"
        "from ofa.cli.main import run\n"
        "try:\n    run()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'optuna', 'onnx', 'onnxruntime', 'sklearn', 'scipy', 'matplotlib', 'pyarrow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, f"`ofa --help` loads {done.stderr}"
    assert "space" in done.stdout


def test_stdout_of_the_process_is_json() -> None:
    done = subprocess.run([sys.executable, "-m", "ofa", "space", "--json"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {row["space"] for row in json.loads(done.stdout)} >= {"ofa-mbv3-w1.0", "ofa-mbv3-tiny"}


posix = pytest.mark.skipif(os.name == "nt", reason="signals and pipes are those of POSIX")


def start(change: str) -> subprocess.Popen[str]:
    """Start `ofa space` in a process of its own, after a change to its code."""
    code = f"import sys, time\nsys.argv = ['ofa', 'space']\nfrom ofa.cli import space\n{change}\nfrom ofa.cli.main import run\nrun()\n"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


@posix
def test_a_reader_that_leaves_ends_the_process_silently() -> None:
    child = start("sys.argv.append('--json')\nspace.list_spaces = lambda: [sys.stdin.read()]")
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    child.stdin.close()  # now it prints
    err = child.stderr.read()
    child.stderr.close()
    child.wait(timeout=30)
    assert (child.returncode, err) == (1, "")


@posix
def test_an_interrupted_process_ends_with_a_sentence() -> None:
    child = start("def wait():\n    print('started', flush=True)\n    time.sleep(60)\nspace.list_spaces = wait")
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (130, "")
    assert err.startswith("ofa: interrupted")
    assert "Traceback" not in err
