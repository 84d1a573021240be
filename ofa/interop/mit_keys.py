"""Names of tensors in MIT's once-for-all package, for the tensors that a supernet stores here.

The package's classes write the same tensor under several names: ``blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight`` in
the published files, ``.conv.`` instead of ``.mobile_inverted_conv.`` since 2020, ``depth_conv.conv.weight`` if the network was
not elastic, and prefixes such as ``module.`` after training on several GPUs. ``plain_key`` converts all to one spelling.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby

from ofa.blocks import Bottleneck, Classifier, ConvBlock, FeatureMix, InvertedResidual, ResidualConv
from ofa.errors import SpaceError
from ofa.families import MobileNetV3Space, ProxylessSpace, ResNetSpace, lower
from ofa.interop.checkpoints import unwrapped_key
from ofa.sharing import layout
from ofa.space import Space

__all__ = ["FAMILIES", "family_of_keys", "is_ignored", "key_names", "mit_class", "plain_key"]

FAMILIES: dict[type[Space], str] = {
    MobileNetV3Space: "OFAMobileNetV3",
    ProxylessSpace: "OFAProxylessNASNets",
    ResNetSpace: "OFAResNets",
}
"""The class of MIT's package that builds the supernets of each family."""

_PLACES = {
    "OFAMobileNetV3": {
        "stem.conv": "first_conv",
        "stem.block": "blocks.0.conv",
        "head.expand": "final_expand_layer",
        "head.mix": "feature_mix_layer",
    },
    "OFAProxylessNASNets": {
        "stem.conv": "first_conv",
        "stem.block": "blocks.0.conv",
        "head.mix": "feature_mix_layer",
    },
    "OFAResNets": {
        "stem.first": "input_stem.0",
        "stem.middle": "input_stem.1.conv",
        "stem.last": "input_stem.2",
    },
}
"""By class: our places outside the stages, and MIT's names for them."""
_LAYERS = {
    ConvBlock.kind: {"conv": ""},
    ResidualConv.kind: {"conv": ""},
    FeatureMix.kind: {"linear": "conv"},
    InvertedResidual.kind: {
        "expand": "inverted_bottleneck",
        "depthwise": "depth_conv",
        "squeeze.reduce.conv": "depth_conv.se.fc.reduce",
        "squeeze.expand.conv": "depth_conv.se.fc.expand",
        "project": "point_linear",
    },
    Bottleneck.kind: {"reduce": "conv1", "conv": "conv2", "expand": "conv3", "downsample": "downsample"},
    Classifier.kind: {"linear": "linear"},
}
"""By kind of block: our layers, and MIT's names for them."""


def mit_class(space: Space) -> str:
    """The class of MIT's package that corresponds to a space.

    Raises:
        SpaceError: the package has no such family.
    """
    for family, name in FAMILIES.items():
        if isinstance(space, family):
            return name
    raise SpaceError(
        f"MIT's package has the families {', '.join(FAMILIES.values())}, but {space.name} is a {type(space).__name__}; "
        "name a space of one of these families"
    )


def plain_key(key: str) -> str:
    """Convert a key of MIT's package from any of its spellings to the common one."""
    parts = unwrapped_key(key).replace("mobile_inverted_conv", "conv").split(".")
    # An elastic layer wraps the plain one under the same name (`bn.bn.`, `linear.linear.`); no two tensors differ only in that.
    return ".".join(part for part, _ in groupby(parts))


def is_ignored(key: str) -> bool:
    """Whether a key is a batch counter (``num_batches_tracked``), on which no output depends."""
    return key.endswith("num_batches_tracked")


def family_of_keys(keys: Iterable[str]) -> str | None:
    """The class of MIT's package that wrote plain keys; None if they do not show it."""
    tops = {key.split(".")[0] for key in keys}
    if "input_stem" in tops:
        return "OFAResNets"
    if "final_expand_layer" in tops:
        return "OFAMobileNetV3"
    return "OFAProxylessNASNets" if {"first_conv", "feature_mix_layer"} <= tops else None


@lru_cache(maxsize=16)
def key_names(space: Space) -> dict[str, str]:
    """Plain keys of MIT's package, by the name of our stored tensor.

    Raises:
        SpaceError: the package has no such family.
    """
    family = mit_class(space)
    places = {**_PLACES[family], **_block_places(space, family), "classifier": "classifier"}
    kinds = {placed.name: placed.block.kind for placed in lower(space, space.largest())}
    names = {}
    for stored in layout(space):
        place = next(place for place in places if stored.name.startswith(f"{place}."))
        layers = _LAYERS[kinds[place]]
        within = stored.name.removeprefix(f"{place}.")
        layer = next(layer for layer in layers if within.startswith(f"{layer}."))
        parts = [places[place], layers[layer], _leaf(within.removeprefix(f"{layer}."))]
        names[stored.name] = plain_key(".".join(part for part in parts if part))
    return names


def _block_places(space: Space, family: str) -> dict[str, str]:
    """Map our places to MIT's, which number blocks across all stages, including the fixed first block of the MobileNet families."""
    residual = family != "OFAResNets"
    places = [f"stages.{s}.{b}" for s, stage in enumerate(space.stages) for b in range(stage.depths[-1])]
    return {place: f"blocks.{index}.conv" if residual else f"blocks.{index}" for index, place in enumerate(places, start=int(residual))}


def _leaf(name: str) -> str:
    """MIT's name of a tensor within a layer: ``norm`` becomes ``bn``, and the kernel matrix ``weight_7to5`` becomes ``7to5_matrix``."""
    *path, leaf = name.split(".")
    steps = leaf.removeprefix("weight_")
    return ".".join([*("bn" if part == "norm" else part for part in path), leaf if steps == leaf else f"{steps}_matrix"])
