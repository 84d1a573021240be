"""A depthwise convolution whose gradients are fast on CPUs (measured by benchmarks/depthwise_gradient.py).

Weight gradient: oneDNN has a depthwise kernel only for kernel widths up to 3, and only for images at least as high as the kernel.
Otherwise it computes the gradient of a dense convolution and discards nearly all of it. But the gradient of one column of taps needs
only the pixels under that column. So a wide kernel is cut into strips of 3 columns, and a strided kernel into the phases of the
stride. Each piece is the gradient of a narrow convolution of stride 1 over its own pixels, padded to the kernel's height if needed.

Input gradient: at stride 1 it is itself a depthwise convolution, with the kernel rotated by 180 degrees. oneDNN's forward kernels
compute it faster than its backward kernels: in about half the time for wide kernels, hardly less for 3x3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ofa import kernels

__all__ = ["DepthwiseConv2d"]

_STRIP = 3


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with one filter per channel, an odd kernel, and padding that keeps the image size at stride 1.

    On a GPU, float32 images in channels-last layout go through Triton kernels (``ofa.kernels``). Everything else uses torch's forward.
    Training in float32 on a CPU with channels-last images uses faster gradients (see the module's docstring). All results equal
    torch's up to the order of summation.

    Args:
        channels: of input and output.
        kernel: height and width of the filters; odd.
        stride: in both directions.
        bias: whether to add a bias per channel.
    """

    def __init__(self, channels: int, kernel: int, stride: int, *, bias: bool = False) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=bias)

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if input.is_cuda and torch.is_autocast_enabled("cuda"):
            input = input.to(torch.get_autocast_dtype("cuda"))
        if kernels.takes_depthwise(input):
            return _shifted(kernels.depthwise_conv(input, weight, self.stride[0]), bias)
        faster = (
            (weight.shape[-1] > _STRIP or self.stride[0] == 1)
            and weight.requires_grad
            and torch.is_grad_enabled()
            and input.device.type == "cpu"
            and input.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")  # autocast would compute forward in another precision than the gradients
            and input.is_contiguous(memory_format=torch.channels_last)
        )
        if faster:
            return _shifted(_FasterGradients.apply(input, weight, self.stride[0]), bias)  # type: ignore[no-untyped-call]
        plain: torch.Tensor = super()._conv_forward(input, weight, bias)
        return plain


def _shifted(output_BCHW: torch.Tensor, bias_C: torch.Tensor | None) -> torch.Tensor:
    return output_BCHW if bias_C is None else output_BCHW + bias_C.to(output_BCHW.dtype).view(-1, 1, 1)


