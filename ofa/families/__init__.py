"""The families of networks, the named spaces, and the lowering of an arch to the blocks it is built of.

A new family is one file with a space class, a function ``lower(space, arch)`` and its named spaces, entered below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ofa.arch import Arch
from ofa.blocks import PlacedBlock
from ofa.errors import SpaceError, nearest
from ofa.families import mobilenet_v3, proxyless, resnet
from ofa.families.mobilenet_v3 import MobileNetV3Space
from ofa.families.proxyless import ProxylessSpace
from ofa.families.resnet import ResNetSpace
from ofa.space import Space

__all__ = ["MobileNetV3Space", "ProxylessSpace", "ResNetSpace", "get_space", "lower", "space_names"]

_LOWERINGS: dict[type[Space], Callable[[Any, Arch], tuple[PlacedBlock, ...]]] = {
    MobileNetV3Space: mobilenet_v3.lower,
    ProxylessSpace: proxyless.lower,
    ResNetSpace: resnet.lower,
}

_SPACES: dict[str, Space] = {space.name: space for module in (mobilenet_v3, proxyless, resnet) for space in module.SPACES}


def space_names() -> tuple[str, ...]:
    """The names that ``get_space`` knows."""
    return tuple(_SPACES)


def get_space(name: str, num_classes: int | None = None) -> Space:
    """The space of that name, for ``num_classes`` classes (its own number by default).

    Raises:
        SpaceError: there is no such space; the message suggests the nearest.
    """
    if name not in _SPACES:
        raise SpaceError(f"'{name}' must be the name of a space; {nearest(name, _SPACES)}")
    space = _SPACES[name]
    return space if num_classes is None else replace(space, num_classes=num_classes)


@lru_cache(maxsize=4096)
def lower(space: Space, arch: Arch) -> tuple[PlacedBlock, ...]:
    """The placed blocks that ``arch`` is built of, from the image to the logits.

    Raises:
        ArchError: ``arch`` is not a point of ``space``.
        SpaceError: the space is of no known family.
    """
    space.check(arch)
    lowering = _LOWERINGS.get(type(space))
    if lowering is None:
        raise SpaceError(
            f"a space must be of a known family, but {space.name} is a {type(space).__name__}; enter its lowering in ofa.families"
        )
    return lowering(space, arch)
