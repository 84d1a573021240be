"""Writes segments of a program as code (ofa.blocks.code) with local names, so that equal segments of a network have the same text."""

from __future__ import annotations

import itertools
import keyword
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import Tensor

from ofa.adopting.cutting import Segment
from ofa.adopting.program import Call, Ref, TensorName
from ofa.blocks.code import BATCH, parse_code
from ofa.blocks.runs import Run, Runs
from ofa.errors import SpaceError

__all__ = ["Dims", "Written", "write_segment"]

_aten = torch.ops.aten
_CONSTANTS = "constants."


@dataclass(frozen=True, eq=False)
class Dims:
    """The composition of the dimensions of a model's tensors.

    Attributes:
        runs: runs of a dimension in terms of groups, by tensor and dimension; a dimension without an entry has a fixed length.
        symbols: the group whose units a symbol counts, or a number, by symbol.
        batch: symbol of the batch size.
        tensors: tensors of the model, and constants of the program.
        buffers: names of tensors that are not trained.
    """

    runs: Mapping[tuple[str, int], Runs]
    symbols: Mapping[sympy.Symbol, str | int]
    batch: sympy.Symbol
    tensors: Mapping[str, Tensor]
    buffers: frozenset[str]

    def of(self, tensor: str) -> Iterator[Runs]:
        """The runs of each dimension of a tensor."""
        for dim, size in enumerate(self.tensors[tensor].shape):
            yield self.runs.get((tensor, dim), (Run("", 1, size),))


@dataclass(frozen=True, eq=False)
class Written:
    """A segment as code.

    Attributes:
        text: the code.
        groups: the group of each of its axes, in order.
        names: a tensor's name in the model, by its local name in the block.
        origin: common prefix of these tensors' names in the model.
    """

    text: str
    groups: tuple[str, ...]
    names: Mapping[str, str]
    origin: str


def write_segment(segment: Segment, dims: Dims) -> Written:
    """Write a segment as code.

    Raises:
        SpaceError: a size or an argument cannot be expressed in code.
    """
    return _Writer(segment, dims).written()


@dataclass(frozen=True)
class _Layer:
    """A call as a layer: its path in the model, its kind, the names of its tensors, and its arguments."""

    path: str
    kind: str
    tensors: tuple[str, ...]
    arguments: tuple[Any, ...] = field(default=(), compare=False)
    shown: str = ""


