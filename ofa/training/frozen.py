"""Frozen layers, chosen by patterns of their names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from ofa.errors import RecipeError
from ofa.sharing import layout
from ofa.space import Space

__all__ = ["MATRICES", "frozen_tensors"]

MATRICES = "matrices"
"""All weights of convolutions and linear layers: only norms and biases are trained (PERP, Zimmer et al. 2023)."""

_NEAR = 3
"""How many similar names the error about a pattern without match suggests."""


@lru_cache(maxsize=16)
def frozen_tensors(space: Space, patterns: tuple[str, ...]) -> frozenset[str]:
    """The names of the stored tensors that patterns freeze.

    Args:
        space: the supernet's space.
        patterns: patterns with ``*``, ``?`` and ``[]`` of names of tensors or of modules that contain them: ``stem*``, ``stages.0``,
            ``*.norm``; or ``matrices``, all weights of convolutions and linear layers.

    Raises:
        RecipeError: a pattern matches nothing, or nothing is left that learns.
    """
    if not patterns:
        return frozenset()
    names = {tensor.name: tuple(_within(tensor.name)) for tensor in layout(space)}
    matrices = {tensor.name for tensor in layout(space) if tensor.role == "decayed"}
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name, places in names.items() if any(fnmatchcase(place, pattern) for place in places)}
        matching |= matrices if pattern == MATRICES else set()
        if not matching:
            raise RecipeError(
                f"each pattern of frozen must match a layer of {space.name}, but '{pattern}' matches none; "
                f"{_near(pattern, sorted({place for places in names.values() for place in places}))}",
                key="frozen",
            )
        found |= matching
    if all(tensor.name in found for tensor in layout(space) if tensor.role != "statistics"):
        raise RecipeError(
            f"frozen must leave a layer that learns, but {_quoted(patterns)} {'is' if len(patterns) == 1 else 'are'} all of {space.name}; "
            "take a pattern out",
            key="frozen",
        )
    return frozenset(found)


def _within(name: str) -> Iterator[str]:
    """A name and the names of all modules around it: ``stages.0.1.expand.conv.weight``, ``stages.0.1.expand.conv``, ..., ``stages``."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _near(pattern: str, places: Sequence[str]) -> str:
    close = difflib.get_close_matches(pattern.strip("*."), places, n=_NEAR, cutoff=0.5)
    known = [place for place in places if "." not in place]
    return f"{f'near are {_quoted(close)}; ' if close else ''}all layers are in {_quoted(known)}"


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
