"""Families of networks and named spaces; look-up of spaces by name, file or ``module:attribute``; space and arch files.

A new family is one file with a space class, whose ``lower`` returns the blocks of an arch, and with its named spaces, entered below. A
user-defined class needs no entry: name it as ``module:attribute``, or register it from its package (``SPACES``).
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
"""The named spaces. A registered space must have the name under which it is registered; files carry it whole, as readers may lack its
package."""
_ATTRIBUTE = re.compile(r"[\w.]+:[\w.]+")


def space_names() -> tuple[str, ...]:
    """The names that ``get_space`` accepts."""
    return SPACES.names()


def get_space(text: str, num_classes: int | None = None) -> Space:
    """Find a space by name, file or ``module:attribute``.

    Args:
        text: a name of ``space_names``; the path of a space file (``Space.save``, ``ofa space -o``); or ``module:attribute`` of a space
            or of a function without arguments that returns one, which is imported unless it is a ``FromFile``. For names that come from
            files, see ``stored_space``.
        num_classes: number of logits; None for the space's own.

    Raises:
        SpaceError: there is no such space (the message suggests the closest name), or the file or attribute is no valid space.
        FileError: the file cannot be read.
        TrustError: ``module:attribute`` comes from a file.
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
    """Whether ``get_space`` takes a text as the path of a file."""
    return text not in SPACES and (text.endswith(".json") or os.path.isfile(text))


def named_space(name: str, num_classes: int | None = None) -> Space:
    """Find a space by its name only, for names that come from files: no file is read, and no module named in ``name`` is imported.

    Args:
        name: one of ``space_names``.
        num_classes: number of logits; None for the space's own.

    Raises:
        SpaceError: there is no such space.
    """
    if name not in SPACES:
        raise SpaceError(
            f"'{name}' must be the name of a space that comes with ofa, because the file does not carry the space itself; name the space "
            f"with --space, or correct the name: {nearest(name, SPACES)}"
        )
    return _with_classes(SPACES.get(name), num_classes)


def stored_space(carried: Any, name: str, num_classes: int | None, source: str) -> Space:
    """The space of a file's content; nothing is imported.

    Args:
        carried: JSON values of the space in the file (``Space.to_json``); None for files of earlier versions, which only name it.
        name: the space's name in the file.
        num_classes: number of logits in the file; None for the space's own.
        source: the file in words, for messages.

    Raises:
        SpaceError: the name is unknown and no space is carried; or the space carried has another name or cannot be read.
    """
    if carried is None:
        return named_space(name, num_classes)
    space = Space.from_json(carried, source)
    if space.name != name:
        raise SpaceError(f"{source} must carry the space that it names, but names {name} and carries {space.name}; write it again")
    return _with_classes(space, num_classes)


def whole_of(space: Space) -> Space:
    """The named space of which ``space`` is a restriction, with the same number of classes; ``space`` itself if there is none."""
    if space.name not in SPACES or not space.is_part_of(SPACES.get(space.name), any_classes=True):
        return space
    return replace(SPACES.get(space.name), num_classes=space.num_classes)


def space_argument(space: Space) -> str:
    """The argument that names a space in a command: its name, or ``NAME.space.json`` as a placeholder for the path of its file."""
    return space.name if space.name in SPACES else f"{space.name}.space.json"


def save_arch(arch: Arch, space: Space, path: str | os.PathLike[str]) -> None:
    """Write an arch as a JSON file, which carries its space unless the space comes with ofa.

    Args:
        arch: a point of ``space``.
        space: the space.
        path: of the file.

    Raises:
        FileError: the file cannot be written.
    """
    write_json(arch.to_json() if space.name in SPACES.own else {**arch.to_json(), SPACE_KEY: space.to_json()}, path)


def load_arch(path: str | os.PathLike[str], space: Space) -> Arch:
    """Read an arch and check that it is a point of a space.

    Args:
        path: of the file.
        space: the space.

    Raises:
        FileError: the file cannot be read.
        ArchError: the file is no arch, or an arch of another space.
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
            f"an arch must be of the space that it is used in, but the arch of {source} is of another space with the same name, "
            f"{space.name}; take an arch of this space, and give spaces different names"
        )


def _checked(space: Space, text: str) -> Space:
    """Check a user-defined space: its name is not taken, and its networks run."""
    check_name(space, f"'{text}'")
    check_computes(space)
    return space


def _registered(name: str) -> Space:
    space = SPACES.get(name)
    if space.name != name:
        raise SpaceError(f"a space must be registered under its own name, but '{name}' is called {space.name}; register it under that name")
    check_computes(space)
    return space


def _with_classes(space: Space, num_classes: int | None) -> Space:
    return space if num_classes is None or num_classes == space.num_classes else replace(space, num_classes=num_classes)


def check_name(space: Space, source: str) -> None:
    """Check that a user-defined space does not have the name of a different named space, because archs, tables and weights state the name.

    Args:
        space: a user-defined space.
        source: its origin in words, for messages.

    Raises:
        SpaceError: a named space has the same name and other networks.
    """
    if space.name in SPACES and _with_classes(space, SPACES.get(space.name).num_classes) != SPACES.get(space.name):
        raise SpaceError(
            f"a space must not have the name of a different named space, but {source} is called {space.name} and has other networks; "
            "rename it"
        )
