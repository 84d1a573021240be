"""Deriving spaces from spaces: other resolutions, other image channels, fewer choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from ofa.arch import Arch
from ofa.blocks import empty_network
from ofa.choices import Number, Stage
from ofa.errors import SpaceError
from ofa.families.lowering import lower
from ofa.resolution import Resolution, ascending, pixels, sides
from ofa.space import Space

__all__ = ["check_computes", "derive"]


def derive(
    space: Space,
    name: str,
    *,
    resolutions: Sequence[Resolution] | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    keep: Mapping[str, Sequence[Number]] | None = None,
) -> Space:
    """Derive a space from another.

    Args:
        space: the original.
        name: of the new space; it must differ from the original's unless the networks are the same.
        resolutions: of the input in pixels, with sides of at least 1; None for the original's.
        in_channels: channels of the images; None for the original's.
        num_classes: number of logits; None for the original's. Spaces that differ only in this number may have the same name.
        keep: values to keep, by gene name or ``depth``; genes that are not named keep all values.

    Raises:
        SpaceError: ``space`` lacks a gene or value, a network cannot run at a resolution, or the name is the original's.
    """
    kept = dict(keep or {})
    depths = kept.pop("depth", None)
    if depths is not None:
        _check_depths(space, depths)
    genes: dict[str, Any] = dict(kept)
    made = space.restrict(**genes)
    made = replace(
        made,
        name=name,
        resolutions=made.resolutions if resolutions is None else ascending(resolutions),
        stages=made.stages if depths is None else tuple(_shortened(stage, depths, space.name) for stage in made.stages),
        in_channels=space.in_channels if in_channels is None else in_channels,
        num_classes=space.num_classes if num_classes is None else num_classes,
    )
    if name == space.name and replace(made, num_classes=space.num_classes) != space:
        raise SpaceError(
            f"a space with other networks than {space.name} must have another name, because archs and tables refer to spaces by name, but "
            "it has the same; choose a new name"
        )
    check_computes(made)
    return made


def _check_depths(space: Space, depths: Sequence[Number]) -> None:
    known = sorted({depth for stage in space.stages for depth in stage.depths})
    if not set(depths) <= set(known):
        raise SpaceError(f"depth must keep some of {known} in {space.name}, but got {list(depths)}; choose among them")


def _shortened(stage: Stage, depths: Sequence[Number], name: str) -> Stage:
    # A stage with a single depth has no choice, so it is kept.
    kept = tuple(depth for depth in stage.depths if depth in depths) if len(stage.depths) > 1 else stage.depths
    if not kept:
        raise SpaceError(f"depth must keep some of {list(stage.depths)} in each stage of {name}, but got {list(depths)}; choose among them")
    return replace(stage, depths=kept)


@lru_cache(maxsize=64)
def check_computes(space: Space) -> None:
    """Check that the smallest and the largest network run at the extreme resolutions, on the meta device.

    Raises:
        SpaceError: a network does not run, or does not return [1, num_classes].
    """
    lowest, narrowest = min(space.resolutions, key=sides), min(space.resolutions, key=lambda each: sides(each)[1])
    for resolution in dict.fromkeys((space.resolutions[0], lowest, narrowest, space.resolutions[-1])):
        for arch in (space.smallest(resolution), space.largest(resolution)):
            _check_computes(space, arch)


def _check_computes(space: Space, arch: Arch) -> None:
    network = empty_network(lower(space, arch)).eval()
    x_BCHW = torch.empty(1, space.in_channels, *sides(arch.resolution), device="meta")
    try:
        found = tuple(network(x_BCHW).shape)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SpaceError(
            f"every network of {space.name} must accept an image of {pixels(arch.resolution)}, but {arch.in_words} does not: {reason}; "
            "choose larger resolutions"
        ) from error
    if found != (1, space.num_classes):
        raise SpaceError(
            f"every network of {space.name} must return a logit for each of {space.num_classes} classes, but {arch.in_words} returns a "
            f"tensor of shape {list(found)}; correct {type(space).__name__}.lower"
        )
