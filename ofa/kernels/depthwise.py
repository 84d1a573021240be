"""Depthwise convolution, forward and backward, on channels-last images.

torch's native kernels support contiguous images only and have no special code for 7x7; cuDNN's kernels for channels-last images are made
for float16. The kernels here are memory-bound, so each program computes several output rows of a column at once and reuses every input
value that it has read for all of them.

Shapes: B images, C channels, H W pixels, K taps per side, T = K * K. Arithmetic is float32 for all dtypes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from ofa.kernels.layout import GROUP

__all__ = ["depthwise"]

_ROWS = 4
"""Output rows per program; the kernel below is unrolled by hand for four."""
_TILE = 64
_LEAST_TILES = 4
"""Least number of tiles per program of the weight gradient."""
_PROGRAMS = 2048
"""Target number of programs of the weight gradient."""


def depthwise(x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
    """A depthwise convolution with an odd kernel and padding K // 2, differentiable once.

    Args:
        x_BCHW: as required by ``ofa.kernels.takes``.
        weight_C1KK: in any memory layout.
        stride: 1 or 2.

    Returns:
        [B, C, ceil(H / stride), ceil(W / stride)] with the dtype of ``x_BCHW``.
    """
    result: torch.Tensor = _Depthwise.apply(x_BCHW, weight_C1KK, stride)
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.save_for_backward(x_BCHW, weight_C1KK)
        ctx.stride = stride
        return _convolve(x_BCHW, _taps_first(weight_C1KK), stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x_BCHW, weight_C1KK = ctx.saved_tensors
        gradient_BCHW = gradient_BCHW.contiguous(memory_format=torch.channels_last)
        by_input = by_weight = None
        if ctx.needs_input_grad[0]:
            # At stride 1 it is a convolution with the kernel rotated by 180 degrees.
            weight_TC = _taps_first(weight_C1KK)
            stride_1 = ctx.stride == 1
            by_input = _convolve(gradient_BCHW, weight_TC.flip(0), 1) if stride_1 else _spread(gradient_BCHW, weight_TC, x_BCHW)
        if ctx.needs_input_grad[1]:
            by_weight = _weight_gradient(gradient_BCHW, x_BCHW, weight_C1KK, ctx.stride)
        return by_input, by_weight, None


def _taps_first(weight_C1KK: torch.Tensor) -> torch.Tensor:
    """[T, C] in float32, so that neighbouring channels are adjacent in memory."""
    return weight_C1KK.detach().flatten(1).t().to(torch.float32, memory_format=torch.contiguous_format).contiguous()


def _side(weight_TC: torch.Tensor) -> int:
    return math.isqrt(len(weight_TC))


def _block_of_channels(channels: int) -> int:
    """Channels per program: a power of 2."""
    return 16 if channels <= 16 else 32


def _empty(batch: int, channels: int, height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    return torch.empty((batch, channels, height, width), dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _convolve(x_BCHW: torch.Tensor, weight_TC: torch.Tensor, stride: int) -> torch.Tensor:
    batch, channels, height, width = x_BCHW.shape
    y_BCHW = _empty(batch, channels, -(-height // stride), -(-width // stride), x_BCHW)
    out_height, out_width = y_BCHW.shape[-2:]
    positions = batch * triton.cdiv(out_height, _ROWS) * out_width
    block = _block_of_channels(channels)
    grid = (triton.cdiv(positions, _TILE), triton.cdiv(channels, block))
    with torch.cuda.device_of(x_BCHW):
        _convolve_kernel[grid](
            x_BCHW,
            weight_TC,
            y_BCHW,
            batch,
            channels // GROUP,
            height,
            width,
            out_height,
            out_width,
            KERNEL=_side(weight_TC),
            STRIDE=stride,
            TILE=_TILE,
            BLOCK=block,
            GROUP=GROUP,
        )
    return y_BCHW


def _spread(gradient_BCHW: torch.Tensor, weight_TC: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
    """Input gradient of a convolution of stride 2."""
    batch, channels, height, width = x_BCHW.shape
    result_BCHW = _empty(batch, channels, height, width, gradient_BCHW)
    block = _block_of_channels(channels)
    positions = batch * triton.cdiv(height, 2) * triton.cdiv(width, 2)
    with torch.cuda.device_of(x_BCHW):
        _spread_kernel[(triton.cdiv(positions, _TILE), triton.cdiv(channels, block), 4)](
            gradient_BCHW,
            weight_TC,
            result_BCHW,
            batch,
            channels // GROUP,
            height,
            width,
            *gradient_BCHW.shape[-2:],
            KERNEL=_side(weight_TC),
            TILE=_TILE,
            BLOCK=block,
            GROUP=GROUP,
        )
    return result_BCHW


def _weight_gradient(gradient_BCHW: torch.Tensor, x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
    batch, channels, height, width = x_BCHW.shape
    kernel, block = weight_C1KK.shape[-1], _block_of_channels(channels)
    out_height, out_width = gradient_BCHW.shape[-2:]
    tiles, blocks = triton.cdiv(batch * out_height * out_width, _TILE), triton.cdiv(channels, block)
    chunks = max(1, min(triton.cdiv(tiles, _LEAST_TILES), _PROGRAMS // (blocks * kernel)))
    # Each program writes its own sum, and the sums are added in a fixed order: deterministic, unlike atomic additions.
    sums_NTC = torch.empty(chunks, kernel * kernel, channels, dtype=torch.float32, device=x_BCHW.device)
    with torch.cuda.device_of(x_BCHW):
        _weight_kernel[(chunks, blocks, kernel)](
            gradient_BCHW,
            x_BCHW,
            sums_NTC,
            batch,
            channels // GROUP,
            height,
            width,
            out_height,
            out_width,
            triton.cdiv(tiles, chunks),
            KERNEL=kernel,
            STRIDE=stride,
            TILE=_TILE,
            BLOCK=block,
            GROUP=GROUP,
        )
    return sums_NTC.sum(0).t().reshape(weight_C1KK.shape).to(weight_C1KK.dtype)


_SIZES = ["batch", "groups", "height", "width", "out_height", "out_width"]
"""Arguments that the compiler must not specialize on: a supernet has hundreds of values, and each would trigger a compilation."""


@triton.jit
def _columns(number, groups, BLOCK: tl.constexpr, GROUP: tl.constexpr):
    """C, the indices of a block of channels, and the mask of existing ones."""
    channel = number * BLOCK + tl.arange(0, BLOCK)
    return groups * GROUP, channel, channel < groups * GROUP


@triton.jit
def _values(x, base, row, column, inside, height, width, channels, channel, real):
    """Values [TILE, BLOCK] at (row, column) of each position's image; 0 beyond the edges."""
    there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    offset = (base + row * width + column).to(tl.int64) * channels
    return tl.load(x + offset[:, None] + channel[None, :], mask=there[:, None] & real[None, :], other=0.0).to(tl.float32)


