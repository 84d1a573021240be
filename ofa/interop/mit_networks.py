"""Published networks of MIT's once-for-all package: conversion of a ``net.config`` to an arch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from ofa.arch import Arch, Genes
from ofa.blocks import Block, Bottleneck, Classifier, ConvBlock, FeatureMix, InvertedResidual, MaxPool, ResidualConv
from ofa.errors import ArchError, SpaceError
from ofa.families import ResNetSpace, get_space, lower, space_names
from ofa.interop.mit_keys import FAMILIES, mit_class
from ofa.reading import read_json
from ofa.space import Space

__all__ = ["arch_from_net_config"]

Layer = Mapping[str, Any]

_OFA_CLASSES = {"MobileNetV3": "OFAMobileNetV3", "ProxylessNASNets": "OFAProxylessNASNets", "ResNets": "OFAResNets"}
"""By the name in a net config: the class of the supernet."""

_USUAL = {"dilation": 1, "groups": 1, "bias": False, "has_shuffle": False, "use_se": False, "ops_order": "weight_bn_act"}
"""Defaults of layer configs, which are also the only supported values."""


class _MisfitError(Exception):
    """A network that a space does not contain: the number of matching blocks, and the first difference as a clause."""

    def __init__(self, fitting: int, reason: str) -> None:
        super().__init__(reason)
        self.fitting = fitting


def arch_from_net_config(source: Mapping[str, Any] | str | os.PathLike[str], resolution: int, space: Space | None = None) -> Arch:
    """The arch of a network that MIT published, or that its ``get_active_subnet().config`` describes.

    Every block is converted and looked up among the blocks that the space can have at that place. So a network is accepted only if
    the arch has exactly its layers, apart from the number of classes, dropout and the epsilon of batch norms. Blocks without
    operation (``ZeroLayer``) count as skipped.

    Args:
        source: the dictionary, or its JSON file.
        resolution: side of the square input in pixels (``image_size`` in the network's ``run.config``).
        space: the space of the network; by default the named space that contains it.

    Raises:
        FileError: the file cannot be read.
        ArchError: the dictionary is no network, no space contains it (the message states where the closest space differs), or the
            space lacks the resolution.
        SpaceError: the space given is of another family than the network.
    """
    network = source if isinstance(source, Mapping) else read_json(source)
    label = "the net config" if isinstance(source, Mapping) else f"'{source}'"
    family = _family(network, label)
    try:
        stem, body, head = _blocks(network, family)
        hash((*stem, *chain.from_iterable(body), *head))  # raises TypeError if a config has a list in place of a number
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ArchError(
            f"{label} must describe a {network['name']} as MIT's package writes it, but reading it raised {type(error).__name__}: {error}; "
            "take the unchanged net.config of the network"
        ) from error
    misfits: list[tuple[_MisfitError, Space]] = []
    for candidate in [space] if space else [get_space(name) for name in space_names()]:
        if FAMILIES.get(type(candidate)) != family:
            continue
        try:
            found = _find(candidate, stem, body, head)
        except _MisfitError as misfit:
            misfits.append((misfit, candidate))
            continue
        arch = replace(found, resolution=int(resolution))
        candidate.check(arch)
        return arch
    raise _no_space(label, family, misfits, space)


def _family(network: Any, label: str) -> str:
    name = network.get("name") if isinstance(network, Mapping) else None
    if name not in _OFA_CLASSES:
        raise ArchError(f"{label} must have a name among {', '.join(_OFA_CLASSES)}, but has {name!r}; give the net.config of a network")
    return _OFA_CLASSES[name]


def _no_space(label: str, family: str, misfits: list[tuple[_MisfitError, Space]], space: Space | None) -> Exception:
    if not misfits:
        assert space is not None
        return SpaceError(f"{label} must be of {mit_class(space)} for {space.name}, but it is of {family}; name a space of that family")
    misfit, nearest = max(misfits, key=lambda pair: pair[0].fitting)
    which = nearest.name if space else f"a named space, the nearest being {nearest.name}"
    return ArchError(f"{label} must be a network of {which}, but {misfit}; give the space that it was taken from as 'space'")


# -- finding the arch -------------------------------------------------------------------------------------------------


def _find(space: Space, stem: list[Block], stages: list[list[Block]], head: list[Block]) -> Arch:
    """The arch that has these blocks, at the largest resolution of the space."""
    if len(stages) != len(space.stages):
        raise _MisfitError(0, f"it has {len(stages)} stages instead of {len(space.stages)}")
    network = _network_genes(space, stem, stages)
    genes_of = _genes_by_block(space, network)
    chosen: list[tuple[Genes, ...]] = []
    for s, (stage, blocks) in enumerate(zip(space.stages, stages, strict=True)):
        done = sum(map(len, stages[:s]))
        if len(blocks) not in stage.depths:
            raise _MisfitError(done, f"stages.{s} has {len(blocks)} blocks instead of {_either(stage.depths)}")
        known = [genes_of[f"stages.{s}.{b}"] for b in range(len(blocks))]
        for b, block in enumerate(blocks):
            if block not in known[b]:
                raise _MisfitError(done + b, f"stages.{s}.{b} {_difference(block, known[b])}")
        chosen.append(tuple(known[b][block] for b, block in enumerate(blocks)))
    arch = Arch(space.name, space.resolutions[-1], tuple(chosen), network)
    _compare_ends(space, arch, stem, head)
    return arch


def _genes_by_block(space: Space, network: Genes) -> dict[str, dict[Block, Genes]]:
    """By place, all blocks that the space can have there, each with its genes."""
    found: dict[str, dict[Block, Genes]] = {}
    names = {gene.name: len(gene.values) for stage in space.stages for gene in stage.genes}
    for genes in _combinations(names):
        arch = replace(space.uniform(resolution=-1, depth=-1, genes=genes), network=network)
        for placed in lower(space, arch):
            where = placed.name.split(".")
            if where[0] == "stages":
                found.setdefault(placed.name, {}).setdefault(_comparable(placed.block), arch.stages[int(where[1])][int(where[2])])
    return found


def _combinations(counts: Mapping[str, int]) -> Iterable[dict[str, int]]:
    combinations: list[dict[str, int]] = [{}]
    for name, count in counts.items():
        combinations = [{**one, name: index} for one in combinations for index in range(count)]
    return combinations


def _network_genes(space: Space, stem: list[Block], stages: list[list[Block]]) -> Genes:
    """The width genes of a ResNet, from the output channels of its blocks; other families have none."""
    if not isinstance(space, ResNetSpace):
        return Genes()
    network: dict[str, int | float] = {"stem_depth": 3 if len(stem) > 3 else 2}
    wanted = {"stem_inner_width": stem[0].out_channels, "stem_width": stem[-1].out_channels}
    wanted |= {f"stage_{s + 1}_width": blocks[0].out_channels for s, blocks in enumerate(stages)}
    places = ["stem.first", "stem.last", *(f"stages.{s}.0" for s in range(len(stages)))]
    for (name, channels), place in zip(wanted.items(), places, strict=True):
        gene = next(gene for gene in space.network if gene.name == name)
        # If two multipliers round to the same channels, the networks are equal, and the smaller multiplier is taken.
        options = {_width_at(space, name, index, place): value for index, value in reversed([*enumerate(gene.values)])}
        if channels not in options:
            raise _MisfitError(0, f"{place} has {channels} output channels instead of {_either(options)}")
        network[name] = options[channels]
    return Genes(network)


def _width_at(space: Space, gene: str, index: int, place: str) -> int:
    arch = space.uniform(resolution=-1, depth=-1, genes={gene: index})
    return next(placed.block.out_channels for placed in lower(space, arch) if placed.name == place)


def _compare_ends(space: Space, arch: Arch, stem: list[Block], head: list[Block]) -> None:
    """Raise _MisfitError unless the blocks before and after the stages are those of the space."""
    lowered = lower(space, arch)
    fixed = [placed for placed in lowered if not placed.name.startswith("stages.")]
    given = [*stem, *head]
    if len(fixed) != len(given):
        raise _MisfitError(len(lowered), f"it has {len(given)} blocks outside its stages instead of {len(fixed)}")
    for placed, block in zip(fixed, given, strict=True):
        own = _comparable(placed.block)
        if own != block:
            raise _MisfitError(len(lowered), f"{placed.name} {_difference(block, [own])}")


def _difference(block: Block, known: Iterable[Block]) -> str:
    """How a block differs from the most similar known block, as a clause."""

    def differences(other: Block) -> list[str]:
        if type(other) is not type(block):
            return [f"is a {block.kind} instead of a {other.kind}"] * 99
        fields = [name for name in vars(block) if getattr(block, name) != getattr(other, name)]
        return [f"has {name} {getattr(block, name)} instead of {getattr(other, name)}" for name in fields]

    return min((differences(other) for other in known), key=len)[0]


def _either(values: Iterable[int]) -> str:
    return " or ".join(map(str, values))


def _comparable(block: Block) -> Block:
    """A block with fixed values where net configs do not decide: batch norm's epsilon, and the number of classes."""
    block = replace(block, norm_eps=1e-5)
    return replace(block, out_channels=1) if isinstance(block, Classifier) else block


# -- MIT's layers as blocks -------------------------------------------------------------------------------------------


def _blocks(network: Layer, family: str) -> tuple[list[Block], list[list[Block]], list[Block]]:
    """The blocks before the stages, the blocks of each stage, and the blocks after them."""
    classifier = network["classifier"]
    last = Classifier(in_channels=classifier["in_features"], out_channels=1, pool=family != "OFAMobileNetV3")
    if family == "OFAResNets":
        stem = [_stem_conv(layer) for layer in network["input_stem"]]
        width = stem[-1].out_channels
        return [*stem, MaxPool(in_channels=width, out_channels=width)], _staged(map(_bottleneck, network["blocks"])), [last]
    first, *rest = (block for block in map(_inverted_residual, network["blocks"]) if block is not None)
    head: list[Block] = [_mix(network["feature_mix_layer"])]
    if family == "OFAMobileNetV3":
        head.insert(0, _conv(network["final_expand_layer"]))
    return [_conv(network["first_conv"]), first], _staged(rest), [*head, last]


def _staged(blocks: Iterable[InvertedResidual | Bottleneck]) -> list[list[Block]]:
    """Group blocks by stage; a stage begins at each block without an identity shortcut."""
    stages: list[list[Block]] = []
    for block in blocks:
        begins = block.downsample if isinstance(block, Bottleneck) else not block.residual
        if begins or not stages:
            stages.append([])
        stages[-1].append(block)
    return stages


def _conv(layer: Layer) -> ConvBlock:
    _check_usual(layer)
    if not layer.get("use_bn", True):
        raise ValueError("a convolution without batch norm")
    return ConvBlock(
        in_channels=_whole(layer, "in_channels"),
        out_channels=_whole(layer, "out_channels"),
        kernel=_whole(layer, "kernel_size"),
        stride=_whole(layer, "stride"),
        activation=layer["act_func"],
    )


def _mix(layer: Layer) -> Block:
    """The last convolution: after pooling and without batch norm (MobileNetV3), or before pooling and with batch norm."""
    if layer.get("use_bn", True):
        return _conv(layer)
    _check_usual(layer)
    return FeatureMix(in_channels=_whole(layer, "in_channels"), out_channels=_whole(layer, "out_channels"), activation=layer["act_func"])


def _stem_conv(layer: Layer) -> Block:
    if layer["name"] != "ResidualBlock":
        return _conv(layer)
    conv = _conv(layer["conv"])
    return ResidualConv(in_channels=conv.in_channels, out_channels=conv.out_channels, kernel=conv.kernel, activation=conv.activation)


def _inverted_residual(layer: Layer) -> InvertedResidual | None:
    """The block; None for a ``ZeroLayer``."""
    conv = layer.get("conv", layer.get("mobile_inverted_conv"))
    if conv is None or conv["name"] == "ZeroLayer":
        return None
    _check_usual({key: value for key, value in conv.items() if key != "use_se" and value is not None})
    ratio, inner = conv["expand_ratio"], conv.get("mid_channels")
    shortcut = layer.get("shortcut")
    return InvertedResidual(
        in_channels=_whole(conv, "in_channels"),
        mid_channels=round(conv["in_channels"] * ratio) if inner is None else _whole(conv, "mid_channels"),
        out_channels=_whole(conv, "out_channels"),
        kernel=_whole(conv, "kernel_size"),
        stride=_whole(conv, "stride"),
        activation=conv["act_func"],
        expand=ratio != 1,
        squeeze_excite=conv.get("use_se", False),
        residual=shortcut is not None and not (isinstance(shortcut, Mapping) and shortcut["name"] == "ZeroLayer"),
    )


def _bottleneck(layer: Layer) -> Bottleneck:
    _check_usual(layer)
    same = layer["stride"] == 1 and layer["in_channels"] == layer["out_channels"]
    if not same and layer.get("downsample_mode", "avgpool_conv") != "avgpool_conv":
        raise ValueError(f"downsample_mode {layer['downsample_mode']}")
    return Bottleneck(
        in_channels=_whole(layer, "in_channels"),
        mid_channels=_whole(layer, "mid_channels"),
        out_channels=_whole(layer, "out_channels"),
        kernel=_whole(layer, "kernel_size"),
        stride=_whole(layer, "stride"),
        activation=layer["act_func"],
        downsample=not same,
    )


def _whole(layer: Layer, key: str) -> int:
    value = layer[key]
    if isinstance(value, list | tuple) and len(set(value)) == 1:
        value = value[0]  # (height, width) of a square kernel
    if not isinstance(value, int):
        raise ValueError(f"a {layer.get('name')} with {key} {value!r}")
    return value


def _check_usual(layer: Layer) -> None:
    for key, usual in _USUAL.items():
        if layer.get(key, usual) != usual:
            raise ValueError(f"a {layer.get('name')} with {key} {layer[key]!r}")
