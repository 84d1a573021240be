"""Commands that are called in this process, and the one sentence of one that fails."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from ofa.cli.main import build_app


def ofa(*arguments: object) -> Any:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def said(result: Any) -> str:
    assert result.exit_code == 1, result.output
    sentence = " ".join(result.stderr.split())
    assert "Traceback" not in sentence
    return sentence
