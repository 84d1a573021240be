"""A model as a graph of torch's operators in which every size is known by its symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sympy
import torch
import torch._dynamo.config as dynamo
from torch import Tensor, fx, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

from ofa.adopting.sizes import Reason, Sizes
from ofa.errors import SpaceError
from ofa.modes import evaluating

__all__ = ["Trace", "trace"]

BATCH = 3
"""Images of the batch that is traced: one that no other size of a network is a multiple of by chance alone."""
_SIDES = 2
"""The first dimensions of a convolution's weight are channels, those behind them pixels of its kernel."""


@dataclass(frozen=True)
class Trace:
    """A model that was traced.

    Attributes:
        program: calls of ``torch.ops.aten``; its inputs are the images and the tensors in the order of ``tensors``.
        tensors: parameters and buffers of the model by name.
        shapes: by name the size of each dimension in terms of symbols.
        sizes: what is known of the symbols.
        batch: the symbol of the number of images.
        image: C, H and W of the images.
        parameters: names of the tensors that are trained.
    """

    program: fx.GraphModule
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[sympy.Expr, ...]]
    sizes: Sizes
    batch: sympy.Symbol
    image: tuple[int, ...]
    parameters: frozenset[str]

    @property
    def graph(self) -> fx.Graph:
        """The calls of the program."""
        return self.program.graph

    def __call__(self, images_BCHW: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """What the program computes with other tensors: any whose sizes fit each other."""
        ordered = [tensors[name] for name in self.tensors]
        output: Tensor = fx.Interpreter(self.program).run(images_BCHW, *ordered)
        return output

    @property
    def reasons(self) -> dict[tuple[str, int], Reason]:
        """By tensor and dimension why it cannot shrink, for all that torch gave a symbol at first."""
        found = {}
        for name, shape in self.shapes.items():
            for dim, expr in enumerate(shape):
                symbol = next((each for each in expr.free_symbols if each in self.sizes.reasons), None)
                if symbol is not None and self.sizes.replace(expr).is_number:
                    found[name, dim] = self.sizes.reasons[symbol]
        return found


def trace(model: nn.Module, images: tuple[int, ...]) -> Trace:
    """Trace a model in evaluation mode.

    Args:
        model: maps images [B, C, H, W] to a tensor, or to an object whose ``logits`` are one.
        images: C, H and W.

    Raises:
        SpaceError: the model does not run on such images, gives no tensor, takes decisions by the values of tensors, or computes with
            one number of images alone.
    """
    tensors = _tensors(model)
    sizes = Sizes()
    mode = FakeTensorMode(shape_env=sizes, allow_non_fake_inputs=True)

    def fake(name: str, tensor: Tensor, elastic: list[bool]) -> Tensor:
        dims = [DimDynamic.DYNAMIC if each else DimDynamic.STATIC for each in elastic]
        return mode.from_tensor(tensor, source=ConstantSource(name), symbolic_context=StatelessSymbolicContext(dynamic_sizes=dims))

    batch = fake("images", torch.empty(BATCH, *images), [True] + [False] * len(images))
    symbol = _expr(batch.shape[0])
    fakes = {name: fake(name, tensor.detach(), _elastic(tensor)) for name, tensor in tensors.items()}
    shapes = {name: tuple(map(_expr, tensor.shape)) for name, tensor in fakes.items()}

    def run(batch: Tensor, *ordered: Tensor) -> Tensor:
        return _logits(torch.func.functional_call(model, dict(zip(tensors, ordered, strict=True)), (batch,)))

    # What torch remembers of each operator costs more than it saves: sizes are new symbols every time.
    with evaluating(model), _sizes_of_weights(model), dynamo.patch(fake_tensor_cache_enabled=False):
        traced = _explained(
            lambda: make_fx(run, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)(batch, *fakes.values())
        )
    if symbol in sizes.reasons:
        raise SpaceError(
            f"a model must compute with any number of images, but takes their number for a constant: it {sizes.reasons[symbol]}; read it "
            "from a tensor's shape, not by len()"
        )
    return Trace(traced, tensors, shapes, sizes, symbol, images, frozenset(name for name, _ in model.named_parameters()))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **{name: buffer for name, buffer in model.named_buffers() if buffer.dim()}}


def _elastic(tensor: Tensor) -> list[bool]:
    """Which dimensions may be sizes of a network: channels, not pixels of a kernel, and no dimension of a table of indices."""
    if not tensor.is_floating_point():
        return [False] * tensor.dim()
    return [size > 1 and (dim < _SIDES or tensor.dim() < 4) for dim, size in enumerate(tensor.shape)]


def _expr(size: int | torch.SymInt) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise SpaceError(
            f"a model must give one tensor, or an object with 'logits', to be adopted, but this one gives {type(output).__name__}; wrap it "
            "in a module that returns the tensor"
        )
    return found


def _explained(run: Callable[[], fx.GraphModule]) -> fx.GraphModule:
    try:
        return run()
    except SpaceError:
        raise
    except Exception as error:  # the model's own code may fail in any way
        words = " ".join(str(error).split("\n")[0].split())
        raise SpaceError(
            f"a model must run on its example and take no decision by a tensor's values, but tracing met {type(error).__name__}: {words}; "
            "correct the example, or take such decisions out of its forward"
        ) from error


# -- numbers that modules keep of their weights ------------------------------------------------------------------------


@contextmanager
def _sizes_of_weights(model: nn.Module) -> Iterator[None]:
    """For the time of the block modules read sizes from their weights that they otherwise keep as numbers."""
    changed: list[tuple[nn.Module, type[nn.Module], dict[str, Any]]] = []
    try:
        for module in model.modules():
            properties = _read_from_weights(module)
            if properties:
                old, kept = type(module), {name: module.__dict__.pop(name) for name in properties if name in module.__dict__}
                # A property of the class comes before what is in the instance.
                module.__class__ = type(old.__name__, (old,), {"__module__": old.__module__, **properties})
                changed.append((module, old, kept))
        yield
    finally:
        for module, old, kept in changed:
            module.__class__ = old
            module.__dict__.update(kept)


def _read_from_weights(module: nn.Module) -> dict[str, property]:
    match module:
        case nn.modules.conv._ConvNd() if 1 < module.groups == module.in_channels == module.out_channels:
            return {"groups": _property(lambda self: self.weight.shape[0])}
        case nn.LayerNorm() if module.weight is not None:
            return {"normalized_shape": _property(lambda self: tuple(self.weight.shape))}
    return {name: _heads(name, count, child) for name, count, child in _counts_of_heads(module)}


def _property(read: Callable[[Any], Any]) -> property:
    return property(read, lambda self, value: None)


def _counts_of_heads(module: nn.Module) -> Iterator[tuple[str, int, str]]:
    """Numbers of heads that a module keeps, and the linear layer of it whose outputs they divide."""
    for name, value in list(vars(module).items()):
        if "head" in name and not any(word in name for word in ("dim", "size")) and type(value) is int and value > 1:
            for child, layer in module.named_children():
                if isinstance(layer, nn.Linear) and layer.out_features % value == 0 and layer.out_features > value:
                    yield name, value, child
                    break


def _heads(name: str, count: int, child: str) -> property:
    def read(self: Any) -> Any:
        layer = getattr(self, child)
        return layer.weight.shape[0] // (layer.out_features // count)

    return _property(read)
