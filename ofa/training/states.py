"""Saved states of training as files in a folder: the last, and the one before in case the last is corrupted (e.g. by a failing disk)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ofa.errors import FileError, WeightsError
from ofa.files import make_folder, remove_parts
from ofa.reading import parse_json
from ofa.schema import parse
from ofa.training.state import TrainingState
from ofa.weights import Weights, read_weights, write_weights

__all__ = ["States"]

_KEPT = 2


class States:
    """The states in a folder; the folder exists only while it has states.

    Args:
        folder: the folder.
        values: a dataclass of the values that each state must contain; it may contain others.
    """

    def __init__(self, folder: str | os.PathLike[str], values: type) -> None:
        self.folder = Path(folder)
        self._values = values

    @property
    def paths(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def keep(self, state: TrainingState, header: Mapping[str, str]) -> None:
        """Write a state; the state before it is kept, older ones are removed.

        Raises:
            FileError: the folder cannot be written, or the disk is full; earlier states are kept.
        """
        make_folder(self.folder)
        told = {"kind": "checkpoint", **header, "step": str(state.step), "values": json.dumps(state.values)}
        write_weights(state.tensors, self.folder / f"{state.step:09d}.safetensors", told)
        for old in self.paths[:-_KEPT]:
            old.unlink(missing_ok=True)

    def last(self, *, remove: bool, on_note: Callable[[str], None]) -> tuple[TrainingState, Weights] | None:
        """The last intact state and its file; None if there are no states.

        Args:
            remove: whether to remove damaged later states.
            on_note: called with a sentence for each damaged state.

        Raises:
            FileError: all states are damaged.
        """
        damaged: list[Path] = []
        for path in reversed(self.paths):
            try:
                state, weights = self._read(path)
            except (FileError, WeightsError) as error:
                damaged.append(path)
                reason = error
                continue
            for other in damaged:
                on_note(f"'{other}' must be a whole state, but is damaged; training resumes from the state before, of step {state.step}")
                if remove:
                    other.unlink(missing_ok=True)
            return state, weights
        if damaged:
            raise FileError(
                f"resumed training must have a whole state, but all {len(damaged)} in '{self.folder}' are damaged; train anew with "
                "--overwrite"
            ) from reason
        return None

    def forget(self) -> None:
        """Remove all states, and the folder if it is empty then."""
        for path in self.paths:
            path.unlink(missing_ok=True)
        remove_parts(self.folder)
        with suppress(OSError):  # the folder does not exist, or holds other files
            self.folder.rmdir()

    def _read(self, path: Path) -> tuple[TrainingState, Weights]:
        weights = read_weights(path, kind="checkpoint")
        try:
            values = parse_json(weights.metadata["values"], what="'values'", infinite=True)
            parse(self._values, values)
            return TrainingState(int(weights.metadata["step"]), dict(weights.tensors), values), weights
        except (KeyError, ValueError, FileError) as error:
            raise FileError(f"'{path}' must have a whole header, but {error}; delete it to resume from the state before") from error
