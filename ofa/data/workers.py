"""Worker processes that prefetch batches, and their failures."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from ofa.errors import DataError

__all__ = ["Ahead", "free_shared_memory", "read_ahead", "within_shared_memory"]

_SHARED_MEMORY = "/dev/shm"
_SPARE = 0.9
"""Share of the free shared memory that batches may take."""
_IN_HAND = 2
"""Batches that are consumed but not freed yet."""
_PAGES = 4 * 4096
"""Bytes of a batch beside its pixels: partly used pages, labels, the state of a generator."""
_SECONDS_BETWEEN_LOOKS = 5.0
_MOST_SECONDS = 300.0

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Ahead:
    """Number of workers and their prefetch.

    Attributes:
        workers: number of processes that read; 0 reads in this process.
        prefetch: batches that each worker prepares ahead.
        note: a sentence that says why they are fewer than asked for; empty if they are not.
    """

    workers: int
    prefetch: int
    note: str = ""


def free_shared_memory() -> int | None:
    """Free bytes of shared memory, through which workers send batches; None if the system has no such limit."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize


def within_shared_memory(batch_bytes: int, workers: int, prefetch: int, free: int | None) -> Ahead:
    """As many workers, and then as large a prefetch, as shared memory has room for.

    Args:
        batch_bytes: bytes of the largest batch.
        workers: wanted number of workers.
        prefetch: wanted number of batches that each worker prepares ahead.
        free: free bytes of shared memory; None is no limit.
    """
    each = batch_bytes + _PAGES
    if free is None or (workers * prefetch + _IN_HAND) * each <= _SPARE * free:
        return Ahead(workers, prefetch)
    room = int(_SPARE * free) // each - _IN_HAND
    fewer = min(workers, max(room, 0))
    ahead = Ahead(fewer, min(prefetch, room // fewer)) if fewer else Ahead(0, prefetch)
    done = f"{ahead.workers} of {workers} workers read {ahead.prefetch} of {prefetch} batches ahead" if fewer else "no workers read ahead"
    note = (
        f"shared memory ({_SHARED_MEMORY}) must hold {workers * prefetch + _IN_HAND} batches of {each / 1e6:.1f} MB for {workers} workers, "
        f"but {free / 1e6:.1f} MB are free, so {done}; enlarge it, for a container with --shm-size"
    )
    return Ahead(ahead.workers, ahead.prefetch, note)


def read_ahead(
    reader: Dataset[Batch], ahead: Ahead, *, pin_memory: bool, start_method: str | None = None, most_seconds: float = _MOST_SECONDS
) -> Iterator[Batch]:
    """The items of a reader, in order, read by worker processes.

    Args:
        reader: a dataset with a length, which can be sent to a process.
        ahead: number of workers (at least 1) and prefetch.
        pin_memory: whether batches are put into page-locked memory for a GPU.
        start_method: start method of the processes: ``fork``, ``spawn`` or ``forkserver``; None leaves it to Python.
        most_seconds: longest time to wait for a batch, in seconds.

    Raises:
        DataError: workers cannot be started, end, or do not answer.
    """
    count = len(reader)  # type: ignore[arg-type]
    if (start_method or multiprocessing.get_start_method()) != "fork":
        _check_can_be_sent(reader)
    batches = _started(
        lambda: iter(
            DataLoader(
                reader,
                batch_size=None,
                num_workers=ahead.workers,
                prefetch_factor=ahead.prefetch,
                pin_memory=pin_memory,
                multiprocessing_context=start_method,
                timeout=_SECONDS_BETWEEN_LOOKS,
                generator=torch.Generator(),  # otherwise it would draw a seed from the global generator
            )
        )
    )
    for _ in range(count):
        yield _next(batches, most_seconds)


def _check_can_be_sent(reader: Dataset[Any]) -> None:
    try:
        ForkingPickler.dumps(reader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        words = " ".join(str(error).split())[:160]
        raise DataError(
            f"data that worker processes read must be picklable, but {words}; define its classes and functions "
            "at the top of a module, or set workers = 0"
        ) from error


def _started(start: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    try:
        with _own_signals():
            return start()
    except OSError as error:
        raise DataError(f"worker processes must be startable, but {error}; set workers = 0") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Undo DataLoader's signal handler, which would raise an error anywhere in this process when a worker dies."""
    installs = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if installs else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


def _next(batches: Iterator[Any], most_seconds: float) -> Any:
    waited = 0.0
    while True:
        try:
            return next(batches)
        except RuntimeError as error:
            words = str(error)
            if not words.startswith("DataLoader"):
                raise
            if "timed out" not in words:
                raise DataError(
                    f"worker processes must not end while they read, but one did ({words}), perhaps because memory ran out; "
                    "set workers = 0, or fewer, or a smaller batch_size"
                ) from error
            waited += _SECONDS_BETWEEN_LOOKS
            if waited >= most_seconds:
                raise DataError(
                    f"a batch must come from its worker process within {most_seconds:.0f} s, but none did; set workers = 0 to see what it "
                    "waits for"
                ) from error
        except OSError as error:
            raise DataError(f"batches must arrive from their worker processes, but {error}; set workers = 0, or fewer") from error