class _Writer:
    def __init__(self, segment: Segment, dims: Dims) -> None:
        self._segment, self._dims = segment, dims
        self._axes: dict[str, str] = {}
        self._free_axes = _axis_names()
        self._values = {segment.input: "v0"}
        self._declared: dict[str, str] = {}
        self._casts: dict[str, str] = {}
        self._steps: list[str] = []
        self._layers = self._find_layers()
        self._local = self._local_names()

    def written(self) -> Written:
        for call in self._segment.calls:
            self._write(call)
        names = {self._local[name]: name for name in self._local if name in self._dims.tensors}
        text = "\n".join([*self._declared.values(), *self._steps])
        groups = {axis: group for group, axis in self._axes.items()}
        return Written(text, tuple(groups[axis] for axis in parse_code(text).axes), names, self._origin)

    # -- layers -------------------------------------------------------------------------------------------------------

    def _find_layers(self) -> dict[str, _Layer]:
        """Layers by name of call; calls that share a tensor in different ways are not layers."""
        found = {call.name: layer for call in self._segment.calls if (layer := _as_layer(call)) is not None}
        users: dict[str, set[Any]] = {}
        for call in self._segment.calls:
            for name in call.tensors:
                users.setdefault(name, set()).add(found.get(call.name, call.name))
        shared = {name for name, kinds in users.items() if len(kinds) > 1}
        return {name: layer for name, layer in found.items() if shared.isdisjoint(layer.tensors)}

    def _local_names(self) -> dict[str, str]:
        """Local names by name in the model: without the common prefix, so that equal blocks have equal names."""
        paths = {tensor: layer.path for layer in self._layers.values() for tensor in layer.tensors}
        tensors = list(dict.fromkeys(name for call in self._segment.calls for name in call.tensors))
        owners = dict.fromkeys(paths.get(name, name) for name in tensors if not name.startswith(_CONSTANTS))
        split = [owner.split(".") for owner in owners]
        common = 0
        while split and all(len(parts) > common + 1 and parts[: common + 1] == split[0][: common + 1] for parts in split):
            common += 1
        self._origin = ".".join(split[0][:common]) if common else (split[0][0] if len(split) == 1 else "")
        constants = (f"{_CONSTANTS}{number}" for number in itertools.count())
        return {name: next(constants) if name.startswith(_CONSTANTS) else ".".join(name.split(".")[common:]) for name in tensors}

    # -- lines --------------------------------------------------------------------------------------------------------

    def _write(self, call: Call) -> None:
        layer = self._layers.get(call.name)
        if layer is not None:
            name = self._declare_layer(layer)
            self._step(call, f"call('{name}', {self._argument(call.args[0])})")
        elif call.target is None:
            source, index = call.args
            self._step(call, f"{self._argument(source)}[{index}]")
        else:
            parts = [self._argument(each) for each in self._arguments(call)]
            parts += [f"{key}={self._argument(each)}" for key, each in call.kwargs.items() if each is not None]
            self._step(call, f"aten.{call.target.__name__}({', '.join(parts)})")

    def _step(self, call: Call, text: str) -> None:
        output = f"v{len(self._steps) + 1}"
        self._steps.append(f"{output} = {text}")
        self._values[call.name] = output

    def _arguments(self, call: Call) -> tuple[Any, ...]:
        """Arguments of a call; in a reshape, the first size that depends on the batch size is left open (-1)."""
        if call.target is not _aten.reshape.default:
            return call.args
        source, sizes = call.args
        depends = [number for number, size in enumerate(sizes) if self._dims.batch in size.free_symbols]
        return source, [sympy.Integer(-1) if number in depends[:1] else size for number, size in enumerate(sizes)]

    def _declare_layer(self, layer: _Layer) -> str:
        name = self._local[layer.tensors[0]].rpartition(".")[0]
        if name not in self._declared:
            arguments = "".join(f", {self._argument(each)}" for each in layer.arguments)
            self._declared[name] = f"{layer.kind}('{name}', {self._shape(layer.tensors[0])}{arguments})"
        return name

    def _shape(self, tensor: str) -> str:
        return f"[{', '.join(' + '.join(map(self._run, runs)) for runs in self._dims.of(tensor))}]"

    def _run(self, run: Run) -> str:
        if not run.axis:
            return str(run.inner)
        factors = [str(run.outer)] * (run.outer > 1) + [self._axis(run.axis)] + [str(run.inner)] * (run.inner > 1)
        return "*".join(factors)

    def _axis(self, group: str) -> str:
        if group not in self._axes:
            self._axes[group] = next(self._free_axes)
        return self._axes[group]

    def _argument(self, argument: Any) -> str:
        match argument:
            case Ref(name):
                return self._values[name]
            case TensorName(name):
                return self._tensor(name)
            case list() | tuple():
                return f"[{', '.join(map(self._argument, argument))}]"
            case sympy.Expr():
                return self._size(argument)
            case torch.dtype() | torch.memory_format():
                return str(argument).removeprefix("torch.")
            case None | bool() | int() | float() | str():
                return repr(argument)
        raise SpaceError(
            f"a call of a model must take numbers and tensors, but one takes {type(argument).__name__}; leave it out of its forward"
        )

    def _tensor(self, name: str) -> str:
        """A tensor outside of layers. An integer tensor is stored as floats, like all weights, and cast where it is read."""
        local, value = self._local[name], self._dims.tensors[name]
        if local not in self._declared:
            kind = "Buffer" if name in self._dims.buffers else "Parameter"
            self._declared[local] = f"{kind}('{local}', {self._shape(name)})"
        if value.is_floating_point():
            return f"t('{local}')"
        if name not in self._casts:
            self._casts[name] = f"v{len(self._steps) + 1}"
            self._steps.append(f"{self._casts[name]} = aten.to.dtype(t('{local}'), {str(value.dtype).removeprefix('torch.')})")
        return self._casts[name]

    def _size(self, size: sympy.Expr) -> str:
        known = {symbol: meaning for symbol, meaning in self._dims.symbols.items() if isinstance(meaning, int)}
        size = size.xreplace({symbol: sympy.Integer(value) for symbol, value in known.items()})
        names = {self._dims.batch: sympy.Symbol(BATCH)}
        for symbol in sorted(size.free_symbols - {self._dims.batch}, key=str):
            names[symbol] = sympy.Symbol(self._axis(str(self._dims.symbols[symbol])))
        return _in_python(size.xreplace(names))


