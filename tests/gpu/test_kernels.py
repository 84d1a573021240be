"""The layers that have kernels of their own on a GPU compute what torch's compute."""

from __future__ import annotations

import copy
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa import kernels
from ofa.depthwise import DepthwiseConv2d

pytestmark = pytest.mark.gpu

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"])
ROUNDING = {torch.float32: 4e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""What either may be off by chance, as a share of the largest value: some units of the last place."""
SIZES = [(4, 8, 9, 7), (2, 24, 14, 14), (3, 40, 5, 6), (2, 16, 1, 1)]
"""Batch, channels, height, width: odd and even, lower than a kernel, in blocks of 16 and of 32 channels, whole and in part."""


def gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The result and its gradients, for a slope that differs everywhere, in float64 on the CPU."""
    slope = torch.cos(torch.arange(result.numel(), device=result.device)).view(result.shape).to(result.dtype)
    found = torch.autograd.grad(result, inputs, slope)
    return [tensor.detach().cpu().double() for tensor in (result, *found)]


def assert_no_worse(found: list[Tensor], torchs: list[Tensor], exact: list[Tensor], rounding: float) -> None:
    for one, other, true in zip(found, torchs, exact, strict=True):
        errors = [float((tensor - true).abs().max()) for tensor in (one, other)]
        assert errors[0] <= 4 * errors[1] + rounding * float(true.abs().max())


@DTYPES
@pytest.mark.parametrize(("kernel", "stride"), list(product([3, 5, 7], [1, 2])))
def test_depthwise_convolutions(kernel: int, stride: int, dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(kernel)
    for size in SIZES:
        x_BCHW = torch.randn(size, generator=generator).to(device, dtype).contiguous(memory_format=torch.channels_last)
        module = DepthwiseConv2d(size[1], kernel, stride).to(device, dtype)
        outcomes = []
        # In training the kernel is taken where it is faster, which is in float32; it must be right in all precisions.
        own = partial(kernels.depthwise_conv, weight_C1KK=module.weight, stride=stride) if kernels.takes(x_BCHW) else module
        for make in (own, lambda x, weight=module.weight, c=size[1]: F.conv2d(x, weight, None, stride, kernel // 2, 1, c)):
            x = x_BCHW.detach().requires_grad_()
            outcomes.append(gradients(make(x), [x, module.weight]))
        x, weight = x_BCHW.detach().cpu().double().requires_grad_(), module.weight.detach().cpu().double().requires_grad_()
        exact = gradients(F.conv2d(x, weight, None, stride, kernel // 2, 1, size[1]), [x, weight])
        assert_no_worse(*outcomes, exact, ROUNDING[dtype])


@DTYPES
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6(), nn.Hardswish()], ids=["none", "relu", "relu6", "h_swish"])
def test_batch_norm_with_activation(activation: nn.Module | None, dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    for size in SIZES[:3]:
        # A mean far from zero, whose square would cancel the variance.
        x_BCHW = (20 + 3 * torch.randn(size, generator=generator)).to(device, dtype).contiguous(memory_format=torch.channels_last)
        norm = nn.BatchNorm2d(size[1], momentum=0.1)
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.uniform_(-1, 2, generator=generator)
        outcomes = []
        for apply, place, kind in (
            (kernels.norm_activation, device, dtype),
            (by_modules, device, dtype),
            (by_modules, torch.device("cpu"), torch.float64),
        ):
            own = copy.deepcopy(norm).to(place, torch.float64 if kind == torch.float64 else torch.float32).train()
            x = x_BCHW.detach().to(place, kind).requires_grad_()
            told = gradients(apply(x, own, activation), [x, own.weight, own.bias])
            assert own.running_mean is not None
            assert own.running_var is not None
            outcomes.append([*told, own.running_mean.cpu().double(), own.running_var.cpu().double()])
        assert_no_worse(*outcomes, ROUNDING[dtype])


def by_modules(x_BCHW: Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None) -> Tensor:
    y_BCHW: Tensor = norm(x_BCHW)
    return y_BCHW if activation is None else activation(y_BCHW)


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6(), nn.Hardswish()], ids=["none", "relu", "relu6", "h_swish"])
def test_what_is_not_a_number_stays_none(activation: nn.Module | None, device: torch.device) -> None:
    x_BCHW = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0)).to(device).contiguous(memory_format=torch.channels_last)
    x_BCHW[0, 3, 1, 2] = float("nan")
    # Otherwise the guard, which goes back when a loss is not finite, would not see it.
    assert kernels.norm_activation(x_BCHW, nn.BatchNorm2d(16).to(device).train(), activation)[:, 3].isnan().all()
