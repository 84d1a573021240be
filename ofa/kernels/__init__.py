"""Triton kernels for training on GPUs, for operations in which torch's kernels read the activations too often.

The modules of this package import Triton, which comes with torch's builds for GPUs. Import them only when a tensor is on a GPU;
``available`` tells whether Triton is installed. Benchmarks: benchmarks/gpu/speed.py.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import nn

from ofa.kernels.layout import GROUP

__all__ = ["GROUP", "available", "depthwise_conv", "norm_activation", "takes", "takes_depthwise"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def available() -> bool:
    """Whether Triton is installed; torch for Windows, for example, comes without it."""
    return importlib.util.find_spec("triton") is not None


def takes(x_BCHW: torch.Tensor) -> bool:
    """Whether the kernels support a tensor: on a GPU, channels-last, channels a multiple of ``GROUP``, float32, bfloat16 or float16."""
    return (
        x_BCHW.is_cuda
        and x_BCHW.dtype in _DTYPES
        and x_BCHW.shape[1] % GROUP == 0
        and x_BCHW.is_contiguous(memory_format=torch.channels_last)
        and available()
    )


def takes_depthwise(x_BCHW: torch.Tensor) -> bool:
    """Whether the depthwise kernel is faster than cuDNN for a tensor: in float32, because cuDNN is fast for 16 bits."""
    return x_BCHW.dtype == torch.float32 and takes(x_BCHW)


def depthwise_conv(x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
    """Depthwise convolution by ``ofa.kernels.depthwise.depthwise``, imported on the first call."""
    from ofa.kernels.depthwise import depthwise

    return depthwise(x_BCHW, weight_C1KK, stride)


def norm_activation(x_BCHW: torch.Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None) -> torch.Tensor:
    """``activation(norm(x))`` in training mode, by a fused kernel if it supports the tensor and modules, otherwise by the modules.

    Args:
        x_BCHW: output of the convolution.
        norm: in training mode.
        activation: applied after the norm; None for none.
    """
    name = _ACTIVATIONS.get(type(activation))
    if name is None or not _is_plain(norm) or not takes(x_BCHW) or x_BCHW.numel() == x_BCHW.shape[1]:
        y_BCHW: torch.Tensor = norm(x_BCHW)
        return y_BCHW if activation is None else activation(y_BCHW)
    from ofa.kernels.norm import norm_activation as kernel

    return kernel(x_BCHW, norm, name)


_ACTIVATIONS: dict[type, Any] = {type(None): "none", nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "h_swish"}


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    """Whether a norm is a plain ``BatchNorm2d`` without hooks, which the kernel would not call."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and not norm._forward_hooks
        and not norm._forward_pre_hooks
    )
