"""A process of step_worker.py, as training_step.py and gpu/speed.py talk to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["StepProcess"]


class StepProcess:
    """One side: makes training steps when it is asked to. As a context it is ended at the end.

    Args:
        name: of the side.
        python: the interpreter of its environment.
        options: of step_worker.py.
        environment: of the process; this one's by default.
        errors: file for what it says on stderr; this process's by default.
    """

    def __init__(
        self,
        name: str,
        python: str,
        options: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        errors: Path | None = None,
    ) -> None:
        self.name, self._errors = name, errors
        command = [python, str(Path(__file__).with_name("step_worker.py")), name, *options]
        stderr = errors.open("w") if errors else None
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
            )
        finally:
            if stderr:
                stderr.close()
        self._send({})  # it begins to build its network

    def __enter__(self) -> StepProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def burst(self, **settings: Any) -> dict[str, Any]:
        """Make steps, as a Burst of step_worker.py says; the answer has ``seconds``, ``peak_mib`` and ``profile``.

        Raises:
            RuntimeError: the process ended instead.
        """
        self._send(settings)
        answer = self._receive()
        return self._receive() if answer == {"ready": True} else answer

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # whoever waits for the answer is told
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            lines = self._errors.read_text().strip().splitlines() if self._errors else []
            raise RuntimeError(f"side '{self.name}' ended with status {self._process.wait()}: {lines[-1] if lines else 'see above'}")
        answer: dict[str, Any] = json.loads(line)
        return answer
