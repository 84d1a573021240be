"""Batch norm over the images of several processes, on CPUs and GPUs alike (torch's own refuses CPUs).

Shapes: B images of this process, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable

__all__ = ["SynchronizedBatchNorm2d"]


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose mean and variance, in training, are those of all processes' images.

    So processes that train together compute what one would with the joined batch. In evaluation, and where no process group is
    joined, it is ``nn.BatchNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [B, C, H, W]."""
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
    def forward(ctx: Any, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Filled on the device: a copy from the host would make every layer of a GPU wait.
        count = torch.full((1,), x_BCHW.numel() // x_BCHW.shape[1], dtype=torch.float64, device=x_BCHW.device)
        precise = x_BCHW.float() if x_BCHW.dtype in (torch.float16, torch.bfloat16) else x_BCHW
        variance_C, mean_C = torch.var_mean(precise, dim=(0, 2, 3), correction=0)
        mean_C, variance_C, total = _joined(mean_C.double(), variance_C.double(), count)
        scale_C = (variance_C + eps).rsqrt()
        mean, scale = mean_C.to(precise.dtype), scale_C.to(precise.dtype)
        ctx.save_for_backward(x_BCHW, weight_C, mean, scale)
        ctx.total = total
        factor = scale * weight_C
        result = torch.addcmul((bias_C - mean * factor).view(1, -1, 1, 1), precise, factor.view(1, -1, 1, 1)).to(x_BCHW.dtype)
        ctx.mark_non_differentiable(mean_C, variance_C, total)
        return result.contiguous(memory_format=torch.channels_last), mean_C, variance_C, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x_BCHW, weight_C, mean_C, scale_C = ctx.saved_tensors
        precise = gradient_BCHW.to(scale_C.dtype)
        centred = (x_BCHW.to(scale_C.dtype) - mean_C.view(1, -1, 1, 1)) * scale_C.view(1, -1, 1, 1)
        by_bias = precise.sum((0, 2, 3))
        by_weight = (precise * centred).sum((0, 2, 3))
        # The loss of each process is the mean over its own images, as is each gradient here: the sums over all processes belong to
        # the input's gradient alone; those of weight and bias are averaged with all others, after the step.
        sums = torch.stack([by_bias, by_weight])
        dist.all_reduce(sums)
        shift, tilt = (sums / ctx.total.to(sums.dtype)).view(2, 1, -1, 1, 1)
        by_input = (precise - shift - centred * tilt) * (weight_C * scale_C).view(1, -1, 1, 1)
        return by_input.to(x_BCHW.dtype), by_weight, by_bias, None


def _joined(mean_C: Tensor, variance_C: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count over all processes, from the deviations of their means (Chan et al., 1979), in two calls."""
    sums = torch.cat([mean_C * count, count])
    dist.all_reduce(sums)
    total = sums[-1:]
    mean = sums[:-1] / total
    squares = (variance_C + (mean_C - mean) ** 2) * count
    dist.all_reduce(squares)
    return mean, squares / total, total
