"""Who works on a study, and who does no more.

A worker's name tells its machine, its process and its run. It says every few seconds that it lives; one that has been silent for long is
dead, and on its own machine one whose process is gone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Beats", "group_of", "is_alive", "new_group", "worker_name"]


def new_group() -> str:
    """A name for one run, whose workers are not strangers to each other."""
    return secrets.token_hex(4)


def worker_name(group: str, process: int | None = None) -> str:
    """The name of the worker that this process (or another here) is in a run."""
    return f"{_machine()}/{os.getpid() if process is None else process}/{group}"


def group_of(worker: str) -> str:
    """The run of a worker."""
    return worker.rpartition("/")[2]


def is_alive(worker: str, silent_s: float, patience_s: float) -> bool:
    """Whether a worker may still be working that has been silent for ``silent_s`` seconds."""
    if silent_s > patience_s:
        return False
    machine, process, _ = worker.rsplit("/", 2)
    return machine != _machine() or _exists(int(process))


def _machine() -> str:
    """What process numbers belong to: a machine since it was started, or a container on it."""
    known = [platform.node()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        known.append(os.readlink("/proc/self/ns/pid"))
    return f"{platform.node()}-{hashlib.sha256(' '.join(known).encode()).hexdigest()[:8]}"


def _exists(process: int) -> bool:
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Beats:
    """A thread that calls ``beat`` at once and then every few seconds.

    Args:
        beat: says that this process lives; may fail, because a storage that is away for a moment is no reason to die.
        interval_s: how often.
    """

    def __init__(self, beat: Callable[[], Any], interval_s: float) -> None:
        self._beat = beat
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beats of a worker", daemon=True)

    def start(self) -> None:
        """Begin; the first beat is given when this returns.

        Raises:
            Exception: the first beat fails.
        """
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End; no beat is given after this returns."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            with suppress(Exception):
                self._beat()
