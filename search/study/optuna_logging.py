"""What Optuna says by itself."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning

__all__ = ["said_already", "without_notices"]


@contextmanager
def without_notices() -> Iterator[None]:
    """Keep Optuna's notices on this thread's studies off stderr; its verbosity, which is global, stays the user's."""
    this_thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.thread != this_thread or record.levelno >= logging.WARNING

    handlers = [handler for handler in logging.getLogger("optuna").handlers if type(handler) is logging.StreamHandler]
    for handler in handlers:
        handler.addFilter(is_wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_wanted)


@contextmanager
def said_already() -> Iterator[None]:
    """Do not let every worker repeat that a sampler or storage is experimental, which the process that started it has said."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if not issubclass(warning.category, ExperimentalWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
