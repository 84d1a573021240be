"""What is known of an adoption beside its space: a file in the folder of the run that ``ofa adopt`` writes."""

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
        tensor: its name in the model.
        dim: the dimension.
        size: its length.
        reason: why.
    """

    tensor: str
    dim: int
    size: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class AdoptionRecord:
    """What adopting a model found out.

    Attributes:
        model: what the user called it.
        members: by the name of each elastic size the dimensions of the model's tensors that shrink with it, such as ``fc.weight[1]``.
        fixed: what does not shrink, and why.
        elastic_share: of the model's parameters, how many lie in tensors that shrink.
        difference: how far the largest network's outputs are from the model's, as a share of the largest; 0 is bit for bit.
        class_names: in the order of the logits; None if nobody said them.
    """

    model: str
    members: Mapping[str, tuple[str, ...]]
    fixed: tuple[Fixed, ...]
    elastic_share: float
    difference: float
    class_names: tuple[str, ...] | None = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it into the folder of a run; FileError if that cannot be written."""
        write_json({"kind": _KIND, "schema": _SCHEMA, **to_json(self)}, Path(folder) / ADOPTION)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> AdoptionRecord | None:
        """Read that of a run; None if it has none, because no model was adopted for it.

        Raises:
            FileError: it is damaged, of a newer version, or something else.
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
            raise FileError(f"'{path}' must say what was adopted, but {error}; {_REMEDY}") from error
