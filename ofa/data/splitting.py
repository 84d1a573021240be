"""Random stratified splits of a set of images; images of equal content stay together.

Shapes: N images of a set, G distinct ones of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ofa.data.images import Images
from ofa.data.labels import members_of, strata
from ofa.errors import DataError

__all__ = ["split", "split_indices", "whole_keys"]

AnyImages = TypeVar("AnyImages", bound=Images)
WholeKeys = np.ndarray[Any, np.dtype[np.void]]


def split(data: AnyImages, fractions: Sequence[float], generator: torch.Generator) -> tuple[AnyImages, ...]:
    """Split a data set at random into parts, stratified by class.

    An image with several classes counts as its rarest class; a class with too few images for all parts goes to the first part. Images of
    equal content go to the same part, so that no image is both trained and tested on. Unless mean and std were given for ``data``, all
    parts have the normalization of the first part, so that training on it uses no information about test images.

    Args:
        data: the set to split.
        fractions: share of each part, each above 0, together at most 1.
        generator: draws the split.

    Returns:
        The parts.

    Raises:
        DataError: impossible fractions, or (with one class per image) a class with fewer different images than there are parts.
    """
    chosen = split_indices(data, fractions, generator)
    normalization = data.pick(chosen[0]).normalization
    return tuple(data.pick(index).normalized(normalization) for index in chosen)


def split_indices(data: Images, fractions: Sequence[float], generator: torch.Generator) -> tuple[Tensor, ...]:
    """The indices (int64) of the images in each part, in the part's order; arguments and errors as of ``split``."""
    if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise DataError(f"the fractions of a split must be positive and sum to at most 1, but are {list(fractions)}; try 0.7, 0.15, 0.15")
    leaders = _leaders(data.keys)
    chosen: list[list[Tensor]] = [[] for _ in fractions]
    labels = strata(data.labels)
    for label in torch.unique(labels).tolist():
        members = members_of(labels, label)
        groups = members[leaders[members] == members]
        if len(groups) < len(fractions) and data.labels.ndim == 2:
            chosen[0].append(groups)
            continue
        if len(groups) < len(fractions):
            raise DataError(
                f"each class must have an image for each of the {len(fractions)} parts, but '{data.class_names[label]}' has "
                f"{_count(len(groups), len(members))}; add images or leave the class out"
            )
        groups = groups[torch.randperm(len(groups), generator=generator)]
        sizes = torch.bincount(leaders[members], minlength=len(data))[groups]
        for part, (start, stop) in enumerate(pairwise(_cuts(sizes, fractions))):
            chosen[part].append(groups[start:stop])
    if not all(chosen):
        raise DataError(f"a data set must have images for each of the {len(fractions)} parts, but has {len(data)} in all; add images")
    part_N = torch.full((len(data),), -1)
    for part, found in enumerate(chosen):
        part_N[torch.cat(found)] = part
    followers = torch.nonzero(leaders != torch.arange(len(data))).flatten()
    for part, found in enumerate(chosen):
        found.append(followers[part_N[leaders[followers]] == part])
    return tuple(torch.cat(part)[torch.randperm(sum(map(len, part)), generator=generator)] for part in chosen)


def whole_keys(keys: Tensor | np.ndarray[Any, np.dtype[np.uint8]]) -> WholeKeys:
    """Keys as single values that NumPy can sort and compare.

    Args:
        keys: uint8 [N, 16].

    Returns:
        void [N], 16 bytes each.
    """
    array = np.ascontiguousarray(keys)
    return array.view(f"V{array.shape[1]}").ravel()


def _leaders(keys: Tensor) -> Tensor:
    """int64 [N]: for each image, the first image of equal content, which may be itself."""
    _, first, inverse = np.unique(whole_keys(keys), return_index=True, return_inverse=True)
    return torch.from_numpy(first[inverse])


def _count(different: int, total: int) -> str:
    return f"{total} in all" if different == total else f"{different} different ones among {total}"


def _cuts(sizes_G: Tensor, fractions: Sequence[float]) -> list[int]:
    """Positions that cut groups of images such that each part gets its share of images, up to rounding, and at least one group."""
    reached = sizes_G.cumsum(0)
    total, cuts = int(reached[-1]), [0]
    for position, share in enumerate(accumulate(fractions)):
        left = len(fractions) - 1 - position
        wanted = int(torch.searchsorted(reached, round(share * total), right=True))
        cuts.append(max(cuts[-1] + 1, min(wanted, len(sizes_G) - left)))
    return cuts
