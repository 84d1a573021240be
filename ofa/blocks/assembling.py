"""Assembles networks from blocks, without storage or with initialized weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import nn

from ofa.blocks.block import Block, PlacedBlock
from ofa.blocks.modules import Wired
from ofa.blocks.token_modules import AddPositions, TokenLinear
from ofa.blocks.traced import Traced
from ofa.blocks.wiring import sources

__all__ = ["assemble", "build_empty", "build_network", "empty_network", "initialize"]


_TOKEN_DEVIATION = 0.02


def assemble(built: Iterable[tuple[PlacedBlock, nn.Module]], *, training: bool = True) -> nn.Sequential:
    """Join the modules of blocks to one network, nested by the dots of their places.

    Args:
        built: blocks with their modules, in execution order; the modes of the modules do not change.
        training: mode of the containers around the modules.
    """
    pairs = list(built)
    lowered = [placed for placed, _ in pairs]
    wired = any(placed.inputs for placed in lowered)
    root = Wired([(placed.name, names) for placed, names in zip(lowered, sources(lowered), strict=True)]) if wired else nn.Sequential()
    root.training = training
    for placed, module in pairs:
        parent: nn.Sequential = root
        *path, leaf = placed.name.split(".")
        for part in path:
            child = parent._modules.get(part)
            if child is None:
                child = nn.Sequential()
                child.training = training
                parent._modules[part] = child
            assert isinstance(child, nn.Sequential)
            parent = child
        # Not add_module: its checks would dominate the cost, and a subnet is assembled for every training step.
        parent._modules[leaf] = module
    return root


def empty_network(lowered: Iterable[PlacedBlock]) -> nn.Sequential:
    """A network on the meta device: its tensors have shapes but no storage, and no time or random numbers go into initialization."""
    return assemble((placed, build_empty(placed.block)) for placed in lowered)


def build_network(lowered: Iterable[PlacedBlock], *, generator: torch.Generator | None = None) -> nn.Sequential:
    """A network with its own, newly initialized weights, such as for training without a supernet.

    Args:
        lowered: the blocks from the input to the logits, as from ``ofa.families.lower``.
        generator: for the initial weights; torch's default generator if None.
    """
    network = empty_network(lowered)
    network.to_empty(device="cpu")
    initialize(network, generator)
    return network


def build_empty(block: Block, instead: Mapping[type[nn.Module], type[nn.Module]] | None = None) -> nn.Module:
    """The module of a block on the meta device: its tensors have shapes but no storage.

    Args:
        block: the block.
        instead: replacement classes by class; each must have the same attributes as the class that it replaces.
    """
    return _replica(_empty(block), instead or {})


@lru_cache(maxsize=4096)
def _empty(block: Block) -> nn.Module:
    with torch.device("meta"):
        return block.build()


def _replica(module: nn.Module, instead: Mapping[type[nn.Module], type[nn.Module]]) -> nn.Module:
    """A copy of ``module`` that shares its tensors and constants; twenty times faster than building the module again."""
    kind = instead.get(type(module), type(module))
    replica = kind.__new__(kind)
    replica.__dict__ = {key: value.copy() if isinstance(value, dict) else value for key, value in module.__dict__.items()}
    for name, child in module._modules.items():
        replica._modules[name] = child if child is None else _replica(child, instead)
    return replica


@torch.no_grad()
def initialize(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Initialize the weights of every layer, in place.

    Convolutions: normal with variance 2 / fan-out (He et al., ICCV 2015). Linear layers on pooled features: uniform within
    +-1 / sqrt(fan-in). Linear layers on tokens, and position embeddings: normal with standard deviation 0.02 (Devlin et al., NAACL 2019).
    Biases are 0, norms the identity. Loose parameters of an adopted model: normal with standard deviation 0.02, or 1 if they have a
    single dimension; its constants are 0.

    Args:
        network: with storage.
        generator: torch's default generator if None.

    Raises:
        TypeError: a module of another class has parameters.
    """
    for module in network.modules():
        match module:
            case nn.Conv2d():
                fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
            case AddPositions():
                module.weight.normal_(0.0, _TOKEN_DEVIATION, generator=generator)
                continue
            case TokenLinear():
                module.weight.normal_(0.0, _TOKEN_DEVIATION, generator=generator)
            case nn.Linear():
                bound = 1.0 / math.sqrt(module.in_features)
                module.weight.uniform_(-bound, bound, generator=generator)
            case nn.LayerNorm():
                module.weight.fill_(1.0)
            case nn.BatchNorm2d():
                module.weight.fill_(1.0)
                module.reset_running_stats()
            case _ if type(module) in (nn.Module, Traced):  # loose tensors of an adopted model
                for tensor in module._parameters.values():
                    assert tensor is not None
                    if tensor.dim() > 1:
                        tensor.normal_(0.0, _TOKEN_DEVIATION, generator=generator)
                    else:
                        tensor.fill_(1.0)
                for buffer in module._buffers.values():
                    assert buffer is not None
                    buffer.zero_()
                continue
            case _ if module._parameters:
                raise TypeError(
                    f"initialization knows convolutions, linear layers and norms, but {type(module).__name__} has parameters; use those"
                )
            case _:
                continue
        if module.bias is not None:
            module.bias.zero_()
