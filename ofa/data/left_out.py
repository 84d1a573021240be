"""What a data set does not contain although it lies where its images lie."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["LeftOut", "LeftOutKind"]

LeftOutKind = Literal["unreadable", "no image", "no class", "hidden"]


class LeftOut(NamedTuple):
    """One file, row or item that is not among the images of a set.

    Attributes:
        name: what a person finds it by.
        reason: why, in few words.
        kind: ``unreadable`` is an image that cannot be read; ``no image`` a file of another kind; ``no class`` an image or a folder that
            belongs to no class; ``hidden`` a file that systems and programs keep for themselves.
    """

    name: str
    reason: str
    kind: LeftOutKind = "unreadable"
