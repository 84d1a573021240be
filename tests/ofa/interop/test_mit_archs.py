"""Archs in MIT's notation: settings of its supernets, and configurations of its published networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa.arch import Arch
from ofa.errors import ArchError, OfaError
from ofa.families import get_space, lower
from ofa.interop import mit
from ofa.space import Space
from tests.ofa.interop.recorded import assert_one_sentence

# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50", "ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny"]
)
def test_settings_round_trip(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(5)
    for arch in [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(50))]:
        assert mit.arch(space, mit.config(space, arch), arch.resolution) == arch


def test_single_values_tuples_and_arrays_stand_for_lists() -> None:
    space = get_space("ofa-proxyless-w1.3")
    assert mit.arch(space, {"ks": 7, "e": 6, "d": 4}, 224) == space.largest()
    lists = {"ks": np.full(21, 7), "e": (6.0,) * 21, "d": np.array([4, 4, 4, 4, 4]), "wid": None}
    arch = mit.arch(space, lists, 224)
    assert arch == space.largest()
    assert arch.to_json() == space.largest().to_json()
    resnet = get_space("ofa-resnet50")
    assert mit.arch(resnet, {"d": 2, "e": 0.35, "w": 2}, 224) == resnet.largest()
    assert mit.arch(resnet, {"d": 0, "e": 0.2, "w": 0}, 128) == resnet.smallest()


def test_stem_of_resnets_is_deep_only_at_the_largest_d() -> None:
    space = get_space("ofa-resnet50")
    depths = [mit.arch(space, {"d": [d, 0, 0, 0, 0], "e": 0.2, "w": 0}, 128).network["stem_depth"] for d in (0, 1, 2)]
    assert depths == [2, 2, 3]


GOOD = {"ks": [3] * 20, "e": [4] * 20, "d": [2] * 5}


@pytest.mark.parametrize(
    ("name", "settings", "resolution", "words"),
    [
        ("ofa-mbv3-w1.0", {"ks": 3, "e": 4}, 224, "must have the key 'd'"),
        ("ofa-mbv3-w1.0", {**GOOD, "ks": [3] * 19}, 224, "'ks' must have 20 values, one for a block, but has 19"),
        ("ofa-mbv3-w1.0", {**GOOD, "ks": [4] * 20}, 224, "kernel must be one of [3, 5, 7]"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": [5] * 5}, 224, "depth of stages.0 must be one of [2, 3, 4]"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": [-1] * 5}, 224, "depth of stages.0 must be one of [2, 3, 4]"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": [2.5] * 5}, 224, "'d' must hold whole numbers, but has 2.5"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": "22222"}, 224, "'d' must hold whole numbers, but has '22222'"),
        ("ofa-mbv3-w1.0", GOOD, 230, "resolution must be one of"),
        ("ofa-proxyless-w1.3", {"ks": 3, "e": 4, "d": [2] * 4}, 224, "'d' must have 6 values"),
        ("ofa-resnet50", {"d": 0, "e": 0.2, "w": 3}, 224, "w must be indices"),
        ("ofa-resnet50", {"d": [3, 0, 0, 0, 0], "e": 0.2, "w": 0}, 224, "the stem's d must be within 0..2"),
        ("ofa-resnet50", {"d": 0, "e": 0.2, "w": [0] * 5}, 224, "'w' must have 6 values"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(name: str, settings: dict[str, Any], resolution: int, words: str) -> None:
    with pytest.raises(ArchError) as caught:
        mit.arch(get_space(name), settings, resolution)
    assert_one_sentence(caught.value, words)


# -- published networks -----------------------------------------------------------------------------------------------


def mobile_layer(block: Any, **extra: Any) -> dict[str, Any]:
    return {
        "name": "MBInvertedConvLayer",
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel,
        "stride": block.stride,
        "expand_ratio": block.mid_channels / block.in_channels if block.expand else 1,
        "mid_channels": block.mid_channels if block.expand else None,
        "act_func": block.activation,
        "use_se": block.squeeze_excite,
        **extra,
    }


def conv_layer(block: Any, *, norm: bool = True) -> dict[str, Any]:
    sizes = {"kernel_size": getattr(block, "kernel", 1), "stride": getattr(block, "stride", 1)}
    channels = {"in_channels": block.in_channels, "out_channels": block.out_channels}
    usual = {
        "dilation": 1,
        "groups": 1,
        "bias": False,
        "has_shuffle": False,
        "use_bn": norm,
        "dropout_rate": 0,
        "ops_order": "weight_bn_act",
    }
    return {"name": "ConvLayer", **sizes, **channels, **usual, "act_func": block.activation}


def net_config(arch: Arch, key: str = "conv") -> dict[str, Any]:
    """The net.config that MIT's package writes for a network of the MobileNet families."""
    blocks = {placed.name: placed.block for placed in lower(get_space(arch.space), arch)}
    inner = [block for name, block in blocks.items() if name == "stem.block" or name.startswith("stages.")]
    residual = [
        {"name": "ResidualBlock", key: mobile_layer(block), "shortcut": {"name": "IdentityLayer"} if block.residual else None}  # type: ignore[attr-defined]
        for block in inner
    ]
    classifier = {"name": "LinearLayer", "in_features": blocks["classifier"].in_channels, "out_features": 1000}
    mobilenet = "mbv3" in arch.space
    network = {
        "name": "MobileNetV3" if mobilenet else "ProxylessNASNets",
        "first_conv": conv_layer(blocks["stem.conv"]),
        "blocks": residual,
    }
    if mobilenet:
        network["final_expand_layer"] = conv_layer(blocks["head.expand"])
    return {**network, "feature_mix_layer": conv_layer(blocks["head.mix"], norm=not mobilenet), "classifier": classifier}


