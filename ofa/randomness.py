"""Torch's global randomness, lent for a while to code that knows no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["borrowed_randomness"]


@contextmanager
def borrowed_randomness(generator: torch.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside the block torch's global generators continue ``generator``; afterwards they are as the user left them.

    Dropout and libraries of augmentations draw from the global generators alone.

    Args:
        generator: on the CPU; it is not advanced.
        device: whose global generator is lent as well, if it is a GPU.
    """
    place = torch.device(device)
    cuda = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.set_rng_state(generator.get_state())
        for gpu in cuda:
            # A GPU's state is of another kind, so it gets a seed that follows from where the generator stands now.
            torch.cuda.default_generators[torch.cuda.current_device() if gpu.index is None else gpu.index].manual_seed(_seed(generator))
        yield


def _seed(generator: torch.Generator) -> int:
    """What the generator would draw next; it is not advanced."""
    ahead = torch.Generator()
    ahead.set_state(generator.get_state())
    return int(torch.randint(2**63 - 1, (), generator=ahead))
