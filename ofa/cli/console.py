"""Output of commands: results on stdout (a table, or only JSON), progress and remarks on stderr, numbers with their units."""

from __future__ import annotations

import json as json_format
import logging
import os
import sys
import threading
import time
import warnings as notices
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.text import Text

from ofa.cli.plain import sanitized, sentence
from ofa.progress import Progress
from ofa.storage_url import without_passwords

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

__all__ = [
    "JsonOption",
    "console",
    "door_for_notices",
    "emit",
    "format_bytes",
    "format_conditions",
    "format_count",
    "format_ms",
    "format_percent",
    "progress_bar",
    "remark",
    "warn",
]


class _Door(Console):
    """The only console of the terminal. It escapes untrusted text: square brackets are no markup, and control characters are not sent."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            # Control segments, which move the cursor, are rich's own.
            yield segment if segment.control else Segment("\n".join(map(sanitized, segment.text.split("\n"))), segment.style)


console = _Door(stderr=True)
"""For people, on stderr: stdout belongs to the result."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]

_WIDTH_WITHOUT_TERMINAL = 160
_SECONDS_BETWEEN_LINES = 10.0
_WIDE = 100
"""Narrowest terminal, in characters, that shows the elapsed time."""
_FOR_NUMBERS = 36
"""Characters of a bar, a count and a time."""


def warn(sentences: Iterable[str]) -> list[str]:
    """Print warnings about a result on stderr, one line each, with the next step; returns them as a list."""
    said = [sentence(each) for each in sentences]
    for each in said:
        console.print(Text.assemble(("ofa: warning:", "bold yellow"), f" {each}"), soft_wrap=True)
    return said


def emit(value: Any, *, json: bool, render: Callable[[], RenderableType], warnings: Sequence[str] | None = None) -> None:
    """Print a command's result on stdout.

    Args:
        value: the result as JSON values; objects with ``to_json`` and numpy scalars are converted.
        json: whether to print only ``value`` as JSON.
        render: makes the readable output, such as ``ofa.cli.sheets.records``.
        warnings: the result of ``warn``, for the JSON; None if the command never warns.
    """
    if warnings is not None:
        value = {**value, "warnings": list(warnings)}
    if json:
        # DEL is the only control character that JSON does not escape.
        typer.echo(without_passwords(json_format.dumps(value, indent=2, default=_plain, allow_nan=False)).replace("\x7f", r"\u007f"))
        return
    # A file or pipe has no width of its own: a table must not be cut to 80 columns there.
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _WIDTH_WITHOUT_TERMINAL
    screen = _Door(width=width, highlight=False)
    with screen.capture() as shown:
        screen.print(Group(render()), crop=False)  # in a group, because a single text would be wrapped again
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(shown.get().encode(encoding, "replace").decode(encoding), nl=False)


def remark(text: str) -> None:
    """Print a remark beside the result, in one line on stderr."""
    console.print(f"ofa: {sentence(text)}", highlight=False, soft_wrap=True)


def door_for_notices() -> None:
    """Route libraries' warnings, log messages and exceptions in threads through the console."""
    make_record = logging.getLogRecordFactory()

    def record(*args: Any, **named: Any) -> logging.LogRecord:
        made = make_record(*args, **named)
        made.msg, made.args = sanitized(made.getMessage()), None
        return made

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        console.print(f"{filename}:{lineno}: {category.__name__}: {sentence(str(message))}", highlight=False, soft_wrap=True)

    def tell(met: threading.ExceptHookArgs) -> None:
        # For example the heartbeat of a storage on a full disk: the command's own thread meets the same error, and ends.
        if met.exc_type is not SystemExit:  # SystemExit ends a thread on purpose
            remark(f"a thread in the background ended: {met.exc_value or met.exc_type.__name__}")

    threading.excepthook = tell
    logging.setLogRecordFactory(record)
    notices.showwarning = show


def _plain(value: Any) -> Any:
    for method in ("to_json", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


@contextmanager
def progress_bar(description: str) -> Iterator[Progress]:
    """A progress bar on stderr with done / total, remaining and elapsed time, and a text, inside the block.

    On a narrow terminal the text is shortened first, then the description; bar, count and remaining time stay. If stderr is no terminal
    (for example a log file), a line is written every ten seconds instead.

    Yields:
        The ``progress`` argument for long work.
    """
    if not console.is_terminal:
        yield _Lines(description)
        return
    from rich.progress import Progress as RichProgress

    with RichProgress(*_columns(console.width), console=console, expand=True) as bar:
        task = bar.add_task(sanitized(description), total=None, text="")

        def progress(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, text=sanitized(text))

        yield progress


def _columns(width: int) -> list[ProgressColumn]:
    """The columns of a bar on a terminal of that width in characters."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    described = max(4, min(width // 3, width - _FOR_NUMBERS))
    elapsed = [TimeElapsedColumn(table_column=Column(no_wrap=True))] if width >= _WIDE else []
    return [
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", max_width=described)),
        BarColumn(bar_width=20 if width >= _WIDE else 10, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        *elapsed,
        # With a ratio the column gets the remaining width, and is cut to it.
        TextColumn("{task.fields[text]}", markup=False, style="dim", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    ]


class _Lines:
    """Progress for logs: a line now and then, and one at the end."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._start = self._latest = time.monotonic()
        self._first: tuple[int, float] | None = None
        """Units done and time at the first call: resumed work has done some units in no time."""

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        since, then = self._first = self._first or (done, now)
        if done < total and now - self._latest < _SECONDS_BETWEEN_LINES:
            return
        self._latest = now
        elapsed = now - self._start
        left = f", {(now - then) / (done - since) * (total - done):.0f} s left" if since < done < total else ""
        words = f"{self._description} {done}/{total} {text}".rstrip()
        console.print(sanitized(f"{words} ({elapsed:.0f} s{left})"), highlight=False, soft_wrap=True)


def format_ms(milliseconds: float) -> str:
    """A time, such as ``12.3 ms``."""
    return f"{_three_digits(milliseconds)} ms"


def format_conditions(fields: Mapping[str, Any] | None) -> str:
    """Measurement conditions, such as ``batch 1, fp32, 1 thread, calls in a row, onnxruntime 1.20.0``.

    Args:
        fields: JSON values of ``devices.Conditions``; None if unknown.
    """
    from devices import Conditions

    return "unknown" if fields is None else Conditions.from_json(fields).words


def format_bytes(size: float) -> str:
    """A size in the largest binary unit in which it is at least 1, such as ``2.00 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{_three_digits(size)} {unit}"


def format_count(count: float) -> str:
    """A large count, such as ``230 M``; beyond 10^15 as ``2.18e+19``."""
    if count >= 1e15:
        return f"{float(count):.2e}"
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{_three_digits(count / scale)} {unit}"
    return f"{count:.0f}"


def format_percent(share: float) -> str:
    """A share or an accuracy in 0..1, such as ``97.5 %``."""
    return f"{share * 100:.1f} %"


def _three_digits(value: float) -> str:
    """About three significant digits, never an exponent."""
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.995 or size == 0 else 3
    return f"{value:.{digits}f}"
