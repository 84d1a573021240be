"""Traces a model to a graph of torch operators with symbolic sizes."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import sympy
import torch
import torch._dynamo.config as dynamo
from torch import Tensor, fx, nn
from torch._dynamo.source import ConstantSource
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

from ofa.adopting.sizes import Reason, Sizes, reason_of
from ofa.errors import SpaceError

__all__ = ["Trace", "copied", "trace"]

_aten = torch.ops.aten

BATCH = 3
"""Batch size of the trace: a number that other sizes of networks are rarely multiples of."""
_CHANNELS = 2
"""The first two dimensions of a convolution's weight are channels, further ones pixels of its kernel."""


_ACTIVATIONS = {
    each.default
    for each in (_aten.relu, _aten.gelu, _aten.silu, _aten.hardtanh, _aten.hardswish, _aten.hardsigmoid, _aten.sigmoid, _aten.tanh)
}

_MADE_OF_OTHERS = (
    *(_aten.narrow, _aten.tensor_split, _aten.hsplit, _aten.vsplit, _aten.dsplit, _aten.movedim, _aten.moveaxis, _aten.swapaxes),
    *(_aten.swapdims, _aten.tile, _aten.broadcast_to, _aten.repeat_interleave, _aten.square, _aten.clip, _aten.type_as),
    *(_aten.instance_norm, _aten.var, _aten.std),
)
_WRITTEN_OUT: Mapping[OpOverload, Callable[..., Any]] = {
    operator: operator.decompose
    for family in _MADE_OF_OTHERS
    for operator in (getattr(family, name) for name in family.overloads())
    if operator.has_kernel_for_dispatch_key(torch.DispatchKey.CompositeImplicitAutograd)
}
"""Composite operators, with torch's own decompositions, so that the program has fewer distinct operators."""


@dataclass(frozen=True)
class Trace:
    """A traced model.

    Attributes:
        program: calls of ``torch.ops.aten``; its inputs are the images and the tensors in the order of ``tensors``.
        tensors: parameters and buffers of the model, by name.
        shapes: symbolic size of each dimension, by name of tensor.
        sizes: known facts about the symbols.
        batch: symbol of the batch size.
        image: C, H and W of the images.
        parameters: names of the trainable tensors.
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
        """Run the program with other tensors, whose sizes must fit each other."""
        ordered = [tensors[name] for name in self.tensors]
        output: Tensor = fx.Interpreter(self.program).run(images_BCHW, *ordered)
        return output

    @property
    def reasons(self) -> dict[tuple[str, int], Reason]:
        """The reason why a dimension is fixed, by tensor and dimension, for dimensions that had a symbol at first."""
        found = {}
        for name, shape in self.shapes.items():
            for dim, expr in enumerate(shape):
                symbol = next((each for each in expr.free_symbols if each in self.sizes.reasons), None)
                if symbol is not None and self.sizes.replace(expr).is_number:
                    found[name, dim] = self.sizes.reasons[symbol]
        return found


def trace(model: nn.Module, images: tuple[int, ...], *, elastic: bool = True) -> Trace:
    """Trace a model in evaluation mode; the model is not changed.

    Args:
        model: a module that maps images [B, C, H, W] to a tensor, or to an object whose attribute ``logits`` is a tensor.
        images: C, H and W of the images.
        elastic: whether sizes are symbols; otherwise they are numbers, which takes a fraction of the time.

    Returns:
        The trace.

    Raises:
        SpaceError: the model does not run on such images, returns no tensor, branches on values of tensors, or works only with one
            batch size.
    """
    tensors = _tensors(model)
    _run(model, images)
    network = copied(model)  # a copy, because some models cache results for the last images
    sizes = Sizes()
    mode = _Fakes(shape_env=sizes, allow_non_fake_inputs=True)

    def fake(name: str, tensor: Tensor, symbolic: list[bool]) -> Tensor:
        dims = [DimDynamic.DYNAMIC if each and elastic else DimDynamic.STATIC for each in symbolic]
        return mode.from_tensor(tensor, source=ConstantSource(name), symbolic_context=StatelessSymbolicContext(dynamic_sizes=dims))

    batch = fake("images", torch.empty(BATCH, *images), [True] + [False] * len(images))
    symbol = sizes.images = _expr(batch.shape[0])
    kernels = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.modules.conv._ConvNd)}
    fakes = {name: fake(name, tensor.detach(), _elastic(tensor, name in kernels)) for name, tensor in tensors.items()}
    shapes = {name: tuple(map(_expr, tensor.shape)) for name, tensor in fakes.items()}

    def run(batch: Tensor, *ordered: Tensor) -> Tensor:
        return _logits(torch.func.functional_call(network, dict(zip(tensors, ordered, strict=True)), (batch,)))

    # torch's cache of fake tensors costs more than it saves if sizes are new symbols every time.
    tracer = make_fx(run, decomposition_table=_WRITTEN_OUT, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)
    with _explained(), _unlogged(), _sizes_of_weights(network), dynamo.patch(fake_tensor_cache_enabled=not elastic):
        traced = tracer(batch, *fakes.values())
    if symbol in sizes.reasons:
        raise SpaceError(
            f"a model must compute with any number of images, but takes their number for a constant: it {sizes.reasons[symbol]}; read it "
            "from a tensor's shape, not by len()"
        )
    return Trace(traced, tensors, shapes, sizes, symbol, images, frozenset(name for name, _ in model.named_parameters()))


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, in evaluation mode.

    Raises:
        SpaceError: the model cannot be copied.
    """
    try:
        return copy.deepcopy(model).eval()
    except Exception as error:  # attributes of a module may raise anything when they are copied
        words = " ".join(str(error).split("\n")[0].split())
        raise SpaceError(
            f"a model must be copyable by copy.deepcopy, but that met {type(error).__name__}: {words}; keep objects that cannot be copied "
            "outside of its modules"
        ) from error