def _axis_names() -> Iterator[str]:
    letters = [letter for letter in string.ascii_lowercase if letter != "t"]
    words = ("".join(each) for length in (1, 2, 3) for each in itertools.product(letters, repeat=length))
    yield from (word for word in words if word != "inf" and not keyword.iskeyword(word))


def _in_python(size: sympy.Expr) -> str:
    text = str(size)
    if "/" in text.replace("//", "") or "**" in text or any(letter.isupper() for letter in text):
        raise SpaceError(
            f"a size of a model must be computed from others by +, -, * and //, but one is {text}; keep the layers around it with --keep"
        )
    return text


# -- calls as layers --------------------------------------------------------------------------------------------------


def _as_layer(call: Call) -> _Layer | None:
    """A call as a layer, if its tensors have the names of a module's tensors; None otherwise."""
    names = [each.name if isinstance(each, TensorName) else None for each in call.args]
    if call.kwargs or not call.args or not isinstance(call.args[0], Ref):
        return None
    match call.target:
        case _aten.conv2d.default:
            return _conv(call, names)
        case _aten.linear.default:
            weight, bias = (*names, None)[1:3]
            is_vector = call.shape is not None and len(call.shape) == 2
            return _layer("Linear", call, weight, bias, (bias is not None, is_vector))
        case _aten.batch_norm.default:
            tensors = names[1:5]
            path = _path(tensors, ("weight", "bias", "running_mean", "running_var"))
            if path is None or call.args[5]:
                return None
            return _Layer(path, "BatchNorm", tuple(map(str, tensors)), (float(call.args[7]), float(call.args[6])))
        case _aten.layer_norm.default:
            weight, bias = (*names, None, None)[2:4]
            path = _path([weight, bias], ("weight", "bias"))
            if path is None or len(call.args[1]) != 1:
                return None
            return _Layer(path, "LayerNorm", (str(weight), str(bias)), (float(call.args[4] if len(call.args) > 4 else 1e-5),))
    return None


def _conv(call: Call, names: Sequence[str | None]) -> _Layer | None:
    defaults: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
    stride, padding, dilation, groups = (*call.args[3:], *defaults[len(call.args[3:]) :])
    weight, bias = (*names, None)[1:3]
    lists = tuple(list(each) * (2 if len(each) == 1 else 1) for each in (stride, padding, dilation))
    return _layer("Conv2d", call, weight, bias, (bias is not None, *lists, groups))


def _layer(kind: str, call: Call, weight: str | None, bias: str | None, arguments: tuple[Any, ...]) -> _Layer | None:
    takes_bias = len(call.args) > 2 and call.args[2] is not None
    tensors = [weight, bias] if takes_bias else [weight]
    path = _path(tensors, ("weight", "bias"))
    return None if path is None else _Layer(path, kind, tuple(map(str, tensors)), arguments, repr(arguments))


def _path(tensors: Sequence[str | None], leaves: Sequence[str]) -> str | None:
    """The common path of tensors that are one module's; None if they are not."""
    split = [("" if name is None else name).rpartition(".") for name in tensors]
    paths = {path for path, _, _ in split}
    fits = [leaf for _, _, leaf in split] == list(leaves[: len(split)]) and len(paths) == 1 and "" not in paths
    return paths.pop() if fits else None
