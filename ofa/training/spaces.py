"""Spaces as commands and the main road in Python name them: also by the run that was trained in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ofa.errors import SpaceError
from ofa.families import get_space
from ofa.space import Space
from ofa.training.start import WEIGHTS
from ofa.weights import read_weights

__all__ = ["find_space"]


def find_space(text: str, num_classes: int | None = None) -> Space:
    """Find a space by name, file, ``module:attribute``, or the folder of a run, which has the classes of its data.

    Args:
        text: an argument of ``get_space``, or the path of a folder that ``train`` or ``adopt`` wrote.
        num_classes: number of logits; None for the space's own.

    Raises:
        SpaceError: there is no such space, or the folder is no run with weights.
        OfaError: the file, the attribute or the run cannot be read.
    """
    folder = Path(text)
    if not folder.is_dir():
        return get_space(text, num_classes)
    if not (folder / WEIGHTS).is_file():
        raise SpaceError(
            f"a folder that names a space must be a trained run with {WEIGHTS}, but '{text}' has none; name the space, or end the training"
        )
    space = read_weights(folder / WEIGHTS, kind="supernet").space()
    return space if num_classes is None else replace(space, num_classes=num_classes)
