"""Matches present images with a run's recorded images by content alone; by sorting, so that a million images take seconds.

Shapes: R recorded images, P present ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa.arrays import Integers
from ofa.data.splitting import whole_keys
from ofa.training.record import Bytes

__all__ = ["Match", "match_images", "parts_of_new"]


@dataclass(frozen=True, eq=False)
class Match:
    """Correspondence of recorded and present images.

    Attributes:
        present_R: int64 [R], the present image for each recorded one; -1 where it is gone.
        relabelled_R: bool [R], whether the recorded image is present under another class.
        known_P: int64 [P], a recorded image of the same content as the present one; -1 where the content is new.
        added_P: bool [P], whether the present image is matched with no recorded one: its content is new, or it is an additional copy.
    """

    present_R: Integers
    relabelled_R: np.ndarray[tuple[int], np.dtype[np.bool_]]
    known_P: Integers
    added_P: np.ndarray[tuple[int], np.dtype[np.bool_]]


def match_images(keys_R: Bytes, labels_R: Integers, keys_P: Bytes, labels_P: Integers) -> Match:
    """Match images one to one: first images of equal content and class, then of equal content.

    Args:
        keys_R: uint8 [R, 16], keys of the recorded images.
        labels_R: int64 [R], their labels.
        keys_P: uint8 [P, 16], keys of the present images.
        labels_P: int64 [P], their labels by the recorded class numbers; unknown classes have any other numbers.
    """
    _, contents = np.unique(whole_keys(np.concatenate([keys_R, keys_P])), return_inverse=True)
    labels = np.concatenate([labels_R, labels_P])
    _, pairs = np.unique(contents * (labels.max(initial=0) + 2) + labels, return_inverse=True)
    count = len(keys_R)
    present_R = _paired(pairs[:count], pairs[count:])
    lost_R = np.flatnonzero(present_R < 0)
    free_P = np.setdiff1d(np.arange(len(keys_P)), present_R)
    found = _paired(contents[:count][lost_R], contents[count:][free_P])
    moved_R = lost_R[found >= 0]
    present_R[moved_R] = free_P[found[found >= 0]]
    relabelled_R, added_P = np.zeros(count, bool), np.ones(len(keys_P), bool)
    relabelled_R[moved_R] = True
    added_P[present_R[present_R >= 0]] = False
    return Match(present_R, relabelled_R, _first_of(contents[:count], contents[count:]), added_P)


def parts_of_new(keys: Bytes, fractions: tuple[float, ...]) -> Integers:
    """The part of each new image, derived from its content alone: the same on any machine and whatever other images there are.

    Args:
        keys: uint8 [N, 16], hashes of contents, so that their values are uniform.
        fractions: share of each part.

    Returns:
        int64 [N] in 0..len(fractions); len(fractions) is an image that the fractions leave unused.
    """
    share_N = np.ascontiguousarray(keys[:, :8]).view(">u8").ravel().astype(np.float64) / 2.0**64
    total = np.cumsum(fractions)
    if total[-1] > 1 - 1e-9:
        total[-1] = np.inf
    return np.searchsorted(total, share_N, side="right")


def _paired(wanted: Integers, offered: Integers) -> Integers:
    """For the k-th occurrence of each value in ``wanted``, the position of its k-th occurrence in ``offered``; -1 without one."""
    both = np.concatenate([wanted, offered])
    rank = np.concatenate([_ranks(wanted), _ranks(offered)])
    tickets = both * (rank.max(initial=0) + 1) + rank
    mine, theirs = tickets[: len(wanted)], tickets[len(wanted) :]
    order = np.argsort(theirs)
    return _looked_up(mine, theirs[order], order)


def _first_of(wanted: Integers, searching: Integers) -> Integers:
    """For each value in ``searching``, the position of the first equal value in ``wanted``; -1 without one."""
    order = np.argsort(wanted, kind="stable")
    return _looked_up(searching, wanted[order], order)


def _looked_up(values: Integers, rising: Integers, positions: Integers) -> Integers:
    if not len(rising):
        return np.full(len(values), -1)
    place = np.minimum(np.searchsorted(rising, values), len(rising) - 1)
    return np.where(rising[place] == values, positions[place], -1)


def _ranks(values: Integers) -> Integers:
    """For each value, how many equal values precede it."""
    order = np.argsort(values, kind="stable")
    rising = values[order]
    starts = np.flatnonzero(np.r_[True, rising[1:] != rising[:-1]]) if len(values) else np.zeros(0, np.int64)
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    return ranks
