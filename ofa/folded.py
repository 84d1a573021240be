"""Batch norm folded into an expanding 1x1 convolution while training, which saves its passes over the wide output.

Let m [I] and C [I, I] be mean and covariance of the input x over all N pixels of a batch, and W [O, I] the weights. The output W x has
mean W m and variance v = diag(W C W'), so both follow from the narrow input. With s = weight / sqrt(v + eps) the normalized output is

    y = (diag(s) W) (x - m) + bias,

one convolution of the centred input. The input is centred first to avoid catastrophic cancellation: a covariance from uncentred sums
loses its digits where a mean is large. Let g be the gradient with respect to y, G = sum g (x - m)' and b = sum g over all pixels. Then
the gradients, including the path through v, are with respect to

    bias     b
    s        t = rowsum(G * W), hence weight: t / sqrt(v + eps), and v: u = -t weight / (2 (v + eps)^1.5)
    W        diag(s) G + 2 diag(u) W C
    x        g diag(s) W + (x - m) 2 W' diag(u) W / N - b diag(s) W / N

Forward and backward read the wide tensors once, in blocks that fit into the processor's cache. Forward activates a block before it
computes the next. Backward takes the activation's gradient, b, G and g diag(s) W of one block before it reads the next.

Folding is faster if the wide output does not fit into the cache and its channels are many compared with the square of the input
channels (the cost of the covariance). Otherwise a batch norm's passes take hardly any time (``is_faster``; benchmarks/folded_norm.py).

An absolute error of about 1e-7 |w|^2 |C| remains in v, where w is a row of W. It matters only for channels whose variance is small
compared with |w|^2 |C| and also not dominated by eps.

Shapes: B images, I input and O output channels, H W pixels of a side, N = B H W pixels in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["ACTIVATIONS", "conv_norm_act", "is_faster"]

_BLOCK_VALUES = 3 * 2**18
"""Values of the wide output per block: 3 MiB of float32."""

_LEAST_VALUES = 2**21
"""Smallest wide output, in values, that is folded: smaller ones stay in the cache, where a batch norm's passes take hardly any time.
Folding wins from half as many values on one core, and from this many on two cores, which have twice the cache and share the memory bus."""

_MOST_WORK = 10
"""Most multiplications for the covariance ([I, I] per pixel) per value of the wide output."""

_aten = torch.ops.aten
_ACTIVATION_GRADIENTS: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda gradient, output: _aten.threshold_backward(gradient, output, 0),
    nn.ReLU6: lambda gradient, output: _aten.hardtanh_backward(gradient, output, 0, 6),
    nn.Hardswish: lambda gradient, value: _aten.hardswish_backward(gradient, value),
    nn.Identity: lambda gradient, _: gradient,
}
"""Gradient with respect to an activation's input, from the upstream gradient and a kept tensor: its input for h-swish, else its output."""

ACTIVATIONS = frozenset(_ACTIVATION_GRADIENTS)
"""The activations that can follow the folded batch norm."""


def is_faster(x_BIHW: Tensor, out_channels: int) -> bool:
    """Whether folding takes less time than a separate batch norm over an output of ``out_channels`` channels."""
    batch, channels, height, width = x_BIHW.shape
    return batch * height * width * out_channels >= _LEAST_VALUES and channels**2 <= _MOST_WORK * out_channels


