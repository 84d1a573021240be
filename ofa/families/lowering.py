"""Lowering: from an arch to its blocks, by the space's own ``lower``, checked and cached."""

from __future__ import annotations

from functools import lru_cache

from ofa.arch import Arch
from ofa.blocks import PlacedBlock, Shape, last_readers, sources, with_liveness
from ofa.errors import OfaError, SpaceError
from ofa.families.placing import input_shape
from ofa.space import Space

__all__ = ["lower"]


@lru_cache(maxsize=4096)
def lower(space: Space, arch: Arch) -> tuple[PlacedBlock, ...]:
    """The blocks of ``arch`` with their places, from the image to the logits.

    Args:
        space: the space.
        arch: a point of the space.

    Raises:
        ArchError: ``arch`` is not a point of ``space``.
        SpaceError: the space's ``lower`` fails, or shapes of its blocks do not match.
    """
    space.check(arch)
    try:
        placed = tuple(space.lower(arch))
    except OfaError:
        raise
    except Exception as error:  # user code may fail in any way
        raise SpaceError(
            f"a space must return the blocks of each of its archs, but for {arch.in_words} of {space.name} its class raised "
            f"{type(error).__name__}: {error}; correct {type(space).__name__}.lower"
        ) from error
    _check_wiring(space, arch, placed)
    return with_liveness(placed) if any(each.inputs for each in placed) else placed


def _check_wiring(space: Space, arch: Arch, placed: tuple[PlacedBlock, ...]) -> None:
    """Check that the shapes of connected blocks match, which is not certain for a user-defined class."""
    wrong = next((each for each in placed if not isinstance(each, PlacedBlock)), None)
    if wrong is not None or not placed:
        raise _unfit(space, "a tuple of PlacedBlock", "got nothing" if wrong is None else f"got {type(wrong).__name__}")
    first, last = placed[0], placed[-1]
    ends = {
        "begin with the image": (_taken(first).words, input_shape(space, arch).words),
        "end with one logit per class": (last.block.out_channels, space.num_classes),
        "have places with different names": (len({each.name for each in placed}), len(placed)),
    }
    for rule, (found, wanted) in ends.items():
        if found != wanted:
            raise _unfit(space, f"blocks that {rule}", f"found {found} instead of {wanted}")
    given: dict[str, Shape] = {}
    for each, names in zip(placed, sources(placed), strict=True):
        for name in names:
            if name not in given:
                raise _unfit(space, "blocks that read earlier blocks", f"{each.name} reads {name}, which is no earlier block")
            if given[name] != each.input or each.input.channels != each.block.in_channels:
                taken = _taken(each).words
                raise _unfit(space, "blocks with matching shapes", f"{name} gives {given[name].words} and {each.name} takes {taken}")
        given[each.name] = each.block.output(each.input)
    unread = given.keys() - last_readers(placed).keys() - {last.name}
    if unread:
        raise _unfit(space, "blocks that others read", f"nothing reads {min(unread)}")


def _taken(placed: PlacedBlock) -> Shape:
    return placed.input.of_channels(placed.block.in_channels)


def _unfit(space: Space, rule: str, found: str) -> SpaceError:
    return SpaceError(f"the networks of {space.name} must be {rule}, but {found}; correct {type(space).__name__}.lower")
