"""Latency tables that MIT published with Once-for-All and ProxylessNAS: one YAML file per image size, one entry per layer.

An entry's name describes the layer, such as ``expanded_conv-input:7x7x192-output:7x7x192-expand:576-kernel:3-stride:1-idskip:1-se:1-hs:1``
(``idskip``: the input is added, ``se``: squeeze-excite, ``hs``: h_swish). The older files of ProxylessNAS lack the last two, their
``expand`` is a ratio instead of channels, and their spread is a variance. This module generates the names of our blocks and looks them
up; it does not parse names.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa.blocks import Block, Classifier, ConvBlock, FeatureMix, InvertedResidual, PlacedBlock, Shape
from ofa.errors import TableError
from ofa.reading import LARGEST_YAML, parse_yaml, read_bytes

__all__ = ["Measurement", "MitTable", "load_mit_table"]

_FIRST = re.compile(r"Conv-input:(\d+)x\1x3-")
_CONVS = {3: "Conv", 1: "Conv_1"}
"""By kernel size: MIT's names of the first convolution, and of the last before pooling."""
_BEYOND = 1e12  # above all plausible milliseconds and counts; the check also refuses NaN and infinity


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The time of a layer or block.

    Attributes:
        mean_ms: mean in milliseconds.
        std_ms: standard deviation over the calls, in milliseconds.
        count: number of calls.
    """

    mean_ms: float
    std_ms: float
    count: int

    @classmethod
    def in_a_row(cls, parts: Sequence[Measurement]) -> Measurement:
        """The time of parts in sequence, assuming that they vary independently; the count is the smallest of the parts."""
        return cls(
            mean_ms=sum(part.mean_ms for part in parts),
            std_ms=math.hypot(*(part.std_ms for part in parts)),
            count=min(part.count for part in parts),
        )

    @classmethod
    def pooled(cls, same: Sequence[Measurement]) -> Measurement:
        """Merge several measurements of the same layer: mean and standard deviation over all calls."""
        count = sum(each.count for each in same)
        mean_ms = sum(each.count * each.mean_ms for each in same) / count
        variance = sum(each.count * (each.std_ms**2 + (each.mean_ms - mean_ms) ** 2) for each in same) / count
        return cls(mean_ms=mean_ms, std_ms=math.sqrt(variance), count=count)


@dataclass(frozen=True, kw_only=True)
class MitTable:
    """A published file.

    Attributes:
        path: of the file.
        sha256: of the file's bytes, in hexadecimal.
        resolution: side of the networks' input in pixels, from the name of the first convolution.
        entries: measurements by name in the file.
    """

    path: Path
    sha256: str
    resolution: int
    entries: Mapping[str, Measurement] = field(repr=False)

    def entries_of(self, placed: PlacedBlock) -> tuple[str, ...]:
        """Names of a block's entries, in order of computation; empty if the file lacks one of them."""
        spellings = _spellings(placed.block, placed.input)
        return next((names for names in spellings if all(name in self.entries for name in names)), ())

    def measurement(self, placed: PlacedBlock) -> Measurement | None:
        """The time of a block; None if the file does not have it."""
        names = self.entries_of(placed)
        return Measurement.in_a_row([self.entries[name] for name in names]) if names else None


def load_mit_table(path: str | os.PathLike[str]) -> MitTable:
    """Read a published file; only plain YAML values are accepted.

    Raises:
        FileError: the file does not exist or cannot be read.
        TableError: the file is not YAML, or is no such table.
    """
    content = read_bytes(path, most=LARGEST_YAML)
    entries = parse_yaml(content, what=f"'{path}'", remedy="fetch the published file again", error=TableError)
    if not isinstance(entries, Mapping):
        raise TableError(f"'{path}' must be a mapping of entries, but is {_called(entries)}; give a lookup table as MIT publishes them")
    measured = {str(name): _measurement(name, entry, path) for name, entry in entries.items()}
    sizes = {int(match[1]) for name in measured if (match := _FIRST.match(name))}
    if len(sizes) != 1:
        raise TableError(
            f"'{path}' must have one image size in the name of its first convolution, such as 'Conv-input:224x224x3-output:112x112x24', "
            f"but it has {len(sizes)}; give one file for each size"
        )
    return MitTable(path=Path(path), sha256=hashlib.sha256(content).hexdigest(), resolution=sizes.pop(), entries=measured)


def _measurement(name: Any, entry: Any, path: str | os.PathLike[str]) -> Measurement:
    where = f"'{name}' in '{path}'"
    spread = "var" if isinstance(entry, Mapping) and "var" in entry else "std"
    if not isinstance(entry, Mapping) or not {"mean", "count", spread} <= set(entry):
        raise TableError(f"{where} must have the keys mean, std (or var) and count, but is {_called(entry)}; correct or remove it")
    rules = {
        "mean": (_is_number(entry["mean"]) and entry["mean"] > 0, "a number above 0"),
        spread: (_is_number(entry[spread]), "a number of at least 0"),
        "count": (_is_number(entry["count"]) and int(entry["count"]) == entry["count"] > 0, "a whole number above 0"),
    }
    for key, (right, rule) in rules.items():
        if not right:
            raise TableError(f"'{key}' of {where} must be {rule}, but is {_called(entry[key])}; correct it")
    std_ms = math.sqrt(entry["var"]) if spread == "var" else float(entry["std"])
    return Measurement(mean_ms=float(entry["mean"]), std_ms=std_ms, count=int(entry["count"]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _BEYOND


def _spellings(block: Block, shape: Shape) -> list[tuple[str, ...]]:
    """Alternative names of a block's entries; empty for blocks that occur in no published table."""
    before, pixels = (f"{end}:{of.height}x{of.width}x{of.channels}" for end, of in (("input", shape), ("output", block.output(shape))))
    if isinstance(block, ConvBlock) and block.kernel in _CONVS:
        return [(f"{_CONVS[block.kernel]}-{before}-{pixels}",)]
    if isinstance(block, FeatureMix):
        pooled = f"1x1x{block.in_channels}"
        return [(f"AvgPool2D-{before}-output:{pooled}", f"Conv_2-input:{pooled}-{pixels}")]
    if isinstance(block, Classifier):
        return [(f"Logits-{before}-output:{block.out_channels}",)]
    if isinstance(block, InvertedResidual):
        return [(f"expanded_conv-{before}-{pixels}-{end}",) for end in _ends(block)]
    return []


def _ends(block: InvertedResidual) -> list[str]:
    middle = f"kernel:{block.kernel}-stride:{block.stride}-idskip:{int(block.residual)}"
    ends = [f"expand:{block.mid_channels}-{middle}-se:{int(block.squeeze_excite)}-hs:{int(block.activation == 'h_swish')}"]
    if block.activation == "relu6" and not block.squeeze_excite:
        ends.append(f"expand:{block.mid_channels / block.in_channels:g}-{middle}")
    return ends


def _called(value: Any) -> str:
    """A value of YAML in a few words."""
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, list(value)[:5])) or 'nothing'}"
    if isinstance(value, str | int | float):
        return repr(value)
    return "empty" if value is None else f"a {type(value).__name__}"
