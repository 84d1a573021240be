"""Batch-norm re-calibration of an extracted network.

Running statistics in a supernet are an average over all trained subnets and so fit none of them. Every subnet is therefore
calibrated before it is evaluated or shipped (Yu and Huang, "Universally Slimmable Networks", ICCV 2019, section 3.3).
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
"""From 2,048 images on, no network's accuracy moved by more than 0.2 points on CIFAR-10 (benchmarks/calibration_images.py)."""


def calibrate(network: nn.Module, data: Images, *, resolution: Resolution, images: int = CALIBRATION_IMAGES, batch_size: int = 64) -> None:
    """Recompute the running statistics of every batch norm of ``network`` on ``images`` images of ``data``, in place.

    Mean and variance are exact over all images, not a moving average. Each batch is normalized by its own statistics, as in
    training. The images are spread evenly over ``data``, and each batch evenly over the images: the result depends on no
    random number and hardly on the order of ``data``. Modes and momenta are restored. Do not call it on
    ``supernet.subnet(arch)``, which shares its statistics with the whole supernet.

    Args:
        network: any module; one without batch norm is left unchanged.
        data: images without augmentation, usually the training images.
        resolution: of the input in pixels: the side of a square, or (height, width).
        images: number of images to use; all of ``data`` if it has fewer.
        batch_size: images per forward pass, enough for a batch to represent the data. A last batch of one image is left out.

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
                # A norm that was not called for this input has no size, and keeps its statistics.
                if norm in sizes:
                    total.add(sizes.pop(norm), norm.running_mean, norm.running_var)
    for norm, total in zip(norms, totals, strict=True):
        total.write(norm)


def _spread(available: int, count: int, batch_size: int) -> list[Tensor]:
    """Indices of ``count`` images at even distances, dealt out to the batches in turn."""
    chosen = torch.arange(count) * available // count
    number = -(-count // batch_size)
    parts = [chosen[start::number] for start in range(number)]
    return [part for part in parts if len(part) > 1]


@dataclass(eq=False)
class _Moments:
    """Running mean and variance of all values so far, per channel, in double precision."""

    count: int = 0
    mean: Tensor | None = None
    squares: Tensor | None = None

    def add(self, count: int, mean: Tensor | None, variance: Tensor | None) -> None:
        """Merge a batch of ``count`` values per channel, given its unbiased variance (Chan et al., 1979, equation 2.1)."""
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
    """Let each batch norm hold the statistics of its latest batch only; all other modules are in evaluation mode.

    With momentum 1, PyTorch's own training pass writes exactly these statistics, without a second pass over the activations.
    Yields the number of values per channel of each norm's latest input. Modes and momenta are restored at the end.
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
                        buffer.zero_()  # Momentum 1 multiplies the old statistic by 0, and 0 x inf is NaN in a diverged network.
            yield sizes
        finally:
            for hook in hooks:
                hook.remove()
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
