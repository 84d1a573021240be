"""Metrics for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ofa.errors import MissingExtraError
from ofa.training.metrics import EpochMetrics

__all__ = ["Board", "board"]


class Board:
    """Writes each epoch's metrics at the step of the run."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, epoch: EpochMetrics) -> None:
        """Write one epoch."""
        for name, value in asdict(epoch).items():
            if isinstance(value, float):
                self._writer.add_scalar(f"training/{name}", value, epoch.step)
        self._writer.flush()


@contextmanager
def board(folder: str | os.PathLike[str]) -> Iterator[Board]:
    """A board that writes its event files to ``folder``/tensorboard.

    Raises:
        MissingExtraError: the extra ``tensorboard`` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("writing metrics for TensorBoard", "tensorboard") from error
    with SummaryWriter(str(Path(folder) / "tensorboard")) as writer:
        yield Board(writer)
