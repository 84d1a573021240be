"""A folder with one folder of images for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from ofa.data.items import FileItems, regular_file
from ofa.data.left_out import LeftOut
from ofa.data.opening import UnreadableError, check_start
from ofa.data.source import PURPOSES, Source
from ofa.errors import DataError

__all__ = ["folder_source", "is_hidden", "no_classes"]

_KEPT_BY_SYSTEMS = ("__MACOSX",)


def folder_source(path: Path) -> Source:
    """All files in the folders of classes, whatever their extensions; links are followed, each folder once.

    Raises:
        DataError: there are no folders of classes, or the folders are parts such as train and test.
    """
    entries = sorted(path.iterdir())
    classes = [entry for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    _check_purposes(path, classes)
    if not classes:
        raise no_classes(str(path), 0)
    left_out = [*_hidden_in(entry for entry in entries if is_hidden(entry.name)), *map(_stray, _files_of(entries))]
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        found, hidden = _walk(folder)
        files += found
        labels += [label] * len(found)
        left_out += hidden
    names = tuple(folder.name for folder in classes)
    return Source(
        items=FileItems(files), labels=torch.tensor(labels, dtype=torch.int64), class_names=names, left_out=tuple(left_out), folders=True
    )


def no_classes(spec: str, count: int) -> DataError:
    """The error about a folder without images in its ``count`` folders."""
    return DataError(
        f"a folder of images must have one folder for each class, but '{spec}' has {count} folders and no images in them; check the path"
    )


def is_hidden(name: str) -> bool:
    """Whether a name is that of a hidden file or folder, or of one that systems create for themselves."""
    return name.startswith(".") or name in _KEPT_BY_SYSTEMS


def _check_purposes(path: Path, classes: list[Path]) -> None:
    called = {folder.name.lower(): folder.name for folder in classes}
    purposes = [called[purpose] for purpose in PURPOSES if purpose in called]
    if len(purposes) > 1 and len(purposes) == len(classes):
        raise DataError(
            f"the folders of a data set must be its classes, but '{path}' has {', '.join(purposes)}; name one of them as data, "
            f"for example '{path / purposes[0]}', and another as test_data"
        )


def _files_of(entries: list[Path]) -> Iterator[Path]:
    return (entry for entry in entries if not entry.is_dir() and not is_hidden(entry.name))


def _stray(file: Path) -> LeftOut:
    """A file beside the folders of the classes."""
    try:
        check_start(regular_file(file))
    except UnreadableError:
        return LeftOut(str(file), "is no image", "no image")
    return LeftOut(str(file), "lies beside the folders of the classes", "no class")


def _hidden_in(entries: Iterator[Path]) -> Iterator[LeftOut]:
    for entry in entries:
        for file in _all_files(entry) if entry.is_dir() else [entry]:
            yield LeftOut(str(file), "is hidden", "hidden")


def _all_files(folder: Path) -> list[Path]:
    return sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names)


def _walk(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """The files below a folder in the order of their paths, and files that are left out: hidden ones, and folders that cannot be listed."""
    files: list[Path] = []
    left_out: list[LeftOut] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            about = place.stat()
            entries = list(place.iterdir()) if (about.st_dev, about.st_ino) not in seen else []
        except OSError as error:
            left_out.append(LeftOut(str(place), (error.strerror or str(error)).lower()))
            continue
        seen.add((about.st_dev, about.st_ino))  # links may form cycles
        left_out += _hidden_in(entry for entry in sorted(entries) if is_hidden(entry.name))
        shown = [entry for entry in entries if not is_hidden(entry.name)]
        folders = {entry for entry in shown if entry.is_dir()}
        waiting += sorted(folders, reverse=True)
        files += [entry for entry in shown if entry not in folders]
    return sorted(files), left_out
