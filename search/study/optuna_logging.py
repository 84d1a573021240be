"""Optuna's log messages and warnings."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning

__all__ = ["known_as_experimental", "without_notices"]

_OF_FAILED_TRIALS = "optuna.study._optimize"
"""Logger of failed trials. Its messages, with a traceback, repeat errors that the search itself raises."""


@contextmanager
def without_notices() -> Iterator[None]:
    """Keep Optuna's messages about this thread's studies off stderr, without changing its global verbosity, which is the user's."""
    this_thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.thread != this_thread or (record.levelno >= logging.WARNING and record.name != _OF_FAILED_TRIALS)

    handlers = [handler for handler in logging.getLogger("optuna").handlers if type(handler) is logging.StreamHandler]
    for handler in handlers:
        handler.addFilter(is_wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_wanted)


def known_as_experimental() -> warnings.catch_warnings[None]:
    """A context without Optuna's warnings about experimental features: for the command line, and for workers, whose parent shows them."""
    return warnings.catch_warnings(action="ignore", category=ExperimentalWarning)
