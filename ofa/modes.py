"""Context managers for evaluation mode, with the running statistics of batch norms or with batch statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["evaluating", "normalizing_by_batch", "tracking_norms"]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards the mode of every module is restored."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def normalizing_by_batch(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, except that batch norms use batch statistics.

    Afterwards the modes of all modules and the running statistics are restored.
    """
    norms = tracking_norms(network)
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    before = [buffer.clone() for buffer in buffers]
    with evaluating(network):
        try:
            for norm in norms:
                norm.training = True
            yield
        finally:
            for norm in norms:
                norm.training = False
            for buffer, values in zip(buffers, before, strict=True):
                buffer.copy_(values)


def tracking_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep running statistics."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