def _parts_of_split(x: Tensor, size: int | torch.SymInt, dim: int = 0) -> int:
    whole, part = _hint(x.shape[dim]), _hint(size)
    return whole // part if isinstance(size, torch.SymInt) and whole % part == 0 else 1


def _parts_of_slice(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> int:
    return step


def _parts_of_sections(x: Tensor, sections: int, dim: int = 0) -> int:
    return sections


def _hint(size: int | torch.SymInt) -> int:
    return size.node.hint if isinstance(size, torch.SymInt) else size


_PARTS: Mapping[Any, tuple[Callable[..., int], int]] = {
    _aten.split.Tensor: (_parts_of_split, 2),
    _aten.slice.Tensor: (_parts_of_slice, 1),
    _aten.tensor_split.sections: (_parts_of_sections, 2),
}
"""For operators that split a dimension: a function that returns the number of parts, and the position of the argument that names the
dimension. Equal parts stay equal at every size."""


class _Fakes(FakeTensorMode):
    """torch's fake tensors, with shortcuts: norms and activations keep their input's shape, which torch finds in many more steps."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute the result of an operator on fake tensors."""
        if func in _ACTIVATIONS:
            return super().dispatch(_aten.empty_like.default, types, args[:1], {})
        if func is _aten._native_batch_norm_legit_no_training.default:
            x, *channels = args[:5]
            if all(each is None or each.shape[0] == x.shape[1] for each in channels):
                like = super().dispatch(_aten.empty_like.default, types, (x,), {})
                none = super().dispatch(_aten.new_empty.default, types, (x, [0]), {})
                return like, none, none
        if func in _PARTS and isinstance(self.shape_env, Sizes):
            count, place = _PARTS[func]
            x, dim, parts = args[0], args[place] if len(args) > place else 0, count(*args)
            if parts > 1:
                self.shape_env.divide(_expr(x.shape[dim]), parts)
                if func is _aten.split.Tensor:  # torch would fix the number of parts, and with it all sizes
                    return super().dispatch(_aten.split_with_sizes.default, types, (x, [args[1]] * parts, dim), kwargs)
        return super().dispatch(func, types, args, kwargs)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    found = {**dict(model.named_parameters()), **{name: buffer for name, buffer in model.named_buffers() if buffer.dim()}}
    other = next((name for name, each in found.items() if each.is_floating_point() and each.dtype is not torch.float32), None)
    if other is not None:
        raise SpaceError(
            f"a model must have weights in float32, but {other} is in {str(found[other].dtype).removeprefix('torch.')}; call model.float() "
            "first"
        )
    return found


def _run(model: nn.Module, images: tuple[int, ...]) -> None:
    """Run an example first: its errors are clearer than a trace's, and caches shared by all models are filled with real values."""
    with _explained(), torch.no_grad():
        logits = _logits(copied(model)(torch.zeros(BATCH, *images)))
    if len(logits) != BATCH:
        raise SpaceError(
            f"a model must give a row of logits for each image, but of {BATCH} images this one gives {len(logits)} rows; take the number "
            "of images from its input's shape"
        )


def _elastic(tensor: Tensor, is_kernel: bool) -> list[bool]:
    """Which dimensions may be elastic: not the pixels of a kernel, and none of a table of indices."""
    if not tensor.is_floating_point():
        return [False] * tensor.dim()
    return [size > 1 and (dim < _CHANNELS or not is_kernel) for dim, size in enumerate(tensor.shape)]


def _expr(size: int | torch.SymInt) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise SpaceError(
            f"a model must give one tensor, or an object with 'logits', to be adopted, but this one gives {type(output).__name__}; wrap it "
            "in a module that returns the tensor"
        )
    if found.dim() != 2:
        raise SpaceError(
            f"a model must give logits [B, classes] to be adopted, but this one gives a tensor of {found.dim()} dimensions; wrap it in a "
            "module that does"
        )
    return found


@contextmanager
def _explained() -> Iterator[None]:
    """Context that turns any error of the model's own code into a SpaceError with its line."""
    try:
        yield
    except SpaceError:
        raise
    except Exception as error:
        words = " ".join(str(error).split("\n")[0].split())
        raise SpaceError(
            f"a model must run on its example and take no decision by a tensor's values, but it {reason_of(error)}: "
            f"{type(error).__name__}: {words}; correct the example, or take such decisions out of its forward"
        ) from error


@contextmanager
def _unlogged() -> Iterator[None]:
    """Context without torch's log of failed operators: the raised error reports them."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    log.addFilter(_nothing)
    try:
        yield
    finally:
        log.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


# -- sizes of weights that modules store as numbers --------------------------------------------------------------------


@contextmanager
def _sizes_of_weights(model: nn.Module) -> Iterator[None]:
    """Context in which modules read sizes from their weights instead of from stored numbers."""
    changed: list[tuple[nn.Module, type[nn.Module], dict[str, Any]]] = []
    try:
        for module in model.modules():
            properties = _read_from_weights(module)
            if properties:
                old, kept = type(module), {name: module.__dict__.pop(name) for name in properties if name in module.__dict__}
                # A property of the class takes precedence over attributes of the instance.
                module.__class__ = type(old.__name__, (old,), {"__module__": old.__module__, **properties})
                changed.append((module, old, kept))
        yield
    finally:
        for module, old, kept in changed:
            module.__class__ = old
            module.__dict__.update(kept)


def _read_from_weights(module: nn.Module) -> dict[str, property]:
    match module:
        case nn.modules.conv._ConvNd():
            found = {"out_channels": _property(lambda self: self.weight.shape[0])}
            if 1 < module.groups == module.in_channels:
                each = module.out_channels // module.groups
                found |= {name: _property(lambda self: self.weight.shape[0] // each) for name in ("groups", "in_channels")}
            elif module.groups == 1:
                found["in_channels"] = _property(lambda self: self.weight.shape[1])
            return found
        case nn.Linear():
            return {name: _property(partial(_length, dim=dim)) for dim, name in enumerate(("out_features", "in_features"))}
        case nn.LayerNorm() | nn.RMSNorm() if module.weight is not None:
            return {"normalized_shape": _property(lambda self: tuple(self.weight.shape))}
    return {**dict(_widths(module)), **dict(_counts_of_heads(module))}


def _length(layer: Any, dim: int) -> Any:
    return layer.weight.shape[dim]


_WIDTH = re.compile(r"(^|_)(channels|dim|features|planes|hidden_size|all_head_size|d_model)$")
_OUTPUTS = re.compile(r"out|inner|all")
"""Names of attributes that hold numbers of channels, and of those among them that are outputs rather than inputs."""


def _property(read: Callable[[Any], Any]) -> property:
    return property(read, lambda self, value: None)


def _numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    return ((name, value) for name, value in list(vars(module).items()) if type(value) is int and value > 1)


def _counts_of_heads(module: nn.Module) -> Iterator[tuple[str, property]]:
    """Properties for stored numbers of heads: outputs of the first divisible linear layer, divided by the outputs of one head."""
    for name, value in _numbers(module):
        if "head" in name and not any(word in name for word in ("dim", "size")):
            outputs = ((child, layer.weight.shape[0]) for child, layer in module.named_children() if isinstance(layer, nn.Linear))
            found = next(((child, length // value) for child, length in outputs if length % value == 0 and length > value), None)
            if found is not None:
                yield name, _property(partial(_units, child=found[0], each=found[1]))


def _units(module: Any, child: str, each: int) -> Any:
    return getattr(module, child).weight.shape[0] // each


def _widths(module: nn.Module) -> Iterator[tuple[str, property]]:
    """Properties for stored numbers of channels that equal a dimension of one of the module's layers."""
    layers = [(child, layer) for child, layer in module.named_children() if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)]
    for name, value in _numbers(module):
        if _WIDTH.search(name) and "head_dim" not in name:
            dims = (0, 1) if _OUTPUTS.search(name) else (1, 0)
            ends = ((child, dim) for dim in dims for child, layer in layers if layer.weight.shape[dim] == value)
            found = next(ends, None)
            if found is not None:
                yield name, _property(partial(_length_of, child=found[0], dim=found[1]))


def _length_of(module: Any, child: str, dim: int) -> Any:
    return getattr(module, child).weight.shape[dim]
