"""Fused batch norm (training mode) and activation, on channels-last images.

Fusion saves seven passes over the activations, forward and backward together: the norm's output is never written, but recomputed where it
is needed.

Shapes: B images, C channels, H W pixels, M = B * H * W. Arithmetic is float32 for all dtypes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import nn
from torch.autograd.function import once_differentiable

from ofa.kernels.layout import GROUP

__all__ = ["Activation", "norm_activation"]

Activation = Literal["none", "relu", "relu6", "h_swish"]
"""The activations that the kernels support."""

_PIXELS, _CHANNELS = 64, 32
"""Size of one tile."""
_LEAST_TILES, _PROGRAMS = 4, 1056
"""Least number of tiles per program, and number of programs: eight per multiprocessor of a large GPU."""
_SUMMED = 64
"""Number of programs' sums that are added at once."""


def norm_activation(x_BCHW: torch.Tensor, norm: nn.BatchNorm2d, activation: Activation) -> torch.Tensor:
    """``activation(norm(x))`` with batch statistics; updates the running statistics. Differentiable once.

    Args:
        x_BCHW: as required by ``ofa.kernels.takes``.
        norm: in training mode, affine, with running statistics and a momentum.
        activation: applied after the norm.
    """
    result: torch.Tensor
    result = _NormActivation.apply(x_BCHW, norm.weight, norm.bias, norm, activation)
    return result


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, norm: nn.BatchNorm2d, activation: Activation
    ) -> torch.Tensor:
        mean_C, scale_C = _statistics(x_BCHW, norm)
        y_BCHW = torch.empty_like(x_BCHW)
        grid, sizes = _elementwise(x_BCHW)
        with torch.cuda.device_of(x_BCHW):
            _forward_kernel[grid](x_BCHW, y_BCHW, mean_C, scale_C, weight_C, bias_C, *sizes, ACTIVATION=activation, **_TILE)
        ctx.save_for_backward(x_BCHW, weight_C, bias_C, mean_C, scale_C)
        ctx.activation = activation
        return y_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        x_BCHW, weight_C, bias_C, mean_C, scale_C = ctx.saved_tensors
        gradient_BCHW = gradient_BCHW.contiguous(memory_format=torch.channels_last)
        grid, sizes, sums_N2C, tiles = _reduction(x_BCHW)
        by_weight_C, by_bias_C = torch.empty_like(mean_C), torch.empty_like(mean_C)
        by_x_BCHW = torch.empty_like(x_BCHW)
        with torch.cuda.device_of(x_BCHW):
            parameters = (mean_C, scale_C, weight_C, bias_C)
            _slopes_kernel[grid](gradient_BCHW, x_BCHW, sums_N2C, *parameters, *sizes, tiles, ACTIVATION=ctx.activation, **_TILE)
            columns = (triton.cdiv(x_BCHW.shape[1], _CHANNELS),)
            _add_slopes_kernel[columns](sums_N2C, by_weight_C, by_bias_C, len(sums_N2C), sizes[1], SUMMED=_SUMMED, **_TILE)
            grid, _ = _elementwise(x_BCHW)
            sums = (by_weight_C, by_bias_C)
            _backward_kernel[grid](gradient_BCHW, x_BCHW, by_x_BCHW, *parameters, *sums, *sizes, ACTIVATION=ctx.activation, **_TILE)
        return by_x_BCHW, by_weight_C, by_bias_C, None, None


_TILE: dict[str, Any] = {"PIXELS": _PIXELS, "CHANNELS": _CHANNELS, "GROUP": GROUP}


