"""Costs of a lowered network, counted without running it: MACs, parameters, bytes of weights and of activations."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import fx, nn

from ofa.blocks import Block, PlacedBlock, Shape, build_empty
from ofa.blocks.token_modules import AddPositions, DotProductAttention, TokenMean, Tokens

__all__ = ["macs", "params", "peak_activation_bytes", "weight_bytes"]

BYTES_PER_FLOAT = 4


def macs(lowered: Iterable[PlacedBlock]) -> int:
    """Multiply-accumulates of all convolutions, linear layers and attention products, for one image."""
    return sum(placed.block.macs(placed.input) for placed in lowered)


def params(lowered: Iterable[PlacedBlock]) -> int:
    """Number of learned parameters."""
    return sum(_params(placed.block) for placed in lowered)


def weight_bytes(
    lowered: Iterable[PlacedBlock],
    *,
    bytes_per_weight: int = BYTES_PER_FLOAT,
    bytes_per_channel: int = 0,
    bytes_per_bias: int = BYTES_PER_FLOAT,
    bytes_per_other: int = BYTES_PER_FLOAT,
) -> int:
    """Bytes of the weights as shipped: with batch norms folded into the convolutions, which leaves one bias per channel.

    Args:
        lowered: the placed blocks.
        bytes_per_weight: 4 for float32, 1 for int8.
        bytes_per_channel: of further values per output channel of a weight, such as the quantization scale.
        bytes_per_bias: of the bias of one channel.
        bytes_per_other: of one value of layer norms and of position embeddings.
    """
    sizes = (bytes_per_weight, bytes_per_channel, bytes_per_bias, bytes_per_other)
    return sum(sum(map(operator.mul, sizes, _shipped(placed.block))) for placed in lowered)


def peak_activation_bytes(lowered: Iterable[PlacedBlock], *, bytes_per_value: int = BYTES_PER_FLOAT) -> int:
    """Peak bytes of all activations alive at the same time, for one image.

    Blocks run one after the other, so the peak is the maximum over blocks of the block's own peak plus the tensors kept for later
    blocks. Within a block, its traced graph is walked in order: a tensor lives from the operation that produces it to the last
    operation that reads it. An element-wise operation (batch norm, activation, addition, gate) reuses the memory of an operand that
    is not read later, as inference runtimes do. During attention, the scores (queries x keys, per head) count too.

    Args:
        lowered: the placed blocks.
        bytes_per_value: of one activation; 4 for float32.
    """
    return max(_peak_at(placed) for placed in lowered) * bytes_per_value


# Cached: a search counts thousands of networks, composed of the same few hundred blocks.


@lru_cache(maxsize=16384)
def _params(block: Block) -> int:
    return block.params()


@lru_cache(maxsize=16384)
def _shipped(block: Block) -> tuple[int, int, int, int]:
    """Numbers of a block's shipped values: weights, output channels of weights, biases, others."""
    weights = channels = biases = others = 0
    for name, spec in block.tensors.items():
        shape = block.shapes[name]
        if not spec.ships:
            continue
        if spec.role == "decayed":
            weights, channels = weights + math.prod(shape), channels + shape[0]
        elif name.rpartition(".")[2] == "bias":
            biases += math.prod(shape)
        else:
            others += math.prod(shape)
    return weights, channels, biases, others


_ELEMENT_WISE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Dropout, nn.Flatten, nn.Identity)
_OPERATIONS = (nn.BatchNorm2d, nn.Conv2d, nn.Linear, AddPositions, DotProductAttention, TokenMean, Tokens)
"""Modules that tracing treats as leaves, besides the modules of ``torch.nn``."""


def _peak_at(placed: PlacedBlock) -> int:
    """Peak number of values alive while a block runs, for one image."""
    count, values = len(placed.inputs), placed.input.values
    if count < 2:
        return placed.beside + _peak_values(placed.block, placed.input, placed.kept > 0)
    # The sum of the inputs reuses the memory of one of them, unless later blocks need all of them.
    summing = (count + (placed.kept == count)) * values
    return placed.beside + max(summing, placed.kept * values + _peak_values(placed.block, placed.input, False))


@lru_cache(maxsize=16384)
def _peak_values(block: Block, shape: Shape, keeps_input: bool) -> int:
    """Peak number of values alive in the graph of one block, for one image; a kept input stays alive to the end."""
    module, graph = _traced(block)
    sizes = _Sizes(module, graph=graph)
    sizes.run(torch.empty(1, *shape, device="meta"))
    nodes = [node for node in graph.nodes if node in sizes.of and node.op != "output"]
    owner: dict[fx.Node, fx.Node] = {}
    readers: dict[fx.Node, int] = {}
    alive: dict[fx.Node, int] = {}
    peak = 0
    for node in nodes:
        operands = [owner[operand] for operand in node.all_input_nodes if operand in owner]
        reused = next((o for o in operands if sizes.of[node] == alive[o] and readers[o] == 1 and _element_wise(module, node)), None)
        owner[node] = node if reused is None else reused
        peak = max(peak, sum(alive.values()) + sizes.within.get(node, 0))
        if reused is None:
            alive[node] = sizes.of[node]
        peak = max(peak, sum(alive.values()))
        readers[owner[node]] = readers.get(owner[node], 0) + len(node.users) + (keeps_input and node.op == "placeholder")
        for operand in operands:
            readers[operand] -= 1
            if readers[operand] == 0:
                del alive[operand]
    return peak


@lru_cache(maxsize=4096)
def _traced(block: Block) -> tuple[nn.Module, fx.Graph]:
    # No GraphModule: torch keeps its generated source until the process ends.
    module = build_empty(block).eval()
    return module, _Tracer().trace(module)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _OPERATIONS) or super().is_leaf_module(m, module_qualified_name)


class _Sizes(fx.Interpreter):
    """Runs a traced module and records per node the number of output values (``of``) and of temporary values (``within``)."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.of: dict[fx.Node, int] = {}
        self.within: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        values = sum(each.numel() for each in _tensors(result))
        if values and n.op != "get_attr":  # weights are counted elsewhere
            self.of[n] = values
        if isinstance(result, torch.Tensor):
            module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
            if isinstance(module, DotProductAttention):
                _, tokens, channels = result.shape
                self.within[n] = channels // module.head_channels * tokens**2
            elif n.target is torch.ops.aten.scaled_dot_product_attention.default:
                query, key = (self.env[each].shape for each in n.all_input_nodes[:2])
                self.within[n] = math.prod(query[:-1]) * key[-2]
        return result


def _tensors(result: object) -> Iterable[torch.Tensor]:
    found = result if isinstance(result, list | tuple) else (result,)
    return [each for each in found if isinstance(each, torch.Tensor)]


def _element_wise(module: nn.Module, node: fx.Node) -> bool:
    """Whether an operation can reuse the memory of an operand of its size: it is element-wise, or only a view."""
    if node.op == "call_module":
        return isinstance(module.get_submodule(str(node.target)), _ELEMENT_WISE)
    if isinstance(node.target, torch._ops.OpOverload):
        return torch.Tag.pointwise in node.target.tags or any(each.alias_info for each in node.target._schema.returns)
    return node.op == "call_function"
