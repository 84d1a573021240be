"""Runs the blocks of a page in one folder, in their order: commands, Python in one namespace, files as they stand."""

from __future__ import annotations

import contextlib
import gc
import io
import linecache
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ofa import registry
from tests.commands import command_line
from tests.documented.fences import Fence, commands
from tests.documented.small import STAND_INS, STATUS, small_command, small_text, stays
from tests.sources import ROOT

__all__ = ["Page"]

_ENVIRONMENT = re.compile(r"[A-Z_]+=\S*$")
_SHELL = set("|&;<>$(`")
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?")


@dataclass
class Page:
    """The folder in which a reader of a page works.

    Attributes:
        folder: where commands run and files are written.
        environment: variables that all commands have.
        texts: of files and of Python that the page shows, and what stands there in their place.
        ran: commands that ran, as the page has them, and the seconds that each took.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    ran: dict[str, float] = field(default_factory=dict)
    _names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    _output: str = ""
    _as_documented: bool = False

    def read(self, fences: tuple[Fence, ...]) -> None:
        """Write the files of a page, then run its blocks; the first that does not end as documented ends the test."""
        for fence in fences:
            if fence.name:
                path = self.folder / fence.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self._changed(fence.text), encoding="utf-8")
        with self._at_work():
            for fence in fences:
                self._read(fence)

    def _changed(self, text: str) -> str:
        for old, new in self.texts.items():
            text = text.replace(old, new)
        return small_text(text)

    def _read(self, fence: Fence) -> None:
        if fence.language == "sh":
            self._output, self._as_documented = "", True
            for command in commands(fence):
                self._run(command, fence)
        elif fence.language == "python" and fence.name:
            registry.import_attribute(f"{'.'.join(Path(fence.name).with_suffix('').parts)}:__name__")
        elif fence.language == "python":
            self._execute(fence)
        elif fence.language == "text" and fence.follows and self._output:
            self._compare(fence)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """In the folder, whose modules can be named; afterwards this process knows none of them."""
        known, path, variables = set(sys.modules), list(sys.path), dict(os.environ)
        folders, entries = list(registry._FOLDERS), [(each, dict(each._entries)) for each in _registries()]
        os.environ.update(self.environment)
        registry.import_also_from(str(self.folder))
        try:
            with contextlib.chdir(self.folder):
                yield
        finally:
            sys.path[:], registry._FOLDERS[:] = path, folders
            for each, before in entries:
                each._entries.clear()
                each._entries.update(before)
            for name in set(sys.modules) - known:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(self.folder)):
                    del sys.modules[name]
            os.environ.clear()
            os.environ.update(variables)

    def _run(self, command: str, fence: Fence) -> None:
        if stays(command):
            return
        small = small_command(command)
        self._as_documented &= small == command
        words = shlex.split(small)
        begun = time.monotonic()
        if words[0] == "ofa" and not _SHELL & set(re.sub(r"'[^']*'|\"[^\"]*\"", "", small)):
            done = command_line(*words[1:])
            status, output, said = done.exit_code, done.stdout, done.stderr
        else:
            status, output, said = self._shell(small)
        self._output += output
        self.ran[command] = round(time.monotonic() - begun, 1)
        expected = STATUS.get(command, 0)
        if status != expected or "Traceback" in said or "should not have happened" in said:
            told = f"'{command}' (run as '{small}') ended with {status}, not {expected}:\n{output}{said}"
            pytest.fail(f"{fence.place}: {told}", pytrace=False)

    def _shell(self, command: str) -> tuple[int, str, str]:
        """A command of the shell's, in which ``ofa`` and ``python`` are those of this environment."""
        tools = self.folder / ".tools"
        if not tools.exists():
            tools.mkdir()
            for name, call in (("ofa", "-P -m ofa"), ("python", "")):
                (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {call} "$@"\n', encoding="utf-8")
                (tools / name).chmod(0o755)
        environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout, done.stderr

    def _execute(self, fence: Fence) -> None:
        """A block of Python goes on where the one before ended; its lines show where it fails."""
        first = fence.text.partition("\n")[0]
        if before := STAND_INS.get((fence.page, first)):
            exec(before, self._names)
        source, name = self._changed(fence.text), f"<{fence.place}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore", ResourceWarning)  # as Python does by itself: short programs leave files to it
            patch.setattr(sys, "argv", ["program.py", "photo.jpg"])
            exec(compile(source, name, "exec"), self._names)
        self._output, self._as_documented = shown.getvalue(), source == fence.text

    def _compare(self, fence: Fence) -> None:
        """Each line that is shown is said, in this order; numbers count only where the documented command ran as it stands."""
        said = iter([_squeezed(line, numbers=self._as_documented) for line in self._output.splitlines()])
        for line in fence.text.splitlines():
            wanted = _squeezed(line, numbers=self._as_documented)
            if wanted and wanted != "..." and not any(wanted == each for each in said):
                pytest.fail(f"{fence.place}: '{line}' must follow in the output, which is:\n{self._output}", pytrace=False)


def _squeezed(line: str, *, numbers: bool) -> str:
    squeezed = " ".join(line.split())
    return squeezed if numbers else _NUMBER.sub("#", squeezed)


def _registries() -> list[registry.Registry[Any]]:
    """What Python of a page may add to."""
    return [each for each in gc.get_objects() if issubclass(type(each), registry.Registry)]
