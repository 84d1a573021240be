"""Published results: networks and their accuracies from CSV files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ofa.arch import Arch, Genes
from ofa.arrays import Floats
from ofa.errors import ArchError, FileError, SpaceError
from ofa.reading.rows import open_csv
from ofa.resolution import parse_resolution
from ofa.space import Space

__all__ = ["read_results"]

_PARTS = ("resolution", "depths", "kernels", "expands")
_ACCURACIES: Mapping[str, float] = {"accuracy": 1.0, "top1_percent": 100.0}
"""Columns of accuracies, each with its value for 100 %."""

Row = Mapping[str, str]


def read_results(path: str | os.PathLike[str], space: Space | None = None) -> tuple[list[Arch], Floats]:
    """Networks and their accuracies (0..1) from a CSV file with a header.

    The accuracy is in the column ``accuracy`` (0..1) or ``top1_percent``. The network is in the column ``arch`` (JSON, as
    ``Arch.to_json``), or in the columns of published results: ``resolution``, ``depths`` (one per stage), ``kernels`` and ``expands`` (one
    for each block that a stage can have), as numbers joined by dashes. Values of absent blocks are ignored.

    Args:
        path: the file.
        space: the space of the networks; required without a column ``arch``, which names it.

    Returns:
        The networks, and their accuracies [N].

    Raises:
        FileError: the file is absent, has no rows, lacks a column, has a wrong value (the message names its line), or mixes spaces.
    """
    with open_csv(path) as reader:
        header = list(reader.fieldnames or [])
        read_arch, read_accuracy = _arch_reader(path, header, space), _accuracy_reader(path, header)
        found = [_read(path, reader.line_num, row, read_arch, read_accuracy) for row in reader]
    if not found:
        raise FileError(f"'{path}' must be a CSV file with a header and a network in each row, but it has no network; measure some")
    names = sorted({arch.space for arch, _ in found})
    if len(names) > 1:
        raise FileError(f"'{path}' must have networks of one space, but has some of {names[0]} and of {names[1]}; make two files of it")
    return [arch for arch, _ in found], np.array([accuracy for _, accuracy in found], dtype=np.float64)


def _read(
    path: str | os.PathLike[str], line: int, row: Row, read_arch: Callable[[Row], Arch], read_accuracy: Callable[[Row], float]
) -> tuple[Arch, float]:
    try:
        if None in row or None in row.values():
            raise ValueError("a row must have a value for each name of the header; add or remove commas")
        return read_arch(row), read_accuracy(row)
    except (ArchError, SpaceError, ValueError) as error:
        raise FileError(f"'{path}', line {line}: {error}") from error


def _arch_reader(path: str | os.PathLike[str], header: Sequence[str], space: Space | None) -> Callable[[Row], Arch]:
    if "arch" in header:
        return lambda row: _arch_of_json(row, space)
    if missing := [name for name in _PARTS if name not in header]:
        raise FileError(f"'{path}' must have the column arch, or {', '.join(_PARTS)}, but {missing[0]} is missing; add it")
    if space is None:
        raise FileError(f"networks without a column arch need the name of their space, but '{path}' has none; add --space NAME")
    genes = {tuple(gene.name for gene in stage.genes) for stage in space.stages}
    if space.network or genes != {("kernel", "expand")}:
        raise FileError(
            f"the columns {', '.join(_PARTS)} of '{path}' must describe all choices, but {space.name} has others; write a column arch"
        )
    return lambda row: _arch_of_parts(row, space)


def _accuracy_reader(path: str | os.PathLike[str], header: Sequence[str]) -> Callable[[Row], float]:
    present = [name for name in _ACCURACIES if name in header]
    if len(present) != 1:
        found = "both are there" if present else f"there are {', '.join(header)}"
        raise FileError(f"'{path}' must have one column {' or '.join(_ACCURACIES)}, but {found}; keep or add one of them")
    name, whole = present[0], _ACCURACIES[present[0]]

    def read(row: Row) -> float:
        value = _number(row, name)
        if not 0 <= value <= whole:
            raise ValueError(f"{name} must be a number in 0..{whole:g}, but is {row[name]}; correct it")
        return value / whole

    return read


def _arch_of_json(row: Row, space: Space | None) -> Arch:
    arch = Arch.from_text(row["arch"])
    if space is not None:
        space.check(arch)
    return arch


def _arch_of_parts(row: Row, space: Space) -> Arch:
    slots = sum(stage.depths[-1] for stage in space.stages)
    depths = _numbers(row, "depths", len(space.stages))
    kernels, expands = (iter(_numbers(row, name, slots)) for name in ("kernels", "expands"))
    stages = []
    for stage, depth in zip(space.stages, depths, strict=True):
        blocks = [Genes(kernel=next(kernels), expand=next(expands)) for _ in range(stage.depths[-1])]
        if depth not in stage.depths:
            raise ValueError(f"depths must be among {list(stage.depths)} in {space.name}, but one is {depth}; correct it")
        stages.append(tuple(blocks[:depth]))
    arch = Arch(space.name, parse_resolution(row["resolution"]), tuple(stages))
    space.check(arch)
    return arch


def _numbers(row: Row, name: str, count: int) -> list[int]:
    parts = row[name].split("-")
    if len(parts) != count or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name} must be {count} whole numbers with dashes between them, but is {row[name]}; correct it")
    return [int(part) for part in parts]


def _number(row: Row, name: str) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise ValueError(f"{name} must be a number, but is '{row[name]}'; correct it") from error
