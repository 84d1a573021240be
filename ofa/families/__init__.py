"""The families of networks, the named spaces, finding a space by what somebody typed, and the blocks that an arch is built of.

A new family is one file with a space class, whose ``lower`` says what an arch is built of, and its named spaces, entered below. A
class of one's own needs no entry: it is named as ``module:attribute``, or its package registers it (``SPACES``).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

from ofa.arch import SPACE_KEY, Arch
from ofa.errors import ArchError, SpaceError, nearest
from ofa.families import mobilenet_v3, mobilenet_v4, proxyless, resnet, vit
from ofa.families.adopted import AdoptedSpace
from ofa.families.deriving import check_computes, derive
from ofa.families.importing import import_space
from ofa.families.lowering import lower
from ofa.families.mobilenet_v3 import MobileNetV3Space
from ofa.families.mobilenet_v4 import MobileNetV4Space
from ofa.families.proxyless import ProxylessSpace
from ofa.families.resnet import ResNetSpace
from ofa.families.vit import VisionTransformerSpace
from ofa.files import write_json
from ofa.reading import read_json
from ofa.registry import Registry
from ofa.space import Space

__all__ = [
    "SPACES",
    "AdoptedSpace",
    "MobileNetV3Space",
    "MobileNetV4Space",
    "ProxylessSpace",
    "ResNetSpace",
    "Space",
    "VisionTransformerSpace",
    "check_name",
    "derive",
    "get_space",
    "is_space_file",
    "load_arch",
    "lower",
    "named_space",
    "save_arch",
    "space_argument",
    "space_names",
    "stored_space",
    "whole_of",
]

SPACES: Registry[Space] = Registry(
    "space",
    group="ofa.spaces",
    error=SpaceError,
    entries={space.name: space for module in (mobilenet_v3, proxyless, resnet, mobilenet_v4, vit) for space in module.SPACES},
    valid=lambda entry: isinstance(entry, Space),
    must_be="a Space",
)
"""The named spaces. A space of one's own is registered under its own name; files carry it, as others may lack its package."""
_ATTRIBUTE = re.compile(r"[\w.]+:[\w.]+")


def space_names() -> tuple[str, ...]:
    """The names that ``get_space`` knows."""
    return SPACES.names()


def get_space(text: str, num_classes: int | None = None) -> Space:
    """The space that somebody names, for ``num_classes`` classes (its own number by default).

    Args:
        text: a name of ``space_names``, the path of a space file (``Space.save``, ``ofa space -o``), or ``module:attribute``, which is
            imported unless it is a ``FromFile``: a space, or a function without arguments that makes one. What a file holds is for
            ``stored_space``.
        num_classes: length of the logits.

    Raises:
        SpaceError: there is no such space; the message suggests the nearest. Or what is there is none.
        FileError: the file cannot be read.
        TrustError: a file says ``module:attribute``.
    """
    if text in SPACES:
        space = SPACES.get(text) if text in SPACES.own else _registered(text)
    elif is_space_file(text):
        space = _checked(Space.load(text), text)
    elif _ATTRIBUTE.fullmatch(text):
        space = _checked(import_space(text), text)
    else:
        raise SpaceError(
            f"'{text}' must be the name of a space, the path of a space file (.json) or module:attribute; {nearest(text, SPACES)}"
        )
    return _with_classes(space, num_classes)


def is_space_file(text: str) -> bool:
    """Whether a text that names a space is taken as the path of a file."""
    return text not in SPACES and (text.endswith(".json") or os.path.isfile(text))


def named_space(name: str, num_classes: int | None = None) -> Space:
    """The space of that name alone, for names that come from files: nothing is imported, no file is read; errors as ``get_space``."""
    if name not in SPACES:
        raise SpaceError(
            f"'{name}' must be the name of a space that comes with ofa, because the file does not carry the space itself; give it "
            f"with --space, or correct the name: {nearest(name, SPACES)}"
        )
    return _with_classes(SPACES.get(name), num_classes)


def stored_space(carried: Any, name: str, num_classes: int | None, source: str) -> Space:
    """The space of what a file holds; nothing is imported.

    Args:
        carried: the space that the file carries (``Space.to_json``); None for files of earlier versions, which only name it.
        name: the space's name as the file says it.
        num_classes: of what the file holds; None for the space's own number.
        source: words for the file.

    Raises:
        SpaceError: it carries none and the name is unknown, or carries another space than it names, or one that cannot be read here.
    """
    if carried is None:
        return named_space(name, num_classes)
    space = Space.from_json(carried, source)
    if space.name != name:
        raise SpaceError(f"{source} must carry the space that it names, but names {name} and carries {space.name}; write it anew")
    return _with_classes(space, num_classes)


def whole_of(space: Space) -> Space:
    """The named space that a space is a part of, for as many classes; else the space itself."""
    if space.name not in SPACES or not space.is_part_of(SPACES.get(space.name), any_classes=True):
        return space
    return replace(SPACES.get(space.name), num_classes=space.num_classes)


def space_argument(space: Space) -> str:
    """What to type for a space in a command: its name, or for one of one's own a place to put the path of its file."""
    return space.name if space.name in SPACES else f"{space.name}.space.json"


def save_arch(arch: Arch, space: Space, path: str | os.PathLike[str]) -> None:
    """Write an arch as a JSON file that carries its space, unless the name tells it.

    Raises:
        FileError: the folder cannot be written.
    """
    write_json(arch.to_json() if space.name in SPACES.own else {**arch.to_json(), SPACE_KEY: space.to_json()}, path)


def load_arch(path: str | os.PathLike[str], space: Space) -> Arch:
    """Read an arch for a space.

    Raises:
        FileError: the file cannot be read.
        ArchError: it is no arch, or one of another space.
    """
    value = read_json(path)
    arch = Arch.from_json(value)
    if SPACE_KEY in value and arch.space == space.name:
        _check_carried(value[SPACE_KEY], space, f"'{path}'")
    space.check(arch)
    return arch


def _check_carried(value: Any, space: Space, source: str) -> None:
    if not Space.from_json(value, source).is_part_of(space, any_classes=True):
        raise ArchError(
            f"an arch must be of the space that it is used in, but the one of {source} is of another that is called {space.name} too; take "
            "an arch of this space, and give spaces names of their own"
        )


def _checked(space: Space, text: str) -> Space:
    """A space of one's own, if its networks compute and its name is its own."""
    check_name(space, f"'{text}'")
    check_computes(space)
    return space


def _registered(name: str) -> Space:
    space = SPACES.get(name)
    if space.name != name:
        raise SpaceError(f"a space must be registered under its own name, but '{name}' is called {space.name}; register it as that")
    check_computes(space)
    return space


def _with_classes(space: Space, num_classes: int | None) -> Space:
    return space if num_classes is None or num_classes == space.num_classes else replace(space, num_classes=num_classes)


def check_name(space: Space, source: str) -> None:
    """Raise SpaceError if a space has the name of one of ofa's and other networks: archs, tables and weights say the name.

    Args:
        space: a space of one's own.
        source: words for where it comes from.
    """
    if space.name in SPACES and _with_classes(space, SPACES.get(space.name).num_classes) != SPACES.get(space.name):
        raise SpaceError(
            f"a space of one's own must have a name of its own, but {source} has other networks than {space.name} and is called so too; "
            "rename it"
        )
