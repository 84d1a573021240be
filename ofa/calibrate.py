"""Batch-norm statistics of an extracted network, measured anew.

The statistics in a supernet are an average over all subnets that were trained, and so fit none of them. Every subnet that is
judged or shipped is therefore calibrated first (Yu and Huang, "Universally Slimmable Networks", ICCV 2019, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ofa.data import BatchPlan, Images, load_batches
from ofa.errors import DataError
from ofa.modes import normalizing_by_batch, tracking_norms
from ofa.resolution import Resolution

__all__ = ["CALIBRATION_IMAGES", "calibrate"]

CALIBRATION_IMAGES = 2048
"""From here on no network's accuracy moved by more than 0.2 points, on CIFAR-10 (benchmarks/calibration_images.py)."""


def calibrate(network: nn.Module, data: Images, *, resolution: Resolution, images: int = CALIBRATION_IMAGES, batch_size: int = 64) -> None:
    """Replace the batch-norm statistics of ``network`` by those of ``images`` images of ``data``, in place.

    Mean and variance are the exact ones over all images, not a moving average: what each batch norm meets while its batch is
    normalized by itself, as in training. The images are spread evenly over ``data`` and each batch is again spread evenly
    over them, so the result depends on no random number and hardly on the order of ``data``. Modes and momenta are afterwards
    what they were. Do not call it on ``supernet.subnet(arch)``, whose statistics belong to the whole supernet.

    Args:
        network: any module; without batch norm it stays as it is.
        data: unaugmented images, usually those that the network was trained on.
        resolution: height and width of the input in pixels.
        images: how many images to use; all if there are fewer.
        batch_size: images a forward pass. Large enough that a batch represents the data; a rest of one image is left out.

    Raises:
        DataError: fewer than 2 images.
    """
    count = min(images, len(data))
    if min(count, batch_size) < 2:
        raise DataError(
            f"calibration needs at least 2 images in a batch, but images is {images}, batch_size {batch_size} "
            f"and the data has {len(data)}; raise the smallest"
        )
    norms = tracking_norms(network)
    if not norms:
        return
    device = norms[0].running_mean.device  # type: ignore[union-attr]
    totals = [_Moments() for _ in norms]
    with _one_batch_statistics(network, norms) as sizes, torch.no_grad():
        plans = [BatchPlan(index, resolution, None) for index in _spread(len(data), count, batch_size)]
        for x_BCHW, _ in load_batches(data, plans, device=device):
            network(x_BCHW)
            for norm, total in zip(norms, totals, strict=True):
                # A norm that this input did not reach has no size, and keeps its statistics.
                if norm in sizes:
                    total.add(sizes.pop(norm), norm.running_mean, norm.running_var)
    for norm, total in zip(norms, totals, strict=True):
        total.write(norm)


def _spread(available: int, count: int, batch_size: int) -> list[Tensor]:
    """Indices of ``count`` images at even distances, dealt out to batches like cards."""
    chosen = torch.arange(count) * available // count
    number = -(-count // batch_size)
    parts = [chosen[start::number] for start in range(number)]
    return [part for part in parts if len(part) > 1]


@dataclass(eq=False)
class _Moments:
    """The mean and variance of all values seen so far, per channel, in double precision."""

    count: int = 0
    mean: Tensor | None = None
    squares: Tensor | None = None

    def add(self, count: int, mean: Tensor | None, variance: Tensor | None) -> None:
        """Join a batch of ``count`` values a channel, with its unbiased variance (Chan et al., 1979, equation 2.1)."""
        assert mean is not None
        assert variance is not None
        new_mean, new_squares = mean.double(), variance.double() * (count - 1)
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, new_mean, new_squares
            return
        total, delta = self.count + count, new_mean - self.mean
        self.squares = self.squares + new_squares + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def write(self, norm: _BatchNorm) -> None:
        if self.mean is None or self.squares is None or norm.running_mean is None or norm.running_var is None:
            return
        norm.running_mean.copy_(self.mean)
        norm.running_var.copy_(self.squares / max(self.count - 1, 1))


@contextmanager
def _one_batch_statistics(network: nn.Module, norms: list[_BatchNorm]) -> Iterator[dict[_BatchNorm, int]]:
    """Let each batch norm hold the statistics of its latest batch alone, and nothing else be in training mode.

    Momentum 1 makes PyTorch's own training pass write exactly these statistics, so they cost no second pass over the
    activations. Yields the number of values a channel of each norm's latest input; afterwards all is as it was.
    """
    sizes: dict[_BatchNorm, int] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        sizes[norm] = inputs[0].numel() // inputs[0].shape[1]

    with normalizing_by_batch(network):
        momenta = [norm.momentum for norm in norms]
        hooks = [norm.register_forward_pre_hook(note) for norm in norms]
        try:
            for norm in norms:
                norm.momentum = 1.0
                for buffer in (norm.running_mean, norm.running_var):
                    if buffer is not None:
                        buffer.zero_()  # Zero times an infinite statistic of a network gone wrong would not be zero.
            yield sizes
        finally:
            for hook in hooks:
                hook.remove()
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
