"""Checkpointing of long work: each finished step is written to a journal on disk, so that an interrupted command can resume."""

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

_ANEW = "add --overwrite to start over"


class Steps(Protocol):
    """Storage for the results of steps: a ``Journal``, or none (``UNKEPT``)."""

    def begin(self, inputs: Mapping[str, Any]) -> None:
        """Declare the inputs that determine all steps; call it before the first step.

        Args:
            inputs: JSON values by name (the names appear in messages). Stored steps must have the same inputs.

        Raises:
            FileError: stored steps have other inputs.
        """

    def once(self, key: str, work: Callable[[], T], kind: Any, *, rng: np.random.Generator | None = None) -> T:
        """The result of a step: the stored result, or else the result of ``work()``, which is then stored.

        Args:
            key: unique name of the step.
            work: computes the result.
            kind: type of the result, as for ``ofa.schema.parse``.
            rng: generator that the work draws from; a stored step also restores its state after the work.

        Raises:
            FileError: the result cannot be stored, or the stored one is not of the kind.
        """


class _Unkept:
    """Stores nothing: each step is computed."""

    def begin(self, inputs: Mapping[str, Any]) -> None:
        pass

    def once(self, key: str, work: Callable[[], T], kind: Any, *, rng: np.random.Generator | None = None) -> T:
        return work()


UNKEPT: Steps = _Unkept()
"""For work without a journal."""


class Journal:
    """The steps of long work in a file of JSON lines beside its result; a context manager that locks the file.

    The file is removed when the block succeeds. If the block raises, the file stays if it has a step.

    Args:
        path: of the file; its folder must exist.
        doing: the work in words, for the message to a second process, such as "fitting a predictor".
        resume: whether to continue from stored steps.
        overwrite: whether to discard stored steps; without ``resume`` and ``overwrite`` there must be none.
        inputs: inputs that determine the steps and that only the caller knows, added to the inputs of ``begin``.

    Attributes:
        path: of the file.
        found: number of stored steps on entering.
        damaged: number of lines whose checksum did not match; each costs one step.

    Raises:
        FileError: on entering: another process has locked the file, it has steps but neither ``resume`` nor ``overwrite`` is given,
            or the folder cannot be written.
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
        """Remove the file and forget its steps.

        Raises:
            FileError: the file cannot be removed.
        """
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
                f"stored steps must have the inputs of this command, but {self._other(now)}; repeat the interrupted command as it was, "
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
            raise FileError(f"the steps in '{self.path}' must be unchanged, but '{key}' is not: {error}; {_ANEW}") from error

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
                f"finished steps are discarded only on request, but '{self.path}' has {self.found} of an interrupted command; "
                f"add --resume to continue it, or --overwrite to start over"
            )
        if not (self._resume and self._steps):
            self.finish()
            self.found = 0

    def _other(self, now: Mapping[str, Any]) -> str:
        """The first difference between the inputs of the stored steps and the inputs now, in words."""
        there = self._there or {}
        for name in (*now, *there):
            if there and there.get(name) != now.get(name):
                return f"the steps in '{self.path}' have {name} {_short(there.get(name))} and now it is {_short(now.get(name))}"
        return f"the steps in '{self.path}' have others"


def digest_of(value: Any) -> str:
    """A short digest of JSON values or bytes: the first 16 hexadecimal digits of their SHA-256."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 80
"""Characters of a value in a message."""