def _elementwise(x_BCHW: torch.Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid over all tiles, and the size arguments of kernels: M and the number of channel groups."""
    channels = x_BCHW.shape[1]
    pixels = x_BCHW.numel() // channels
    return (triton.cdiv(pixels, _PIXELS), triton.cdiv(channels, _CHANNELS)), (pixels, channels // GROUP)


def _reduction(x_BCHW: torch.Tensor) -> tuple[tuple[int, int], tuple[int, int], torch.Tensor, int]:
    """The grid of programs that sum over pixels, the size arguments, a buffer for two sums per program, and the tiles per program."""
    (tiles, columns), sizes = _elementwise(x_BCHW)
    programs = max(1, min(triton.cdiv(tiles, _LEAST_TILES), _PROGRAMS // columns))
    sums_N2C = torch.empty(programs, 2, x_BCHW.shape[1], dtype=torch.float32, device=x_BCHW.device)
    return (programs, columns), sizes, sums_N2C, triton.cdiv(tiles, programs)


def _statistics(x_BCHW: torch.Tensor, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [C] and inverse standard deviation [C] of a batch; updates the running statistics of ``norm``."""
    grid, sizes, sums_N2C, tiles = _reduction(x_BCHW)
    mean_C, scale_C = (torch.empty(x_BCHW.shape[1], dtype=torch.float32, device=x_BCHW.device) for _ in range(2))
    with torch.cuda.device_of(x_BCHW):
        _moments_kernel[grid](x_BCHW, sums_N2C, *sizes, tiles, **_TILE)
        _add_moments_kernel[(grid[1],)](
            x_BCHW,
            sums_N2C,
            mean_C,
            scale_C,
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
            len(sums_N2C),
            *sizes,
            float(norm.momentum or 0.0),
            float(norm.eps),
            SUMMED=_SUMMED,
            **_TILE,
        )
    return mean_C, scale_C


_NOT_SPECIALIZED = ["pixels", "groups", "tiles", "programs", "momentum", "eps"]
"""Arguments that the compiler must not specialize on: a supernet has hundreds of values, and each would trigger a compilation."""


@triton.jit
def _activated(z, ACTIVATION: tl.constexpr):
    # NaN must propagate: the hardware's maximum of NaN and 0 is 0, which would hide diverged weights from the loss.
    if ACTIVATION == "relu":
        z = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "relu6":
        z = tl.minimum(tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL), 6.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "h_swish":
        z = z * tl.minimum(tl.maximum(z + 3.0, 0.0), 6.0) / 6.0
    return z


@triton.jit
def _slope(z, ACTIVATION: tl.constexpr):
    """The derivative of the activation, with torch's values at the kinks."""
    if ACTIVATION == "relu":
        slope = tl.where(z > 0.0, 1.0, 0.0)
    elif ACTIVATION == "relu6":
        slope = tl.where((z > 0.0) & (z < 6.0), 1.0, 0.0)
    elif ACTIVATION == "h_swish":
        slope = tl.where(z <= -3.0, 0.0, tl.where(z < 3.0, z / 3.0 + 0.5, 1.0))
    else:
        slope = z * 0.0 + 1.0
    return slope


@triton.jit
def _columns(number, groups, CHANNELS: tl.constexpr, GROUP: tl.constexpr):
    """C, the indices of a block of channels, and the mask of existing ones."""
    channel = number * CHANNELS + tl.arange(0, CHANNELS)
    return groups * GROUP, channel, channel < groups * GROUP


@triton.jit
def _tile(number, pixels, channels, channel, real, PIXELS: tl.constexpr):
    """Offsets of the values of a tile, and the mask of existing ones; both [PIXELS, CHANNELS]."""
    pixel = number * PIXELS + tl.arange(0, PIXELS)
    return pixel.to(tl.int64)[:, None] * channels + channel[None, :], (pixel < pixels)[:, None] & real[None, :]


@triton.jit
def _row(values, channel, real):
    """A block [1, CHANNELS] of a vector of C values."""
    return tl.load(values + channel, mask=real, other=0.0).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _moments_kernel(x, sums, pixels, groups, tiles, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, GROUP: tl.constexpr):
    """Per program, sums of values and of squares, after subtracting the channel's first value to avoid cancellation for large means."""
    channels, channel, real = _columns(tl.program_id(1), groups, CHANNELS, GROUP)
    first = _row(x, channel, real)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    squares = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for number in range(tiles):
        at, there = _tile(tl.program_id(0) * tiles + number, pixels, channels, channel, real, PIXELS)
        values = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        values = tl.where(there, values - first, 0.0)
        total += values
        squares += values * values
    to = sums + tl.program_id(0).to(tl.int64) * 2 * channels + channel
    tl.store(to, tl.sum(total, 0), mask=real)
    tl.store(to + channels, tl.sum(squares, 0), mask=real)


@triton.jit
def _column_sums(sums, programs, channels, channel, real, SUMMED: tl.constexpr, CHANNELS: tl.constexpr):
    """The two sums [CHANNELS] over all programs, in a fixed order."""
    first = tl.zeros([SUMMED, CHANNELS], tl.float32)
    second = tl.zeros([SUMMED, CHANNELS], tl.float32)
    for number in range((programs + SUMMED - 1) // SUMMED):
        program = number * SUMMED + tl.arange(0, SUMMED)
        there = (program < programs)[:, None] & real[None, :]
        at = sums + program.to(tl.int64)[:, None] * 2 * channels + channel[None, :]
        first += tl.load(at, mask=there, other=0.0)
        second += tl.load(at + channels, mask=there, other=0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _add_moments_kernel(
    x,
    sums,
    mean,
    scale,
    running_mean,
    running_var,
    batches,
    programs,
    pixels,
    groups,
    momentum,
    eps,
    SUMMED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Mean and inverse standard deviation from the programs' sums; updates the running statistics."""
    channels, channel, real = _columns(tl.program_id(0), groups, CHANNELS, GROUP)
    total, squares = _column_sums(sums, programs, channels, channel, real, SUMMED, CHANNELS)
    shift = total / pixels
    variance = tl.maximum(squares / pixels - shift * shift, 0.0)
    batch_mean = tl.load(x + channel, mask=real, other=0.0).to(tl.float32) + shift
    tl.store(mean + channel, batch_mean, mask=real)
    tl.store(scale + channel, 1.0 / tl.sqrt(variance + eps), mask=real)
    unbiased = variance * (pixels / tl.maximum(pixels - 1, 1))
    old_mean = tl.load(running_mean + channel, mask=real, other=0.0)
    old_var = tl.load(running_var + channel, mask=real, other=0.0)
    tl.store(running_mean + channel, old_mean + momentum * (batch_mean - old_mean), mask=real)
    tl.store(running_var + channel, old_var + momentum * (unbiased - old_var), mask=real)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _forward_kernel(
    x,
    y,
    mean,
    scale,
    weight,
    bias,
    pixels,
    groups,
    ACTIVATION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
):
    channels, channel, real = _columns(tl.program_id(1), groups, CHANNELS, GROUP)
    at, there = _tile(tl.program_id(0), pixels, channels, channel, real, PIXELS)
    values = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    z = (values - _row(mean, channel, real)) * (_row(scale, channel, real) * _row(weight, channel, real)) + _row(bias, channel, real)
    tl.store(y + at, _activated(z, ACTIVATION).to(y.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _slopes_kernel(
    gradient,
    x,
    sums,
    mean,
    scale,
    weight,
    bias,
    pixels,
    groups,
    tiles,
    ACTIVATION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Per program, sums over pixels of the norm's output gradient times the normalized input, and of that gradient alone."""
    channels, channel, real = _columns(tl.program_id(1), groups, CHANNELS, GROUP)
    mean_C, scale_C = _row(mean, channel, real), _row(scale, channel, real)
    weight_C, bias_C = _row(weight, channel, real), _row(bias, channel, real)
    by_weight = tl.zeros([PIXELS, CHANNELS], tl.float32)
    by_bias = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for number in range(tiles):
        at, there = _tile(tl.program_id(0) * tiles + number, pixels, channels, channel, real, PIXELS)
        normal = (tl.load(x + at, mask=there, other=0.0).to(tl.float32) - mean_C) * scale_C
        slopes = tl.load(gradient + at, mask=there, other=0.0).to(tl.float32) * _slope(normal * weight_C + bias_C, ACTIVATION)
        by_weight += slopes * normal
        by_bias += slopes
    to = sums + tl.program_id(0).to(tl.int64) * 2 * channels + channel
    tl.store(to, tl.sum(by_weight, 0), mask=real)
    tl.store(to + channels, tl.sum(by_bias, 0), mask=real)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _add_slopes_kernel(
    sums,
    by_weight,
    by_bias,
    programs,
    groups,
    SUMMED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
):
    channels, channel, real = _columns(tl.program_id(0), groups, CHANNELS, GROUP)
    first, second = _column_sums(sums, programs, channels, channel, real, SUMMED, CHANNELS)
    tl.store(by_weight + channel, first, mask=real)
    tl.store(by_bias + channel, second, mask=real)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _backward_kernel(
    gradient,
    x,
    by_x,
    mean,
    scale,
    weight,
    bias,
    by_weight,
    by_bias,
    pixels,
    groups,
    ACTIVATION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Input gradient, including the paths through mean and variance (Ioffe and Szegedy, ICML 2015, section 3)."""
    channels, channel, real = _columns(tl.program_id(1), groups, CHANNELS, GROUP)
    at, there = _tile(tl.program_id(0), pixels, channels, channel, real, PIXELS)
    scale_C, weight_C = _row(scale, channel, real), _row(weight, channel, real)
    normal = (tl.load(x + at, mask=there, other=0.0).to(tl.float32) - _row(mean, channel, real)) * scale_C
    slopes = tl.load(gradient + at, mask=there, other=0.0).to(tl.float32)
    slopes *= _slope(normal * weight_C + _row(bias, channel, real), ACTIVATION)
    taken = (_row(by_bias, channel, real) + normal * _row(by_weight, channel, real)) / pixels
    tl.store(by_x + at, ((slopes - taken) * (scale_C * weight_C)).to(by_x.dtype.element_ty), mask=there)
