"""Kernels in Triton for training on GPUs, where torch's own pass over the activations too often.

The modules here import Triton, which comes with torch's builds for GPUs: import them only where a tensor lies on a GPU. ``available``
says whether that is possible. Benchmarks: benchmarks/gpu/speed.py.
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
    """Whether Triton is installed; on Windows, for example, torch comes without."""
    return importlib.util.find_spec("triton") is not None


def takes(x_BCHW: torch.Tensor) -> bool:
    """Whether the kernels can read a tensor: on a GPU, channels last, of whole groups of channels."""
    return (
        x_BCHW.is_cuda
        and x_BCHW.dtype in _DTYPES
        and x_BCHW.shape[1] % GROUP == 0
        and x_BCHW.is_contiguous(memory_format=torch.channels_last)
        and available()
    )


def takes_depthwise(x_BCHW: torch.Tensor) -> bool:
    """Whether a depthwise convolution of a tensor is faster by the kernel than by cuDNN, which is good at 16 bits."""
    return x_BCHW.dtype == torch.float32 and takes(x_BCHW)


def depthwise_conv(x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, stride: int) -> torch.Tensor:
    """``ofa.kernels.depthwise.depthwise``, imported only here."""
    from ofa.kernels.depthwise import depthwise

    return depthwise(x_BCHW, weight_C1KK, stride)


def norm_activation(x_BCHW: torch.Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None) -> torch.Tensor:
    """``activation(norm(x))`` in training: by one kernel where there is one, by the modules elsewhere.

    Args:
        x_BCHW: the convolution's output.
        norm: in training mode.
        activation: what follows, if anything does.
    """
    name = _ACTIVATIONS.get(type(activation))
    if name is None or not _is_plain(norm) or not takes(x_BCHW) or x_BCHW.numel() == x_BCHW.shape[1]:
        y_BCHW: torch.Tensor = norm(x_BCHW)
        return y_BCHW if activation is None else activation(y_BCHW)
    from ofa.kernels.norm import norm_activation as kernel

    return kernel(x_BCHW, norm, name)


_ACTIVATIONS: dict[type, Any] = {type(None): "none", nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "h_swish"}


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    """Whether a norm does what its class says and nobody listens: a hook must see it called."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and not norm._forward_hooks
        and not norm._forward_pre_hooks
    )
