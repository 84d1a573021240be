"""Ranks the blocks of a run by importance: networks skip first the blocks whose absence changes the output least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ofa.families.adopted import AdoptedSpace
from ofa.importance import block_importance
from ofa.progress import Progress, silent
from ofa.supernet import Supernet

__all__ = ["rank_blocks"]


def rank_blocks(supernet: Supernet, images: Sequence[Tensor], progress: Progress = silent) -> tuple[AdoptedSpace, Supernet]:
    """Reorder blocks so that shallower networks skip the least important blocks of each run; the largest network does not change.

    Args:
        supernet: supernet of an adopted model.
        images: held-out batches [B, C, H, W] of at least two images, preprocessed for the model.
        progress: told of every block and batch.

    Returns:
        The reordered space, and its supernet.

    Raises:
        DataError: there are no images, or a batch has only one.
    """
    space = supernet.space
    assert isinstance(space, AdoptedSpace)
    supernet.eval()
    scores = block_importance([piece.module for piece in supernet.pieces(space.largest())], images, progress)
    supernet.train()
    places: dict[str, str] = {}
    for number, stage in enumerate(space.stages):
        if len(stage.depths) > 1:
            found = [
                (-(score or 0.0), order, block.place)
                for order, (block, score) in enumerate(zip(space.blocks, scores, strict=True))
                if block.stage is not None and block.stage[0] == number
            ]
            places |= {place: f"stages.{number}.{rank}" for rank, (_, _, place) in enumerate(sorted(found))}
    ranked = replace(space, blocks=tuple(replace(block, place=places.get(block.place, block.place)) for block in space.blocks))
    return ranked, _moved(supernet, ranked)


@torch.no_grad()
def _moved(supernet: Supernet, ranked: AdoptedSpace) -> Supernet:
    """The same weights at the places of the blocks in another space of the same program."""
    assert isinstance(supernet.space, AdoptedSpace)
    moved = Supernet.empty(ranked, dropout=supernet.dropout)
    came = {new.place: old.place for old, new in zip(supernet.space.blocks, ranked.blocks, strict=True)}
    own = supernet.named_tensors()
    for name, tensor in moved.named_tensors().items():
        place = next(place for place in came if name.startswith(f"{place}."))
        tensor.copy_(own[f"{came[place]}{name.removeprefix(place)}"])
    return moved
