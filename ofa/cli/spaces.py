"""Resolutions as options, and the option by which commands are told a space of one's own class: files carry spaces, but never code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ofa.resolution import Resolution
    from ofa.space import Space

__all__ = ["OwnSpaceOption", "TrustOption", "check_named", "named", "parse_resolution_option", "parse_resolutions"]

OwnSpaceOption = Annotated[
    str | None,
    typer.Option("--space", metavar="SPACE", help="Its space again, needed only where the class is your own: module:attribute."),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Import the module:attribute that the recipe or run names; otherwise only what you type is.")
]


def parse_resolutions(text: str) -> list[Resolution]:
    """The resolutions of an option such as ``24,32x24``, in pixels."""
    from ofa.errors import SpaceError
    from ofa.resolution import parse_resolution

    try:
        return [parse_resolution(part) for part in text.split(",")]
    except SpaceError as error:
        raise typer.BadParameter(
            f"resolutions must be pixels with commas between, but got '{text}'; write for example 24,32, or 32x24 for height x width."
        ) from error


def parse_resolution_option(text: str) -> Resolution:
    """The one resolution of an option such as ``24`` or ``32x24``."""
    found = parse_resolutions(text)
    if len(found) > 1:
        raise typer.BadParameter(f"there must be one resolution, but got '{text}'; write for example 24, or 32x24 for height x width.")
    return found[0]


def named(text: str | None) -> Space | None:
    """The space that the user named, if one was named; its class is known from then on, so that files of it can be read.

    Raises:
        OfaError: there is none.
    """
    from ofa.training.spaces import find_space

    return None if text is None else find_space(text)


def check_named(wanted: Space | None, found: Space, source: str) -> None:
    """Hold a file against what the user named.

    Args:
        wanted: what was named; None for nothing.
        found: what the file is of.
        source: words for the file.

    Raises:
        SpaceError: it is of another space.
    """
    from ofa.errors import SpaceError

    if wanted is None or found.is_part_of(wanted, any_classes=True):
        return
    same = f", which is another of the name {found.name}" if wanted.name == found.name else f" {found.name}"
    raise SpaceError(
        f"{source} must be of the space that is named, {wanted.name}, but is of the space{same}; leave out --space, or correct it"
    )
