"""Consistency checks of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ofa.errors import DamagedError, ExportError, FileError
from ofa.exporting.layout import CARD
from ofa.files import unwritable
from ofa.reading import sha256_of
from ofa.reading.limits import LARGEST_MODEL
from ofa.space import Space
from ofa.weights import check_names

__all__ = ["check_channels", "check_classes", "check_files", "check_place", "check_tensors"]


def check_tensors(tensors: Mapping[str, torch.Tensor], network: nn.Module, source: str) -> None:
    """Raise WeightsError unless tensors have the names and shapes of a network's tensors."""
    check_names(source, {name: tensor.shape for name, tensor in tensors.items()}, network.state_dict())


def check_classes(space: Space, class_names: Sequence[str]) -> None:
    """Raise ExportError unless each class of a space has a name."""
    if len(class_names) != space.num_classes:
        raise ExportError(
            f"each of the network's {space.num_classes} classes must have a name, but class_names has {len(class_names)}; give the names "
            "of its data's classes"
        )


def check_channels(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ExportError unless there is a mean and a standard deviation for each channel of the images."""
    if len(mean) != channels or len(std) != channels:
        raise ExportError(
            f"mean and std must have one value for each of the network's {channels} input channels, but have {len(mean)} and {len(std)}; "
            "give the values that the network was trained with"
        )


def check_place(folder: Path) -> None:
    """Raise FileError unless a folder is new, empty or a bundle, so that a bundle may be written there."""
    try:
        is_other = folder.exists() and not (folder / CARD).is_file() and (not folder.is_dir() or any(folder.iterdir()))
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error
    if is_other:
        raise FileError(f"'{folder}' must be a new or empty folder or a bundle, but is something else; choose another folder")


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Check the files of a bundle against the checksums on its card.

    Raises:
        DamagedError: a file does not match its checksum.
        ExportError: the card names files outside of the bundle.
    """
    for name, digest in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ExportError(f"the card of a bundle must name files within it, but '{folder / CARD}' names '{name}'; write it again")
        if sha256_of(folder / name, most=LARGEST_MODEL) != digest:
            raise DamagedError(
                f"'{folder / name}' must be the file that was written with its bundle, but has another content; write the bundle or "
                "the engine again, or copy all files of the bundle together"
            )