@triton.jit
def _tap(weight, i, j, KERNEL: tl.constexpr, channels, channel):
    """Weights [1, BLOCK] of the tap in row i and column j; 0 outside the kernel."""
    there = (i >= 0) & (i < KERNEL) & (j < KERNEL)
    return tl.load(weight + (i * KERNEL + j) * channels + channel, mask=channel < tl.where(there, channels, 0), other=0.0)[None, :]


@triton.jit
def _write(y, values, base, row, column, inside, height, width, channels, channel, real):
    """Write values [TILE, BLOCK] at (row, column) of each position's image."""
    offset = (base + row * width + column).to(tl.int64) * channels
    there = inside & (row < height) & (column < width)
    tl.store(y + offset[:, None] + channel[None, :], values.to(y.dtype.element_ty), mask=there[:, None] & real[None, :])


@triton.jit(do_not_specialize=_SIZES)
def _convolve_kernel(
    x,
    weight,
    y,
    batch,
    groups,
    height,
    width,
    out_height,
    out_width,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Compute four output rows per position; a position is one column in a band of four rows of an image."""
    channels, channel, real = _columns(tl.program_id(1), groups, BLOCK, GROUP)
    position = tl.program_id(0) * TILE + tl.arange(0, TILE)
    of_image = (out_height + 3) // 4 * out_width
    image = position // of_image
    top = position % of_image // out_width * 4
    out_column = position % out_width
    inside = image < batch
    base = image * height * width
    sum_0 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_1 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_2 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_3 = tl.zeros([TILE, BLOCK], tl.float32)
    # Not unrolled: the compiler would load all rows at once and run out of registers.
    for i in range(3 * STRIDE + KERNEL):
        row = top * STRIDE - KERNEL // 2 + i
        for j in tl.static_range(KERNEL):
            column = out_column * STRIDE - KERNEL // 2 + j
            values = _values(x, base, row, column, inside, height, width, channels, channel, real)
            sum_0 += values * _tap(weight, i, j, KERNEL, channels, channel)
            sum_1 += values * _tap(weight, i - STRIDE, j, KERNEL, channels, channel)
            sum_2 += values * _tap(weight, i - 2 * STRIDE, j, KERNEL, channels, channel)
            sum_3 += values * _tap(weight, i - 3 * STRIDE, j, KERNEL, channels, channel)
    base = image * out_height * out_width
    _write(y, sum_0, base, top, out_column, inside, out_height, out_width, channels, channel, real)
    _write(y, sum_1, base, top + 1, out_column, inside, out_height, out_width, channels, channel, real)
    _write(y, sum_2, base, top + 2, out_column, inside, out_height, out_width, channels, channel, real)
    _write(y, sum_3, base, top + 3, out_column, inside, out_height, out_width, channels, channel, real)


@triton.jit(do_not_specialize=_SIZES)
def _spread_kernel(
    gradient,
    weight,
    result,
    batch,
    groups,
    height,
    width,
    out_height,
    out_width,
    KERNEL: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Input gradient for stride 2, for pixels of one parity, which only every second tap in each direction reaches."""
    channels, channel, real = _columns(tl.program_id(1), groups, BLOCK, GROUP)
    position = tl.program_id(0) * TILE + tl.arange(0, TILE)
    columns = (width + 1) // 2
    of_image = (height + 1) // 2 * columns
    image = position // of_image
    row = position % of_image // columns * 2 + tl.program_id(2) // 2
    column = position % columns * 2 + tl.program_id(2) % 2
    inside = image < batch
    base = image * out_height * out_width
    first_i = (tl.program_id(2) // 2 + KERNEL // 2) % 2
    first_j = (tl.program_id(2) % 2 + KERNEL // 2) % 2
    total = tl.zeros([TILE, BLOCK], tl.float32)
    for step_i in tl.static_range((KERNEL + 1) // 2):
        for step_j in tl.static_range((KERNEL + 1) // 2):
            i, j = first_i + 2 * step_i, first_j + 2 * step_j
            # The shifted values are even by the choice of i and j; the shift rounds down, so positions before the edge stay negative.
            from_row, from_column = (row + KERNEL // 2 - i) >> 1, (column + KERNEL // 2 - j) >> 1
            values = _values(gradient, base, from_row, from_column, inside, out_height, out_width, channels, channel, real)
            total += values * _tap(weight, i, j, KERNEL, channels, channel)
    _write(result, total, image * height * width, row, column, inside, height, width, channels, channel, real)


@triton.jit(do_not_specialize=[*_SIZES, "tiles"])
def _weight_kernel(
    gradient,
    x,
    sums,
    batch,
    groups,
    height,
    width,
    out_height,
    out_width,
    tiles,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Weight gradient of one row of taps, summed over ``tiles`` tiles of output pixels."""
    channels, channel, real = _columns(tl.program_id(1), groups, BLOCK, GROUP)
    i = tl.program_id(2)
    of_image = out_height * out_width
    sum_0 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_1 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_2 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_3 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_4 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_5 = tl.zeros([TILE, BLOCK], tl.float32)
    sum_6 = tl.zeros([TILE, BLOCK], tl.float32)
    for number in range(tiles):
        position = (tl.program_id(0) * tiles + number) * TILE + tl.arange(0, TILE)
        image = position // of_image
        inside = image < batch
        rest = position % of_image
        row, column = rest // out_width * STRIDE - KERNEL // 2 + i, rest % out_width * STRIDE - KERNEL // 2
        there = inside[:, None] & real[None, :]
        slopes = tl.load(gradient + position.to(tl.int64)[:, None] * channels + channel[None, :], mask=there, other=0.0).to(tl.float32)
        base = image * height * width
        sum_0 += slopes * _values(x, base, row, column, inside, height, width, channels, channel, real)
        sum_1 += slopes * _values(x, base, row, column + 1, inside, height, width, channels, channel, real)
        sum_2 += slopes * _values(x, base, row, column + 2, inside, height, width, channels, channel, real)
        if KERNEL > 3:
            sum_3 += slopes * _values(x, base, row, column + 3, inside, height, width, channels, channel, real)
            sum_4 += slopes * _values(x, base, row, column + 4, inside, height, width, channels, channel, real)
        if KERNEL > 5:
            sum_5 += slopes * _values(x, base, row, column + 5, inside, height, width, channels, channel, real)
            sum_6 += slopes * _values(x, base, row, column + 6, inside, height, width, channels, channel, real)
    to = sums + (tl.program_id(0) * KERNEL + i).to(tl.int64) * KERNEL * channels + channel
    tl.store(to, tl.sum(sum_0, 0), mask=real)
    tl.store(to + channels, tl.sum(sum_1, 0), mask=real)
    tl.store(to + 2 * channels, tl.sum(sum_2, 0), mask=real)
    if KERNEL > 3:
        tl.store(to + 3 * channels, tl.sum(sum_3, 0), mask=real)
        tl.store(to + 4 * channels, tl.sum(sum_4, 0), mask=real)
    if KERNEL > 5:
        tl.store(to + 5 * channels, tl.sum(sum_5, 0), mask=real)
        tl.store(to + 6 * channels, tl.sum(sum_6, 0), mask=real)
