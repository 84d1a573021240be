"""Files, rows and items that lie beside a set's images but are left out of the set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

__all__ = ["LeftOut", "LeftOutKind", "left_out_sentences"]

LeftOutKind = Literal["unreadable", "no image", "no class", "hidden"]


class LeftOut(NamedTuple):
    """One file, row or item that is left out of a set.

    Attributes:
        name: name by which a person finds it.
        reason: the reason, in few words.
        kind: ``unreadable`` is an image that cannot be read; ``no image`` a file of another kind; ``no class`` an image or a folder that
            belongs to no class; ``hidden`` a hidden file, or one that systems create for themselves.
    """

    name: str
    reason: str
    kind: LeftOutKind = "unreadable"


_SAID: dict[LeftOutKind, tuple[str, str]] = {
    "unreadable": ("1 image cannot be read and is skipped", "{} images cannot be read and are skipped"),
    "no image": ("1 file is no image", "{} files are no images"),
    "no class": ("1 image or folder belongs to no class", "{} images or folders belong to no class"),
    "hidden": ("1 file is hidden", "{} files are hidden"),
}


def left_out_sentences(left_out: Sequence[LeftOut], *, names: int = 3) -> tuple[str, ...]:
    """One sentence for each kind of file that is left out, with its count and the first ``names`` names."""
    said = []
    for kind, (one, many) in _SAID.items():
        found = [each for each in left_out if each.kind == kind]
        if found:
            reasons = (f"{each.name} ({each.reason})" if kind in ("unreadable", "no class") else each.name for each in found[:names])
            said.append(
                f"{one if len(found) == 1 else many.format(len(found))}: {', '.join(reasons)}{' ...' if len(found) > names else ''}"
            )
    return tuple(said)
