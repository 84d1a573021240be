"""Weights on disk: safetensors files with the space and versions in the header. Nothing is unpickled."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from ofa.errors import WeightsError
from ofa.families import stored_space
from ofa.files import replacing
from ofa.reading import parse_json
from ofa.reading.tensors import read_safetensors
from ofa.seal import BLANK_SEAL, SEAL_KEY, check_seal
from ofa.space import Space
from ofa.version import __version__

__all__ = ["SCHEMA", "SPACE_KEY", "Weights", "check_finite", "check_names", "read_weights", "space_header", "write_weights"]

SCHEMA = 2
_LONGEST_COUNT = 9
"""Most digits of a number in a header."""
_SEALED = 2
"""First schema whose files carry a checksum (``ofa.seal``)."""

SPACE_KEY = "space_json"
"""Header key of the whole space as JSON; its name is under ``space``."""


class Shaped(Protocol):
    """A tensor, or a description with its shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Weights:
    """Named tensors and their header.

    Attributes:
        path: of the file.
        tensors: by name.
        metadata: texts of the header, by key.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]

    def space(self) -> Space:
        """The space in the header; files of earlier versions have only its name.

        Raises:
            SpaceError: the space is unknown, or of a class that has not been imported.
            WeightsError: the header is damaged, or names no space.
        """
        if "space" not in self.metadata:
            raise WeightsError(f"'{self.path}' must name its space in the header, but does not; give the space")
        return stored_space(
            _json_of(self.path, self.metadata, SPACE_KEY),
            self.metadata["space"],
            _count(self.path, self.metadata, "num_classes"),
            f"'{self.path}'",
        )

    def probability(self, name: str) -> float:
        """A number in 0..1 in the header; 0 if absent.

        Raises:
            WeightsError: the value is not a number in 0..1.
        """
        text = self.metadata.get(name, "0")
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not 0 <= found <= 1:
            raise WeightsError(f"the header of '{self.path}' must have a {name} in 0..1, but has '{text[:20]}'; copy the file anew")
        return found

    def check(self, targets: Mapping[str, Shaped]) -> None:
        """Check that names and shapes of the tensors equal those of ``targets``, before memory is allocated for them.

        Raises:
            WeightsError: a tensor is missing, superfluous or of another shape.
        """
        check_names(str(self.path), {name: tensor.shape for name, tensor in self.tensors.items()}, targets)

    @torch.no_grad()
    def copy_to(self, targets: Mapping[str, torch.Tensor]) -> None:
        """Copy every tensor into the target of the same name; nothing is copied unless all names and shapes match.

        Raises:
            WeightsError: a tensor is missing, superfluous, of another shape, or not finite.
        """
        self.check(targets)
        check_finite(self.tensors, f"'{self.path}'")
        for name, target in targets.items():
            target.copy_(self.tensors[name])


def space_header(space: Space) -> dict[str, str]:
    """Header entries of a space: its name, its number of classes, and the whole space as JSON."""
    return {"space": space.name, "num_classes": str(space.num_classes), SPACE_KEY: json.dumps(space.to_json())}


def check_names(source: str, shapes: Mapping[str, torch.Size], targets: Mapping[str, Shaped]) -> None:
    """Check that ``shapes`` has the names and shapes of ``targets``.

    Args:
        source: name of the file, for messages.
        shapes: of the tensors found, by name.
        targets: the expected tensors, by name.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape; the message names the first of each.
    """
    missing, extra = [n for n in targets if n not in shapes], [n for n in shapes if n not in targets]
    if missing or extra:
        found = [f"{len(names)} are {what} (first {names[0]})" for names, what in ((missing, "missing"), (extra, "unknown")) if names]
        raise WeightsError(
            f"{source} must hold the {len(targets)} tensors of this space, but {' and '.join(found)}; name the space of the weights"
        )
    for name, target in targets.items():
        if shapes[name] != target.shape:
            raise WeightsError(
                f"{source} must match its space, but {name} has shape {list(shapes[name])} instead of {list(target.shape)}; "
                "name the space and number of classes of the weights"
            )


def check_finite(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Check that no tensor contains NaN or infinity.

    Args:
        tensors: by name.
        source: name of the file, for messages.

    Raises:
        WeightsError: a tensor does; the message names the first.
    """
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        values = tensors[wrong[0]].flatten()
        first = float(values[~torch.isfinite(values)][0])
        raise WeightsError(
            f"{source} must hold finite weights, but {len(wrong)} of {len(tensors)} tensors do not, first {wrong[0]} with {first}; "
            "take an earlier checkpoint, or train again with a lower learning rate"
        )


def write_weights(tensors: Mapping[str, torch.Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write tensors and a header as a sealed safetensors file, atomically.

    Args:
        tensors: by name, on any device.
        path: of the file; an existing one is replaced.
        metadata: texts for the header.

    Raises:
        FileError: the file cannot be written.
    """
    header = {**metadata, SEAL_KEY: BLANK_SEAL, "schema": str(SCHEMA), "ofa_version": __version__, "torch_version": torch.__version__}
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # safetensors refuses tensors that share storage, so views are cloned.
    packed = {name: tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor for name, tensor in packed.items()}
    with replacing(path) as temporary:
        save_file(packed, temporary, header)


def read_weights(path: str | os.PathLike[str], *, kind: str) -> Weights:
    """Read a file that ``write_weights`` wrote.

    Args:
        path: of the file.
        kind: the required ``kind`` in its header, such as "supernet".

    Raises:
        FileError: the file does not exist or cannot be read.
        DamagedError: the file has changed since it was written.
        WeightsError: it is no file of weights, of a newer version, or of another kind.
    """
    source = Path(path)
    found = read_safetensors(source, check=lambda header: _check_header(source, header, kind), error=WeightsError)
    if _count(source, found.header, "schema") >= _SEALED and not found.sealed:
        check_seal(source, required=True, what=f"'{source}'")
    return Weights(source, found.tensors, found.header)


def _check_header(path: Path, header: Mapping[str, str], kind: str) -> None:
    if header.get("kind") != kind:
        found = header.get("kind", "nothing")
        raise WeightsError(f"'{path}' must hold a {kind}, but its header says {found}; give the file of a {kind}")
    schema = _count(path, header, "schema")
    if schema > SCHEMA:
        raise WeightsError(f"'{path}' has schema {schema}, but this version reads up to {SCHEMA}; upgrade with: pip install -U ofa-nas")


def _count(path: Path, metadata: Mapping[str, str], key: str) -> int:
    text = metadata.get(key, "")
    if not text.isdecimal() or len(text) > _LONGEST_COUNT:
        raise WeightsError(f"'{path}' must have a whole header, but {key} is '{text}' and no number; copy or write the file again")
    return int(text)


def _json_of(path: Path, metadata: Mapping[str, str], key: str) -> Any:
    if key not in metadata:
        return None
    return parse_json(metadata[key], what=f"{key} in the header of '{path}'", error=WeightsError)
