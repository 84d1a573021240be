"""Temporary control of torch's global generators, for code that accepts no generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["borrowed_randomness"]


@contextmanager
def borrowed_randomness(generator: torch.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """Set torch's global generators from ``generator`` inside the block; afterwards their states are restored.

    Dropout and augmentation libraries draw from the global generators only.

    Args:
        generator: on the CPU; it is not advanced.
        device: if it is a GPU, its global generator is set too.
    """
    place = torch.device(device)
    cuda = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.set_rng_state(generator.get_state())
        for gpu in cuda:
            # The state of a GPU's generator has another format, so it is seeded by the next value of ``generator``.
            torch.cuda.default_generators[torch.cuda.current_device() if gpu.index is None else gpu.index].manual_seed(_seed(generator))
        yield


def _seed(generator: torch.Generator) -> int:
    """The value that the generator would draw next; it is not advanced."""
    ahead = torch.Generator()
    ahead.set_state(generator.get_state())
    return int(torch.randint(2**63 - 1, (), generator=ahead))