def conv_norm_act(x_BIHW: Tensor, weight_OI11: Tensor, norm: nn.BatchNorm2d, activation: type[nn.Module]) -> Tensor:
    """Compute a 1x1 convolution without bias, ``norm`` in training mode and an activation; running statistics are updated.

    Args:
        x_BIHW: images in channels-last layout, at least two pixels in total.
        weight_OI11: weights of the convolution.
        norm: a batch norm with weight, bias, running statistics and a momentum.
        activation: one of ``ACTIVATIONS``; ``nn.Identity`` for none.

    Returns:
        The activated output [B, O, H, W], in channels-last layout.
    """
    y_BOHW: Tensor
    y_BOHW, mean_O, variance_O = _FoldedNorm.apply(  # type: ignore[no-untyped-call]
        x_BIHW, weight_OI11, norm.weight, norm.bias, norm.eps, activation
    )
    _update(norm, mean_O, variance_O, x_BIHW.numel() // x_BIHW.shape[1])
    return y_BOHW


@torch.no_grad()
def _update(norm: nn.BatchNorm2d, mean_O: Tensor, variance_O: Tensor, count: int) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    # ``.data`` keeps these writes out of autograd's version counter, as are the writes of torch's own batch norms. Torch's batch norms
    # save their statistics for backward (which never reads them), and all statistics may be views of one tensor.
    norm.running_mean.data.lerp_(mean_O, norm.momentum)
    norm.running_var.data.lerp_(variance_O * (count / (count - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)


class _FoldedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BIHW: Tensor, weight_OI11: Tensor, scale_O: Tensor, shift_O: Tensor, eps: float, activation: type[nn.Module]
    ) -> tuple[Tensor, Tensor, Tensor]:
        x_NI, weight_OI = _rows(x_BIHW), weight_OI11.flatten(1)
        mean_I = x_NI.mean(0)
        centred_NI = x_NI - mean_I
        covariance_II = (centred_NI.t() @ centred_NI).div_(len(x_NI))
        spread_OI = weight_OI @ covariance_II
        # Rounding can make the variance of a nearly constant channel negative.
        variance_O = (spread_OI * weight_OI).sum(1).clamp_min_(0)
        root_O = (variance_O + eps).rsqrt_()
        folded_OI = weight_OI * (scale_O * root_O).unsqueeze(1)
        y_BOHW = torch.empty((len(x_BIHW), len(weight_OI), *x_BIHW.shape[2:]), dtype=x_BIHW.dtype, memory_format=torch.channels_last)
        before_BOHW = torch.empty_like(y_BOHW) if activation is nn.Hardswish else y_BOHW
        y_NO, before_NO = _rows(y_BOHW), _rows(before_BOHW)
        for block in _blocks(y_NO):
            torch.addmm(shift_O, centred_NI[block], folded_OI.t(), out=before_NO[block])
            _activate(before_NO[block], y_NO[block], activation)
        ctx.save_for_backward(
            centred_NI, weight_OI11, scale_O, root_O, spread_OI, folded_OI, None if activation is nn.Identity else before_BOHW
        )
        ctx.activation = activation
        mean_O = weight_OI @ mean_I
        ctx.mark_non_differentiable(mean_O, variance_O)
        return y_BOHW, mean_O, variance_O

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BOHW: Tensor, *_: Any) -> tuple[Tensor | None, Tensor, Tensor, Tensor, None, None]:
        centred_NI, weight_OI11, scale_O, root_O, spread_OI, folded_OI, kept_BOHW = ctx.saved_tensors
        weight_OI = weight_OI11.flatten(1)
        gradient_NO = _rows(gradient_BOHW.contiguous(memory_format=torch.channels_last))
        kept_NO = gradient_NO if kept_BOHW is None else _rows(kept_BOHW)
        x_gradient_NI = torch.empty_like(centred_NI) if ctx.needs_input_grad[0] else None
        products_OI, sums_O = _sums(gradient_NO, kept_NO, centred_NI, folded_OI, _ACTIVATION_GRADIENTS[ctx.activation], x_gradient_NI)
        by_factor_O = (products_OI * weight_OI).sum(1)
        twice_by_variance_O = -by_factor_O * scale_O * root_O**3
        by_weight_OI = torch.addcmul(products_OI * (scale_O * root_O).unsqueeze(1), spread_OI, twice_by_variance_O.unsqueeze(1))
        by_x_BIHW = None
        if x_gradient_NI is not None:
            count = len(centred_NI)
            tilt_II = weight_OI.t() @ (weight_OI * (twice_by_variance_O / count).unsqueeze(1))
            x_gradient_NI.addmm_(centred_NI, tilt_II).sub_(sums_O @ folded_OI / count)
            by_x_BIHW = _images(x_gradient_NI, gradient_BOHW)
        return by_x_BIHW, by_weight_OI.view_as(weight_OI11), by_factor_O * root_O, sums_O, None, None


def _sums(
    gradient_NO: Tensor,
    kept_NO: Tensor,
    centred_NI: Tensor,
    folded_OI: Tensor,
    activation_gradient: Callable[[Tensor, Tensor], Tensor],
    x_gradient_NI: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """G [O, I] and b [O] of the module's docstring; ``x_gradient_NI``, if given, is filled with g diag(s) W."""
    products_OI, sums_O = torch.zeros_like(folded_OI), torch.zeros_like(folded_OI[:, 0])
    for block in _blocks(gradient_NO):
        before_NO = activation_gradient(gradient_NO[block], kept_NO[block])
        sums_O += before_NO.sum(0)
        products_OI.addmm_(before_NO.t(), centred_NI[block])
        if x_gradient_NI is not None:
            torch.mm(before_NO, folded_OI, out=x_gradient_NI[block])
    return products_OI, sums_O


def _activate(x_NC: Tensor, result_NC: Tensor, activation: type[nn.Module]) -> None:
    """Apply the activation to ``x_NC`` in place; h-swish is written to ``result_NC`` instead."""
    if activation is nn.Hardswish:
        _aten.hardswish.out(x_NC, out=result_NC)
    elif activation is nn.ReLU:
        x_NC.relu_()
    elif activation is nn.ReLU6:
        x_NC.clamp_(0, 6)


def _blocks(x_NC: Tensor) -> Iterator[slice]:
    """Consecutive slices of the rows, each of about ``_BLOCK_VALUES`` values."""
    length = max(1, _BLOCK_VALUES // x_NC.shape[1])
    return (slice(start, start + length) for start in range(0, len(x_NC), length))


def _rows(x_BCHW: Tensor) -> Tensor:
    """Channels-last images as [B H W, C], without a copy."""
    return x_BCHW.permute(0, 2, 3, 1).reshape(-1, x_BCHW.shape[1])


def _images(x_NC: Tensor, like_BCHW: Tensor) -> Tensor:
    """Rows [B H W, C] as channels-last images [B, C, H, W] of the batch and image size of ``like_BCHW``."""
    batch, _, height, width = like_BCHW.shape
    return x_NC.view(batch, height, width, -1).permute(0, 3, 1, 2)
