"""Universal inverted bottlenecks: kernels that may be absent, and where the stride is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from ofa.blocks import UniversalInvertedBottleneck, build_network
from ofa.cost import macs
from ofa.families import get_space, lower
from ofa.sharing import layout
from ofa.supernet import Supernet

SPACE = get_space("ofa-mbv4-tiny")


def bottleneck(first: int, middle: int, stride: int = 1) -> UniversalInvertedBottleneck:
    return UniversalInvertedBottleneck(
        in_channels=8, mid_channels=16, out_channels=8, first_kernel=first, middle_kernel=middle, stride=stride, residual=stride == 1
    )


@pytest.mark.parametrize(("first", "middle"), list(product((0, 3, 5), repeat=2)))
def test_the_four_corners_are_the_layers_of_the_paper(first: int, middle: int) -> None:
    names = [name for name, _ in bottleneck(first, middle).build().named_children()]
    assert names == [*(["first"] if first else []), "expand", *(["middle"] if middle else []), "project"]
    activated = [name for name, part in bottleneck(first, middle).build().named_children() if "activation" in dict(part.named_children())]
    assert activated == [name for name in names if name in ("expand", "middle")]


@pytest.mark.parametrize(("first", "middle", "strided"), [(3, 5, "middle"), (0, 3, "middle"), (5, 0, "first")])
def test_the_stride_is_that_of_the_middle_or_else_of_the_first(first: int, middle: int, strided: str) -> None:
    block = bottleneck(first, middle, stride=2).build()
    strides = {name: part.stride for name, part in block.named_modules() if isinstance(part, nn.Conv2d)}
    assert {name for name, stride in strides.items() if stride == (2, 2)} == {f"{strided}.conv"}


def test_a_stride_needs_a_depthwise_convolution() -> None:
    with pytest.raises(ValueError, match="has stride 2 and both kernels are 0; give it a kernel"):
        bottleneck(0, 0, stride=2)


def test_a_kernel_that_is_absent_shrinks_none_that_is_stored() -> None:
    stored = {tensor.name: tensor for tensor in layout(SPACE)}
    for place in ("stages.2.1.first.conv.weight", "stages.2.1.middle.conv.weight", "stages.1.0.first.conv.weight"):
        assert stored[place].shape[-2:] == (5, 5)
        assert stored[place].kernels == (5, 3)
        assert f"{place}_5to3" in stored


def test_blocks_without_depthwise_convolutions_leave_the_stored_ones_alone() -> None:
    supernet = Supernet(SPACE, generator=torch.Generator().manual_seed(0)).train()
    supernet.subnet(SPACE.smallest(16))(torch.randn(4, 3, 16, 16)).sum().backward()
    assert supernet.decayed.grad is not None
    named = {name: tensor.data_ptr() for name, tensor in supernet.named_tensors().items()}
    start = (named["stages.2.0.first.conv.weight"] - supernet.decayed.data_ptr()) // 4
    assert not supernet.decayed.grad[start : start + 25].any()
    start = (named["stages.2.0.expand.conv.weight"] - supernet.decayed.data_ptr()) // 4
    assert supernet.decayed.grad[start : start + 25].any()


def test_the_large_space_holds_networks_of_the_size_of_the_published_ones() -> None:
    space = get_space("ofa-mbv4")
    assert macs(lower(space, space.smallest(224))) < 190e6 < macs(lower(space, space.largest(224)))  # MNv4-Conv-S
    assert macs(lower(space, space.largest(256))) > 1.3e9  # MNv4-Conv-M
    rng = np.random.default_rng(0)
    network = build_network(lower(space, space.sample(rng))).eval()
    assert not any(isinstance(part, nn.Hardswish | nn.Hardsigmoid) for part in network.modules())