def resnet_config(arch: Arch) -> dict[str, Any]:
    blocks = {placed.name: placed.block for placed in lower(get_space(arch.space), arch)}
    stem = [conv_layer(blocks["stem.first"]), conv_layer(blocks["stem.last"])]
    if "stem.middle" in blocks:
        middle = {**conv_layer(blocks["stem.middle"]), "name": "ConvLayer"}
        stem.insert(1, {"name": "ResidualBlock", "conv": middle, "shortcut": {"name": "IdentityLayer"}})
    bottlenecks: list[Any] = [block for name, block in blocks.items() if name.startswith("stages.")]
    body = [
        {
            "name": "ResNetBottleneckBlock",
            "in_channels": block.in_channels,
            "out_channels": block.out_channels,
            "kernel_size": 3,
            "stride": block.stride,
            "expand_ratio": 0.25,
            "mid_channels": block.mid_channels,
            "act_func": "relu",
            "groups": 1,
            "downsample_mode": "avgpool_conv",
        }
        for block in bottlenecks
    ]
    classifier = {"name": "LinearLayer", "in_features": blocks["classifier"].in_channels, "out_features": 1000}
    return {"name": "ResNets", "input_stem": stem, "blocks": body, "classifier": classifier}


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3"])
@pytest.mark.parametrize("key", ["conv", "mobile_inverted_conv"])
def test_networks_of_the_mobile_families_are_found(name: str, key: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for arch in [get_space(name).sample(rng) for _ in range(5)]:
        path = tmp_path / "net.config"
        path.write_text(json.dumps(net_config(arch, key)), encoding="utf-8")
        assert mit.arch_from_net_config(path, arch.resolution) == arch


def test_networks_of_resnets_are_found() -> None:
    space = get_space("ofa-resnet50")
    rng = np.random.default_rng(12)
    for arch in [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(5))]:
        found = mit.arch_from_net_config(resnet_config(arch), arch.resolution)
        assert found == arch


def test_blocks_that_do_nothing_are_skipped_ones() -> None:
    arch = get_space("ofa-proxyless-w1.3").sample(np.random.default_rng(3))
    network = net_config(arch)
    network["blocks"].insert(3, {"name": "ResidualBlock", "conv": {"name": "ZeroLayer"}, "shortcut": {"name": "IdentityLayer"}})
    assert mit.arch_from_net_config(network, arch.resolution) == arch


def test_networks_of_no_space_are_told_with_the_first_difference() -> None:
    arch = get_space("ofa-mbv3-w1.2").largest()

    def sentence(change: Callable[[dict[str, Any]], Any], resolution: int = 224, space: Space | None = None) -> str:
        network = net_config(arch)
        change(network)
        with pytest.raises(OfaError) as caught:
            mit.arch_from_net_config(network, resolution, space)
        assert_one_sentence(caught.value)
        return str(caught.value)

    assert "the nearest being ofa-mbv3-w1.2, but stages.1.2 has kernel 9 instead of" in sentence(
        lambda network: network["blocks"][7]["conv"].update(kernel_size=9)
    )
    assert "stages.0 has 5 blocks instead of 2 or 3 or 4" in sentence(lambda network: network["blocks"].insert(2, network["blocks"][2]))
    assert "head.expand has out_channels 8 instead of 1152" in sentence(
        lambda network: network["final_expand_layer"].update(out_channels=8)
    )
    assert "stages.0.0 has in_channels 24 instead of 16" in sentence(lambda network: None, space=get_space("ofa-mbv3-w1.0"))
    assert "with groups 2" in sentence(lambda network: network["first_conv"].update(groups=2))
    assert "raised KeyError: 'classifier'" in sentence(lambda network: network.pop("classifier"))
    assert "must have a name among MobileNetV3" in sentence(lambda network: network.update(name="VGG"))
    assert "resolution must be one of" in sentence(lambda network: None, resolution=230)
    assert "it is of OFAMobileNetV3" in sentence(lambda network: None, space=get_space("ofa-resnet50"))
