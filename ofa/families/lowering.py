"""From an arch to the blocks that it is built of: what a space says, checked and remembered."""

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
    """The placed blocks that ``arch`` is built of, from the image to the logits.

    Raises:
        ArchError: ``arch`` is not a point of ``space``.
        SpaceError: the space does not say what its archs are built of, or its blocks do not fit each other.
    """
    space.check(arch)
    try:
        placed = tuple(space.lower(arch))
    except OfaError:
        raise
    except Exception as error:  # a class of one's own may fail in any way
        raise SpaceError(
            f"a space must say what each of its archs is built of, but for {arch.in_words} of {space.name} its class met "
            f"{type(error).__name__}: {error}; correct {type(space).__name__}.lower"
        ) from error
    _check_wiring(space, arch, placed)
    return with_liveness(placed) if any(each.inputs for each in placed) else placed


def _check_wiring(space: Space, arch: Arch, placed: tuple[PlacedBlock, ...]) -> None:
    """Whether every block fits those that feed it, which for a class of one's own is not certain."""
    wrong = next((each for each in placed if not isinstance(each, PlacedBlock)), None)
    if wrong is not None or not placed:
        raise _unfit(space, "a tuple of PlacedBlock", "got nothing" if wrong is None else f"got {type(wrong).__name__}")
    first, last = placed[0], placed[-1]
    ends = {
        "begin with the image": (_taken(first).words, input_shape(space, arch).words),
        "end with a logit a class": (last.block.out_channels, space.num_classes),
        "be at places of different names": (len({each.name for each in placed}), len(placed)),
    }
    for rule, (found, wanted) in ends.items():
        if found != wanted:
            raise _unfit(space, f"blocks that {rule}", f"there are {found} where {wanted} must be")
    given: dict[str, Shape] = {}
    for each, names in zip(placed, sources(placed), strict=True):
        for name in names:
            if name not in given:
                raise _unfit(space, "blocks that read blocks before them", f"{each.name} reads {name}, which is none")
            if given[name] != each.input or each.input.channels != each.block.in_channels:
                taken = _taken(each).words
                raise _unfit(space, "blocks that fit each other", f"{name} gives {given[name].words} and {each.name} takes {taken}")
        given[each.name] = each.block.output(each.input)
    unread = given.keys() - last_readers(placed).keys() - {last.name}
    if unread:
        raise _unfit(space, "blocks that others read", f"nothing reads {min(unread)}")


def _taken(placed: PlacedBlock) -> Shape:
    return placed.input.of_channels(placed.block.in_channels)


def _unfit(space: Space, rule: str, found: str) -> SpaceError:
    return SpaceError(f"what {space.name} is built of must be {rule}, but {found}; correct {type(space).__name__}.lower")
