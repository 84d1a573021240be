"""The record of an adoption: a file beside the space in the folder of the run that ``ofa adopt`` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ofa.errors import FileError, SchemaError
from ofa.files import write_json
from ofa.reading import read_json
from ofa.schema import parse, to_json

__all__ = ["ADOPTION", "AdoptionRecord", "Fixed"]

ADOPTION = "adoption.json"
_KIND = "adoption"
_SCHEMA = 1
_REMEDY = "adopt the model anew"


@dataclass(frozen=True)
class Fixed:
    """A dimension of a tensor that does not shrink.

    Attributes:
        tensor: the tensor's name in the model.
        dim: number of the dimension.
        size: its length.
        reason: the reason, as a predicate ("is the number of classes").
    """

    tensor: str
    dim: int
    size: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class AdoptionRecord:
    """Results of adopting a model.

    Attributes:
        model: the user's name of the model.
        members: for each elastic size, the dimensions of the model's tensors that shrink with it, such as ``fc.weight[1]``.
        fixed: dimensions that do not shrink, with reasons.
        elastic_share: share (0..1) of the model's parameters in tensors that shrink.
        difference: largest difference between the outputs of the largest network and of the model, relative to the largest output; 0 is
            bit for bit.
        class_names: names of the classes, in the order of the logits; None if they are unknown.
    """

    model: str
    members: Mapping[str, tuple[str, ...]]
    fixed: tuple[Fixed, ...]
    elastic_share: float
    difference: float
    class_names: tuple[str, ...] | None = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the record into the folder of a run.

        Raises:
            FileError: the folder cannot be written.
        """
        write_json({"kind": _KIND, "schema": _SCHEMA, **to_json(self)}, Path(folder) / ADOPTION)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> AdoptionRecord | None:
        """Read the record of a run; None if no model was adopted for the run.

        Raises:
            FileError: the file is damaged, of a newer version, or no record of an adoption.
        """
        path = Path(folder) / ADOPTION
        if not os.path.lexists(path):
            return None
        value = read_json(path, sealed=True, remedy=_REMEDY)
        if not isinstance(value, Mapping) or value.get("kind") != _KIND or value.get("schema") != _SCHEMA:
            raise FileError(f"'{path}' must be an {_KIND} of schema {_SCHEMA}, but is something else; {_REMEDY}")
        try:
            return parse(cls, value)
        except SchemaError as error:
            raise FileError(f"'{path}' must be the record of an adoption, but {error}; {_REMEDY}") from error
