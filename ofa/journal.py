"""Long work that goes on after it was cut off: each of its steps is on disk as soon as it is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np

from ofa.errors import FileError, SchemaError
from ofa.files import unwritable
from ofa.lines import Lines
from ofa.locking import writing
from ofa.outputs import check_output
from ofa.schema import parse, to_json
from ofa.version import __version__

__all__ = ["UNKEPT", "Journal", "Steps", "digest_of"]

T = TypeVar("T")

_ANEW = "add --overwrite to begin anew"


class Steps(Protocol):
    """Who keeps the steps of long work: a ``Journal``, or nobody (``UNKEPT``)."""

    def begin(self, inputs: Mapping[str, Any]) -> None:
        """Say by what the steps are decided, before the first of them.

        Args:
            inputs: JSON values, by words for them. Steps that are kept must be of the same.

        Raises:
            FileError: they are of others.
        """

    def once(self, key: str, work: Callable[[], T], kind: Any, *, rng: np.random.Generator | None = None) -> T:
        """What a step came to: as it is kept, or by doing it now.

        Args:
            key: of the step, different for each.
            work: does it.
            kind: what it comes to, a type that ``ofa.schema.parse`` knows.
            rng: that the work draws from; a step that is kept leaves it as the work left it.

        Raises:
            FileError: it cannot be kept, or what is kept is none of the kind.
        """


class _Unkept:
    """Keeps nothing: each step is done."""

    def begin(self, inputs: Mapping[str, Any]) -> None:
        pass

    def once(self, key: str, work: Callable[[], T], kind: Any, *, rng: np.random.Generator | None = None) -> T:
        return work()


UNKEPT: Steps = _Unkept()
"""For work whose steps nobody keeps."""


class Journal:
    """The steps of long work in a file of lines beside its result. Used in a ``with`` block, in which no other process has it.

    The file goes when the block ends well; it stays after anything else if a step is in it.

    Args:
        path: where it lies; its folder must be there.
        doing: what the work is, for whoever is refused meanwhile: "fitting a predictor".
        resume: whether to go on with steps that are there.
        overwrite: whether to give them up; without either there must be none.
        inputs: what the caller knows that decides the steps, beside what the work says with ``begin``.

    Attributes:
        path: where it lies.
        found: steps that were there.
        damaged: lines that were there and cost a step each, because they are not as they were written.

    Raises:
        FileError: on entering: another process has it, steps are there that are neither to be resumed nor given up, or the folder
            cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        doing: str,
        resume: bool = False,
        overwrite: bool = False,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.found = self.damaged = 0
        self._doing, self._resume, self._overwrite = doing, resume, overwrite
        self._lines = Lines(self.path)
        self._given = {"ofa": __version__, **(inputs or {})}
        self._inputs: dict[str, Any] | None = None
        self._of = ""
        self._there: dict[str, Any] | None = None
        self._steps: dict[str, dict[str, Any]] = {}
        self._lock = ExitStack()

    def __len__(self) -> int:
        return len(self._steps)

    def __enter__(self) -> Journal:
        with ExitStack() as stack:
            check_output(self.path, overwrite=True)
            stack.enter_context(writing(self.path, self._doing))
            self._read()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            if kind is None or not self._steps:
                self.finish()

    def finish(self) -> None:
        """Remove it: nothing is left to go on with."""
        self._steps = {}
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def begin(self, inputs: Mapping[str, Any]) -> None:
        """See ``Steps.begin``."""
        now = json.loads(json.dumps({**self._given, **inputs}))
        self._of = digest_of(now)
        if any(step["of"] != self._of for step in self._steps.values()):
            raise FileError(
                f"steps that are kept must be of the work that goes on, but {self._other(now)}; repeat the command that was cut off, "
                f"or {_ANEW}"
            )
        self._inputs = now

    def once(self, key: str, work: Callable[[], T], kind: Any, *, rng: np.random.Generator | None = None) -> T:
        """See ``Steps.once``."""
        assert self._inputs is not None, "begin comes first"
        if key in self._steps:
            kept: T = self._kept(key, kind, rng)
            return kept
        value = work()
        step = {"step": key, "of": self._of, "value": to_json(value), "rng": None if rng is None else rng.bit_generator.state}
        if not self._steps:
            self._lines.append({"inputs": self._inputs})
        self._lines.append(step)
        self._steps[key] = step
        return value

    def _kept(self, key: str, kind: Any, rng: np.random.Generator | None) -> Any:
        step = self._steps[key]
        try:
            if rng is not None:
                rng.bit_generator.state = step["rng"]
            return parse(kind, step["value"])
        except (SchemaError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileError(f"'{self.path}' must hold steps as they were written, but '{key}': {error}; {_ANEW}") from error

    def _read(self) -> None:
        read = self._lines.read()
        self.damaged = read.damaged
        for entry in read.entries:
            if isinstance(entry.get("step"), str) and isinstance(entry.get("of"), str):
                self._steps[entry["step"]] = entry
            elif isinstance(entry.get("inputs"), dict):
                self._there = entry["inputs"]
        self.found = len(self._steps)
        if self.found and not (self._resume or self._overwrite):
            raise FileError(
                f"what was done before is not given up unasked, but '{self.path}' has {self.found} steps of a command that was cut off; "
                f"add --resume to go on with it, or --overwrite to begin anew"
            )
        if not (self._resume and self._steps):
            self.finish()
            self.found = 0

    def _other(self, now: Mapping[str, Any]) -> str:
        """Words for what differs from the inputs of the steps that are kept."""
        there = self._there or {}
        for name in (*now, *there):
            if there and there.get(name) != now.get(name):
                return f"those in '{self.path}' have {name} {_short(there.get(name))} and now it is {_short(now.get(name))}"
        return f"those in '{self.path}' are of others"


def digest_of(value: Any) -> str:
    """A short checksum of JSON values or bytes, the same for equal ones."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 80
"""Characters of a value in a message."""
