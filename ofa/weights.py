"""Weights on disk: safetensors with the space and versions in the header. Nothing is ever unpickled."""

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
"""Digits of numbers in headers."""
_SEALED = 2
"""Since which schema files carry a checksum (``ofa.seal``)."""

SPACE_KEY = "space_json"
"""Where a header carries the whole space, beside its name in ``space``."""


class Shaped(Protocol):
    """A tensor, or what is known of one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Weights:
    """Named tensors and the text of their header."""

    path: Path
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]

    def space(self) -> Space:
        """The space that the header carries, or in files of earlier versions names.

        Raises:
            SpaceError: it is unknown here, or of a class that has not been imported.
            WeightsError: the header is damaged.
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
        """A number in 0..1 that the header carries; 0 if it does not.

        Raises:
            WeightsError: it is none.
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
        """See that there are tensors of these names and shapes and no others, before memory is taken for what a header says.

        Raises:
            WeightsError: a tensor is missing, superfluous or of another shape.
        """
        check_names(str(self.path), {name: tensor.shape for name, tensor in self.tensors.items()}, targets)

    @torch.no_grad()
    def copy_to(self, targets: Mapping[str, torch.Tensor]) -> None:
        """Copy every tensor into the one of its name; nothing is copied unless all names and shapes agree.

        Raises:
            WeightsError: a tensor is missing, superfluous, of another shape, or not finite.
        """
        self.check(targets)
        check_finite(self.tensors, f"'{self.path}'")
        for name, target in targets.items():
            target.copy_(self.tensors[name])


def space_header(space: Space) -> dict[str, str]:
    """What a header says of a space: its name, its number of classes, and all of it as JSON."""
    return {"space": space.name, "num_classes": str(space.num_classes), SPACE_KEY: json.dumps(space.to_json())}


def check_names(source: str, shapes: Mapping[str, torch.Size], targets: Mapping[str, Shaped]) -> None:
    """Raise WeightsError, naming the first of each, unless ``shapes`` has the names and shapes of ``targets``."""
    missing, extra = [n for n in targets if n not in shapes], [n for n in shapes if n not in targets]
    if missing or extra:
        found = [f"{len(names)} are {what} (first {names[0]})" for names, what in ((missing, "missing"), (extra, "unknown")) if names]
        raise WeightsError(
            f"{source} must hold the {len(targets)} tensors of this space, but {' and '.join(found)}; name the space it is of"
        )
    for name, target in targets.items():
        if shapes[name] != target.shape:
            raise WeightsError(
                f"{source} must fit its space, but {name} has shape {list(shapes[name])} instead of {list(target.shape)}; "
                "name the space and number of classes it is of"
            )


def check_finite(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Raise WeightsError, naming the first tensor, where one holds NaN or infinity."""
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        values = tensors[wrong[0]].flatten()
        first = float(values[~torch.isfinite(values)][0])
        raise WeightsError(
            f"{source} must hold finite weights, but {len(wrong)} of {len(tensors)} tensors do not, first {wrong[0]} with {first}; "
            "take an earlier checkpoint, or train again with a lower learning rate"
        )


def write_weights(tensors: Mapping[str, torch.Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write tensors with a header, all or nothing.

    Raises:
        FileError: the folder cannot be written.
    """
    header = {**metadata, SEAL_KEY: BLANK_SEAL, "schema": str(SCHEMA), "ofa_version": __version__, "torch_version": torch.__version__}
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Tensors that view one storage are refused by safetensors unless each is copied out of it.
    packed = {name: tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor for name, tensor in packed.items()}
    with replacing(path) as temporary:
        save_file(packed, temporary, header)


def read_weights(path: str | os.PathLike[str], *, kind: str) -> Weights:
    """Read tensors and header.

    Args:
        path: a file that ``write_weights`` wrote.
        kind: what its header must say it holds, such as "supernet".

    Raises:
        FileError: there is no such file, or it cannot be read.
        DamagedError: it is not as it was written.
        WeightsError: it is no file of weights, newer than this version, or holds something else.
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