class _FasterGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.save_for_backward(x_BCHW, weight_C1KK)
        ctx.stride = stride
        channels, kernel = weight_C1KK.shape[0], weight_C1KK.shape[-1]
        return nn.functional.conv2d(x_BCHW, weight_C1KK, None, stride, kernel // 2, 1, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None]:
        x_BCHW, weight_C1KK = ctx.saved_tensors
        gradient_BCHW = gradient_BCHW.contiguous(memory_format=torch.channels_last)
        by_input = _input_gradient(gradient_BCHW, x_BCHW, weight_C1KK, ctx.stride) if ctx.needs_input_grad[0] else None
        return by_input, _weight_gradient(gradient_BCHW, x_BCHW, weight_C1KK, ctx.stride), None


def _input_gradient(gradient_BCHW: torch.Tensor, x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
    channels, _, kernel, _ = weight_C1KK.shape
    if stride == 1:
        return nn.functional.conv2d(gradient_BCHW, weight_C1KK.flip(2, 3), None, 1, kernel // 2, 1, channels)
    by_input = _gradients(gradient_BCHW, x_BCHW, weight_C1KK, stride, (kernel // 2,) * 2, (True, False))[0]
    assert by_input is not None
    return by_input


def _weight_gradient(gradient_BCHW: torch.Tensor, x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
    channels, _, kernel, _ = weight_C1KK.shape
    height, width = gradient_BCHW.shape[-2:]
    if kernel <= _STRIP and height >= kernel:
        by_weight = _gradients(gradient_BCHW, x_BCHW, weight_C1KK, stride, (kernel // 2,) * 2, (False, True))[1]
        assert by_weight is not None
        return by_weight
    # At stride 1 all rows of the image are used, and torch pads them without a copy.
    copied = stride > 1 or height < kernel
    padding = (0 if copied else kernel // 2, 0)
    result_C1KK = torch.empty(weight_C1KK.shape)
    for rows in _taps(kernel, stride, kernel):
        # The taps of one phase of the stride see every stride-th pixel: on these pixels the convolution has stride 1.
        down = _Window(rows.start - kernel // 2, stride, height + len(rows) - 1) if copied else _Window(0, 1, height)
        for columns in _taps(kernel, stride, _STRIP):
            across = _Window(columns.start - kernel // 2, stride, width + len(columns) - 1)
            taps = weight_C1KK.new_empty(channels, 1, len(rows), len(columns))
            by_taps = _gradients(gradient_BCHW, _pixels(x_BCHW, down, across), taps, 1, padding, (False, True))[1]
            assert by_taps is not None
            result_C1KK[:, :, rows.start : rows.stop : stride, columns.start : columns.stop : stride] = by_taps
    return result_C1KK


def _taps(kernel: int, stride: int, most: int) -> Iterator[range]:
    """The taps along one side of a kernel, grouped by phase of the stride, at most ``most`` taps per group."""
    for phase in range(stride):
        for first in range(phase, kernel, stride * most):
            yield range(first, min(first + stride * most, kernel), stride)


class _Window(NamedTuple):
    """Pixels along one side of an image: ``length`` pixels from ``start`` (negative: before the edge) in steps of ``step``."""

    start: int
    step: int
    length: int

    def inside(self, size: int) -> tuple[slice, slice]:
        """The part of the window within an image of ``size`` pixels, as a slice of the window and as a slice of the image."""
        first = min(self.length, max(0, -(self.start // self.step)))
        end = max(first, min(self.length, -((self.start - size) // self.step)))
        from_first = self.start + first * self.step
        return slice(first, end), slice(from_first, from_first + (end - first) * self.step, self.step)


def _pixels(x_BCHW: torch.Tensor, down: _Window, across: _Window) -> torch.Tensor:
    """The pixels of every image in a window; zero beyond the edges."""
    pixels_BCHW = torch.empty((*x_BCHW.shape[:2], down.length, across.length), memory_format=torch.channels_last)
    (to_rows, rows), (to_columns, columns) = down.inside(x_BCHW.shape[2]), across.inside(x_BCHW.shape[3])
    # torch's padding would write every pixel twice: first zeros, then the image.
    pixels_BCHW[:, :, : to_rows.start].zero_()
    pixels_BCHW[:, :, to_rows.stop :].zero_()
    pixels_BCHW[:, :, to_rows, : to_columns.start].zero_()
    pixels_BCHW[:, :, to_rows, to_columns.stop :].zero_()
    pixels_BCHW[:, :, to_rows, to_columns] = x_BCHW[:, :, rows, columns]
    return pixels_BCHW


def _gradients(
    gradient_BCHW: torch.Tensor,
    x_BCHW: torch.Tensor,
    weight_C1KL: torch.Tensor,
    stride: int,
    padding: tuple[int, int],
    wanted: tuple[bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Torch's input and weight gradients of a depthwise convolution with K x L taps; None where ``wanted`` is False."""
    by_input, by_weight, _ = torch.ops.aten.convolution_backward(
        gradient_BCHW, x_BCHW, weight_C1KL, None, [stride] * 2, list(padding), [1, 1], False, [0, 0], len(weight_C1KL), [*wanted, False]
    )
    return by_input, by_weight
