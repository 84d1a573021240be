from __future__ import annotations

import pytest
import typer

from ofa.cli.exits import ending_well
from ofa.errors import ArchError


def ended(error: BaseException) -> int | str | None:
    with pytest.raises(SystemExit) as exit_, ending_well():
        raise error
    return exit_.value.code


def test_success_is_left_alone() -> None:
    with ending_well():
        pass


def test_an_error_of_ours_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(ArchError("depth must be one of [2, 3, 4],\n but got [bold]7; choose one of them " + "x" * 200)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "ofa: depth must be one of [2, 3, 4], but got [bold]7; choose one of them " + "x" * 200 + "\n"


def test_an_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.startswith("ofa: interrupted")


def test_the_unexpected_is_one_sentence_that_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OFA_TRACEBACK", raising=False)
    assert ended(ZeroDivisionError("division by zero")) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "ZeroDivisionError: division by zero" in err
    assert "OFA_TRACEBACK=1" in err


def test_the_traceback_is_there_for_who_asks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFA_TRACEBACK", "1")
    assert ended(ZeroDivisionError("division by zero")) == 1
    printed = capsys.readouterr()
    assert "Traceback (most recent call last)" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("passing", [typer.BadParameter("2"), typer.Exit(3), typer.Abort(), SystemExit(4)])
def test_wrong_usage_and_exits_are_the_parsers(passing: BaseException) -> None:
    with pytest.raises(type(passing)), ending_well():
        raise passing
