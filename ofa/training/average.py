"""The moving average of a supernet's weights, which is often better than the weights that the last steps left."""

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
        supernet: whose weights are averaged; the average begins at what they are now.
        decay: share of the average that each step keeps (0..1); while steps are few it is ``(1 + steps) / (10 + steps)`` at most, so
            that the first weights do not linger.
    """

    def __init__(self, supernet: Supernet, decay: float) -> None:
        self._supernet = supernet
        self._decay = decay
        self._steps = 0
        self._weights = [parameter.detach().clone() for parameter in supernet.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights that a step left."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for average, parameter in zip(self._weights, self._supernet.parameters(), strict=True):
            average.lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def write(self) -> None:
        """Make the average the supernet's weights."""
        for average, parameter in zip(self._weights, self._supernet.parameters(), strict=True):
            parameter.copy_(average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the supernet has the averaged weights; afterwards it has its own again."""
        own = [parameter.detach().clone() for parameter in self._supernet.parameters()]
        self.write()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weights in zip(self._supernet.parameters(), own, strict=True):
                    parameter.copy_(weights)

    def state(self) -> dict[str, Tensor]:
        """Exact state, by name."""
        return {"steps": torch.tensor(self._steps), **{str(i): weights for i, weights in enumerate(self._weights)}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state."""
        self._steps = int(state["steps"])
        for i, weights in enumerate(self._weights):
            weights.copy_(state[str(i)])
