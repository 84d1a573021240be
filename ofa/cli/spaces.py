"""Options for resolutions, and for spaces of a user's own class: files contain spaces, but never code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ofa.resolution import Resolution
    from ofa.space import Space

__all__ = ["OwnSpaceOption", "TrustOption", "check_named", "named", "parse_resolution_option", "parse_resolutions"]

OwnSpaceOption = Annotated[
    str | None,
    typer.Option("--space", metavar="SPACE", help="Its space as module:attribute, needed only if the class is your own."),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Also import module:attribute names in the recipe or run, not only the ones that you type.")
]


def parse_resolutions(text: str) -> list[Resolution]:
    """The resolutions of an option such as ``24,32x24``, in pixels."""
    from ofa.errors import SpaceError
    from ofa.resolution import parse_resolution

    try:
        return [parse_resolution(part) for part in text.split(",")]
    except SpaceError as error:
        raise typer.BadParameter(
            f"resolutions must be pixels separated by commas, but got '{text}'; write for example 24,32, or 32x24 for height x width."
        ) from error


def parse_resolution_option(text: str) -> Resolution:
    """The one resolution of an option such as ``24`` or ``32x24``."""
    found = parse_resolutions(text)
    if len(found) > 1:
        raise typer.BadParameter(f"there must be one resolution, but got '{text}'; write for example 24, or 32x24 for height x width.")
    return found[0]


def named(text: str | None) -> Space | None:
    """The space that the user named, if any. Its class is imported, so that files of it can be read.

    Raises:
        OfaError: there is no such space.
    """
    from ofa.training.spaces import find_space

    return None if text is None else find_space(text)


def check_named(wanted: Space | None, found: Space, source: str) -> None:
    """Check that a file is of the space that the user named.

    Args:
        wanted: the named space; None for none.
        found: the space of the file.
        source: words for the file.

    Raises:
        SpaceError: the file is of another space.
    """
    from ofa.errors import SpaceError

    if wanted is None or found.is_part_of(wanted, any_classes=True):
        return
    same = f", which is another of the name {found.name}" if wanted.name == found.name else f" {found.name}"
    raise SpaceError(
        f"{source} must be of the space that is named, {wanted.name}, but is of the space{same}; leave out --space, or correct it"
    )
