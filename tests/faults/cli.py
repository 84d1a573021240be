"""Commands that are called in this process, and the one sentence of one that fails."""

from __future__ import annotations

from typing import Any

from tests.commands import command_line


def ofa(*arguments: object) -> Any:
    return command_line(*arguments)


def said(result: Any) -> str:
    assert result.exit_code == 1, result.output
    sentence = " ".join(result.stderr.split())
    assert "Traceback" not in sentence
    return sentence
