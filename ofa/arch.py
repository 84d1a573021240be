"""Arch: one point of a space, as a value that can be hashed, compared, stored and sent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ofa.errors import ArchError, SpaceError
from ofa.files import write_json
from ofa.reading import parse_json, read_json
from ofa.resolution import Resolution, parse_resolution, pixels, resolution_to_json

__all__ = ["SPACE_KEY", "Arch", "Genes"]

_OWN_KEYS = ("space", "resolution", "stages")

SPACE_KEY = "space_json"
"""Key under which an arch file carries the whole space, if it carries one (``ofa.families.save_arch``)."""


class Genes(Mapping[str, "int | float"]):
    """A frozen, hashable mapping from gene names to values, such as ``Genes(kernel=3, expand=4)``."""

    __slots__ = ("_hash", "_items")

    def __init__(self, genes: Mapping[str, int | float] | None = None, /, **named: int | float) -> None:
        self._items = {**(genes or {}), **named}
        self._hash = hash(frozenset(self._items.items()))

    def __getitem__(self, name: str) -> int | float:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self._items == other._items if isinstance(other, Genes) else NotImplemented

    def __repr__(self) -> str:
        return f"Genes({', '.join(f'{name}={value}' for name, value in self._items.items())})"

    def __reduce__(self) -> tuple[type[Genes], tuple[dict[str, int | float]]]:
        return Genes, (self._items,)


@dataclass(frozen=True)
class Arch:
    """One network of a space.

    A skipped block has no genes here, so two archs that build the same network are equal.

    Attributes:
        space: name of the space that contains the arch.
        resolution: of the input image in pixels: the side of a square, or (height, width).
        stages: per stage the genes of its blocks; the number of blocks is the stage's depth.
        network: genes of the whole network, which belong to no single block, such as the width of a stage.
    """

    space: str
    resolution: Resolution
    stages: tuple[tuple[Genes, ...], ...]
    network: Genes = Genes()

    def __post_init__(self) -> None:
        if isinstance(self.resolution, tuple):
            object.__setattr__(self, "resolution", parse_resolution(self.resolution))
        # Cached: archs are keys of every cache, and hashing two dozen blocks each time would cost more than a look-up.
        object.__setattr__(self, "_hash", hash((self.space, self.resolution, self.stages, self.network)))

    def __hash__(self) -> int:
        value: int = self._hash  # type: ignore[attr-defined]
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        # String hashes differ between processes, so the cached hash must not be pickled.
        return Arch, (self.space, self.resolution, self.stages, self.network)

    @property
    def in_words(self) -> str:
        """A short description: the resolution and the depth of each stage, such as ``160 px, blocks 2-3-4``."""
        return f"{pixels(self.resolution)}, blocks {'-'.join(str(len(stage)) for stage in self.stages)}"

    def to_json(self) -> dict[str, Any]:
        """The arch as JSON-ready values; the network's genes are further keys at the top level."""
        stages = [[dict(block) for block in stage] for stage in self.stages]
        return {"space": self.space, "resolution": resolution_to_json(self.resolution), **self.network, "stages": stages}

    @classmethod
    def from_json(cls, value: Any) -> Arch:
        """Build an arch from the value of ``to_json``.

        Args:
            value: parsed JSON.

        Raises:
            ArchError: a key is missing, or its value is of the wrong type.
        """
        try:
            space, resolution, stages = (value[key] for key in _OWN_KEYS)
            network = Genes({key: _number(value[key]) for key in value if key not in (*_OWN_KEYS, SPACE_KEY)})
            built = tuple(tuple(Genes({key: _number(gene) for key, gene in block.items()}) for block in stage) for stage in stages)
            return cls(str(space), parse_resolution(resolution), built, network)
        except (KeyError, TypeError, AttributeError, ValueError, SpaceError) as error:
            raise ArchError(
                "an arch must be an object with the keys space, resolution and stages (a list of lists of genes), "
                f"but reading it raised {type(error).__name__}: {error}; write one with Arch.save or 'ofa query'"
            ) from error

    @classmethod
    def from_text(cls, text: str) -> Arch:
        """Parse JSON text.

        Raises:
            ArchError: the text is not JSON, or as in ``from_json``.
        """
        return cls.from_json(parse_json(text, what="an arch", remedy="write one with Arch.save or 'ofa query'", error=ArchError))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arch as a JSON file.

        Raises:
            FileError: the file cannot be written.
        """
        write_json(self.to_json(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Arch:
        """Read an arch from a JSON file.

        Raises:
            FileError: the file cannot be read or is not JSON.
            ArchError: as in ``from_json``.
        """
        return cls.from_json(read_json(path))


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a gene must be a number, got {value!r}")
    return value
