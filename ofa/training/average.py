"""Exponential moving average of a supernet's weights; it is often more accurate than the weights after the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ofa.supernet import Supernet

__all__ = ["WeightAverage"]


class WeightAverage:
    """An exponential moving average of the flat store (Polyak and Juditsky, 1992, in the form that Tarvainen and Valpola, 2017, use).

    Args:
        supernet: the supernet whose weights are averaged; the average starts at its current weights.
        decay: share of the average that each step keeps (0..1). It is capped at ``(1 + steps) / (10 + steps)``, so that the initial
            weights fade quickly.
    """

    def __init__(self, supernet: Supernet, decay: float) -> None:
        self._supernet = supernet
        self._decay = decay
        self._steps = 0
        self._weights = [parameter.detach().clone() for parameter in supernet.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the supernet's current weights; called after each step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for average, parameter in zip(self._weights, self._supernet.parameters(), strict=True):
            average.lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def write(self) -> None:
        """Copy the average into the supernet."""
        for average, parameter in zip(self._weights, self._supernet.parameters(), strict=True):
            parameter.copy_(average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Context in which the supernet has the averaged weights; its own weights are restored on exit."""
        own = [parameter.detach().clone() for parameter in self._supernet.parameters()]
        self.write()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weights in zip(self._supernet.parameters(), own, strict=True):
                    parameter.copy_(weights)

    def state(self) -> dict[str, Tensor]:
        """The exact state, as tensors by name."""
        return {"steps": torch.tensor(self._steps), **{str(i): weights for i, weights in enumerate(self._weights)}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` returned."""
        self._steps = int(state["steps"])
        for i, weights in enumerate(self._weights):
            weights.copy_(state[str(i)])
