"""Synchronized batch norm over several processes, on CPUs and GPUs (torch's SyncBatchNorm refuses CPUs).

Shapes: B images of this process, C channels, ... any further dimensions (pixels, tokens) or none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable

__all__ = ["SynchronizedBatchNorm"]


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose training mean and variance are taken over the batches of all processes.

    So several processes compute what one process would with the concatenated batch. In evaluation mode, and without a process group, it
    is ``nn.BatchNorm2d`` without its check of dimensions, because blocks of traced models normalize tokens and vectors as well.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any tensor with a channel dimension."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [B, C, ...]."""
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return super().forward(input)
        result: Tensor
        result, mean, variance, count = _Normalize.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                unbiased = variance * (count / (count - 1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return result


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Filled on the device: a copy from the host would synchronize the GPU at every layer.
        count = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float64, device=x.device)
        precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        variance_C, mean_C = torch.var_mean(precise, dim=_others(x), correction=0)
        mean_C, variance_C, total = _joined(mean_C.double(), variance_C.double(), count)
        scale_C = (variance_C + eps).rsqrt()
        mean, scale = mean_C.to(precise.dtype), scale_C.to(precise.dtype)
        ctx.save_for_backward(x, weight_C, mean, scale)
        ctx.total = total
        factor = scale * weight_C
        result = torch.addcmul(_beside(bias_C - mean * factor, x), precise, _beside(factor, x)).to(x.dtype)
        ctx.mark_non_differentiable(mean_C, variance_C, total)
        is_image = x.dim() == 4
        return result.contiguous(memory_format=torch.channels_last) if is_image else result, mean_C, variance_C, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight_C, mean_C, scale_C = ctx.saved_tensors
        precise = gradient.to(scale_C.dtype)
        centred = (x.to(scale_C.dtype) - _beside(mean_C, x)) * _beside(scale_C, x)
        by_bias = precise.sum(_others(x))
        by_weight = (precise * centred).sum(_others(x))
        # The loss of each process is the mean over its own images, and so are the gradients here. Only the input's gradient uses sums
        # over all processes; the gradients of weight and bias are averaged over processes later, together with all others.
        sums = torch.stack([by_bias, by_weight])
        dist.all_reduce(sums)
        shift_C, tilt_C = sums / ctx.total.to(sums.dtype)
        by_input = (precise - _beside(shift_C, x) - centred * _beside(tilt_C, x)) * _beside(weight_C * scale_C, x)
        return by_input.to(x.dtype), by_weight, by_bias, None


def _others(x: Tensor) -> list[int]:
    """All dimensions except the channel dimension."""
    return [0, *range(2, x.dim())]


def _beside(values_C: Tensor, x: Tensor) -> Tensor:
    """View one value per channel [C] as [1, C, 1, ...], with as many dimensions as ``x``."""
    return values_C.view(1, -1, *[1] * (x.dim() - 2))


def _joined(mean_C: Tensor, variance_C: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count over all processes, from the deviations of their means (Chan et al., 1979), by two all-reduces."""
    sums = torch.cat([mean_C * count, count])
    dist.all_reduce(sums)
    total = sums[-1:]
    mean = sums[:-1] / total
    squares = (variance_C + (mean_C - mean) ** 2) * count
    dist.all_reduce(squares)
    return mean, squares / total, total
