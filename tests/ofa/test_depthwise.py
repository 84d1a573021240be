"""The depthwise convolution: torch's results, whatever way its gradients take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ofa.depthwise import DepthwiseConv2d


@given(
    kernel=st.sampled_from([3, 5, 7, 9]),
    stride=st.integers(1, 3),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 3, 16, 20]),
)
def test_outputs_and_gradients_are_those_of_torch(kernel: int, stride: int, height: int, width: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = DepthwiseConv2d(channels, kernel, stride)
    reference = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False).double()
    with torch.no_grad():
        reference.weight.copy_(torch.randn(reference.weight.shape, generator=generator))
        ours.weight.copy_(reference.weight)
    x_BCHW = torch.randn(2, channels, height, width, generator=generator)
    inputs = (x_BCHW.clone(memory_format=torch.channels_last).requires_grad_(), x_BCHW.double().requires_grad_())
    outputs = (ours(inputs[0]), reference(inputs[1]))
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)).sum().backward()
    pairs = [outputs, (inputs[0].grad, inputs[1].grad), (ours.weight.grad, reference.weight.grad)]
    for one, other in pairs:
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("stride", [1, 2])
def test_float32_images_train_in_bfloat16(stride: int) -> None:
    ours = DepthwiseConv2d(16, 7, stride)
    reference = nn.Conv2d(16, 16, 7, stride, 3, groups=16, bias=False)
    reference.load_state_dict(ours.state_dict())
    x_BCHW = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    inputs = (x_BCHW.clone().requires_grad_(), x_BCHW.clone().requires_grad_())
    for layer, image in zip((ours, reference), inputs, strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(image)
        assert output.dtype == torch.bfloat16
        output.float().square().sum().backward()
    for one, other in ((inputs[0].grad, inputs[1].grad), (ours.weight.grad, reference.weight.grad)):
        torch.testing.assert_close(one, other)


def test_other_ways_are_taken_only_where_they_help() -> None:
    image = torch.randn(2, 8, 6, 6)
    last = image.contiguous(memory_format=torch.channels_last)
    wide, narrow, halving = DepthwiseConv2d(8, 5, 1), DepthwiseConv2d(8, 3, 1), DepthwiseConv2d(8, 3, 2)
    for way in (wide(last), narrow(last), DepthwiseConv2d(8, 5, 2)(last)):
        assert "FasterGradients" in type(way.grad_fn).__name__
    for way in (wide(image), halving(last), wide.double()(last.double())):
        assert "Convolution" in type(way.grad_fn).__name__
    with torch.no_grad():
        assert wide.float()(last).grad_fn is None


@pytest.mark.parametrize("kernel", [5, 7])
def test_an_image_that_needs_no_gradient_gets_none(kernel: int) -> None:
    conv = DepthwiseConv2d(4, kernel, 1)
    image = torch.randn(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    conv(image).sum().backward()
    assert image.grad is None
    assert conv.weight.grad is not None
