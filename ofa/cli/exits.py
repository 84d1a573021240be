"""Exit statuses: 0 done, 1 failed with one sentence on stderr, 2 wrong usage, 129, 130 or 143 stopped. No traceback unless asked for."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.text import Text

from ofa.cli.console import console
from ofa.cli.plain import sentence
from ofa.errors import OfaError
from ofa.files import reason_of

__all__ = ["FAILED", "INTERRUPTED", "TRACEBACK_VARIABLE", "Stopped", "ending_well"]

FAILED = 1
INTERRUPTED = 130
TRACEBACK_VARIABLE = "OFA_TRACEBACK"


class Stopped(KeyboardInterrupt):
    """A signal ended the command; the message says how to continue.

    Args:
        sentence: message for stderr.
        number: number of the signal; the exit status is 128 plus it, as in shells.
    """

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.status = 128 + number


@contextmanager
def ending_well() -> Iterator[None]:
    """Convert any exception of the block to one sentence on stderr and an exit status.

    Wrong usage passes through: the command line's parser prints it, here without secrets, and exits with 2.

    Raises:
        SystemExit: with status 1 for an error, 129, 130 or 143 for an interruption.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except typer.TyperException as error:
        worded = sentence(error.format_message())
        error.format_message = lambda: worded  # type: ignore[method-assign]  # the parser prints without the console
        raise
    except Stopped as stop:
        _end(str(stop), stop.status)
    except KeyboardInterrupt:
        _end("interrupted; files that were complete are kept, nothing is left half-written", INTERRUPTED)
    except OfaError as error:
        _end(str(error), FAILED)
    except BrokenPipeError:
        _leave_closed_pipe()
    except OSError as error:
        _end(_refused(error), FAILED)
    except MemoryError:
        _end("the command needs more memory than the machine has free; ask for less at a time, or end other programs", FAILED)
    except Exception as error:
        _end(_unexpected(error), FAILED)


def _end(said: str, status: int) -> NoReturn:
    if os.environ.get(TRACEBACK_VARIABLE):
        console.print(traceback.format_exc(), highlight=False, soft_wrap=True)
    console.print(Text.assemble(("ofa:", "bold red"), f" {sentence(said)}"), soft_wrap=True)
    raise SystemExit(status)


def _refused(error: OSError) -> str:
    """Message for a refusal by the operating system, such as a full disk."""
    what = f"'{os.fsdecode(error.filename)}'" if isinstance(error.filename, str | bytes) else "what a command reads and writes"
    return f"{what} must be usable, but {reason_of(error)}; free the disk, check the permissions, or name another place"


def _unexpected(error: Exception) -> str:
    detail = f": {error}" if str(error) else ""
    return f"this should not have happened, {type(error).__name__}{detail}; set {TRACEBACK_VARIABLE}=1 to see where, and report it"


def _leave_closed_pipe() -> NoReturn:
    """Exit silently after the reader closed the pipe (``ofa ... | head``); the final flush goes to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(FAILED)
