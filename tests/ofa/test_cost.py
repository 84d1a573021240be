"""Costs follow from the blocks; here they are counted on the built modules instead, for every family."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ofa.arch import Arch
from ofa.blocks import (
    Block,
    Bottleneck,
    Classifier,
    ConvBlock,
    FeatureMix,
    InvertedResidual,
    PlacedBlock,
    Shape,
    TransformerLayer,
    build_network,
    make_divisible,
)
from ofa.cost import macs, params, peak_activation_bytes, weight_bytes
from ofa.costs import costs
from ofa.families import lower
from ofa.space import Space
from tests.ofa.strategies import ALL_SPACES, OTHER_INPUTS, archs_of, images, placed_at


def counted_macs(network: nn.Module, x_BCHW: torch.Tensor) -> int:
    """MACs as torch counts them while the network runs: two operations are one multiply-accumulate."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x_BCHW)
    return counter.get_total_flops() // 2


@settings(max_examples=40)
@given(archs_of((*ALL_SPACES, *OTHER_INPUTS)))
def test_macs_and_params_are_those_of_the_built_network(case: tuple[Space, Arch]) -> None:
    space, arch = case
    lowered = lower(space, arch)
    with torch.device("meta"):
        network = nn.Sequential(*(placed.block.build() for placed in lowered)).eval()
    x_BCHW = images(arch, batch=1).to("meta")
    assert macs(lowered) == counted_macs(network, x_BCHW)
    assert params(lowered) == sum(parameter.numel() for parameter in network.parameters())


@settings(max_examples=25)
@given(archs_of((*ALL_SPACES, *OTHER_INPUTS)))
def test_every_block_stands_at_the_size_that_reaches_it(case: tuple[Space, Arch]) -> None:
    space, arch = case
    x = images(arch, batch=1).to("meta")
    for placed in lower(space, arch):
        assert x.shape[1:] == placed.input
        with torch.device("meta"):
            x = placed.block.build().eval()(x)
        assert x.shape[1:] == placed.block.output(placed.input)
    assert x.shape == (1, space.num_classes)


def test_shipped_weights_are_the_folded_ones() -> None:
    block = ConvBlock(in_channels=3, out_channels=8, kernel=3, stride=2)
    lowered = (placed_at(32, block),)
    assert params(lowered) == 3 * 8 * 9 + 2 * 8
    assert weight_bytes(lowered) == 4 * (3 * 8 * 9 + 8)
    assert weight_bytes(lowered, bytes_per_weight=1) == 3 * 8 * 9 + 4 * 8


RESIDUAL = InvertedResidual(in_channels=8, mid_channels=32, out_channels=8, kernel=3, residual=True)
PLAIN = InvertedResidual(in_channels=8, mid_channels=32, out_channels=16, kernel=3, stride=2)
GATED = InvertedResidual(in_channels=8, mid_channels=32, out_channels=8, kernel=3, squeeze_excite=True)
SMALL = {"in_channels": 16, "out_channels": 16, "mid_channels": 8}


@pytest.mark.parametrize(
    ("block", "size", "values"),
    [
        # Input and output of the convolution; what follows writes over its output.
        (ConvBlock(in_channels=3, out_channels=8, kernel=3, stride=2), 32, 3 * 32**2 + 8 * 16**2),
        # The expanded image before and after the depthwise convolution, and the input, which the addition still needs.
        (RESIDUAL, 10, (8 + 32 + 32) * 100),
        # Nobody adds the input here; the expanded image and its half-sized successor (or the input beside it) are the most.
        (PLAIN, 10, (32 * 100) + max(8 * 100, 32 * 25)),
        # The gate's vectors are small beside the image that waits for them.
        (GATED, 10, (32 + 32) * 100),
        # The input waits for the addition while the body computes.
        (Bottleneck(**SMALL), 8, (16 + 16 + 8) * 64),
        # The shortcut is made last: its pooled image, the body's output that waits for it, and the input that it is made of.
        (Bottleneck(in_channels=16, mid_channels=8, out_channels=32, stride=2, downsample=True), 8, 16 * 64 + 32 * 16 + 16 * 16),
        # The pooled vector beside the image that it is made of.
        (FeatureMix(in_channels=24, out_channels=32), 4, 24 * 16 + 24),
        (Classifier(in_channels=24, out_channels=10), 1, 24 + 10),
    ],
)
def test_peak_activations_by_hand(block: Block, size: int, values: int) -> None:
    assert peak_activation_bytes((placed_at(size, block),)) == 4 * values
    assert peak_activation_bytes((placed_at(size, block),), bytes_per_value=1) == values


def test_peak_activations_of_attention_by_hand() -> None:
    attends = TransformerLayer(in_channels=8, out_channels=8, heads=2, head_channels=4, mid_channels=16)
    # Input, queries, keys, values, and the products of all tokens with all tokens in both heads.
    assert peak_activation_bytes([PlacedBlock("layer", attends, Shape(10, 8))]) == 4 * (4 * 80 + 2 * 100)
    # With few tokens the feed-forward network takes more: input, its norm or the result, and what lies between.
    expands = TransformerLayer(in_channels=8, out_channels=8, heads=2, head_channels=4, mid_channels=32)
    assert peak_activation_bytes([PlacedBlock("layer", expands, Shape(5, 8))]) == 4 * (2 * 40 + 160)


def test_all_costs_by_name() -> None:
    lowered = (placed_at(10, RESIDUAL),)
    assert costs(lowered) == {
        "macs": macs(lowered),
        "params": params(lowered),
        "weight_bytes": weight_bytes(lowered),
        "peak_activation_bytes": peak_activation_bytes(lowered),
    }


@pytest.mark.parametrize(("channels", "rounded"), [(8, 8), (3, 8), (19.2, 24), (12, 16), (11.9, 16), (100, 104), (99.9, 96), (28.8, 32)])
def test_channels_round_to_multiples_of_eight_and_never_lose_a_tenth(channels: float, rounded: int) -> None:
    assert make_divisible(channels) == rounded
    assert rounded >= 0.9 * channels


@given(archs_of(ALL_SPACES[4:7]))
@settings(max_examples=10)
def test_a_network_of_its_own_follows_its_generator(case: tuple[Space, Arch]) -> None:
    space, arch = case
    one, same, other = (build_network(lower(space, arch), generator=torch.Generator().manual_seed(seed)).eval() for seed in (0, 0, 1))
    x_BCHW = images(arch)
    with torch.no_grad():
        assert torch.equal(one(x_BCHW), same(x_BCHW))
        assert not torch.equal(one(x_BCHW), other(x_BCHW))
