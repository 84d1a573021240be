"""Code: the calls of a traced block as text in Python syntax, which is parsed but never executed as Python.

Space files carry such text, so it is untrusted data: it may only call layers that it declares, and operators of ``torch.ops.aten`` that
compute tensors from tensors without other effects. There is one statement per line:

    Conv2d('conv', [b, a, 3, 3], None, [1, 1], [1, 1], [1, 1], 1)    a layer: name, shape of its weight, further arguments
    Parameter('scale', [b])                                         a loose tensor; Buffer if it is not trained
    v1 = call('conv', v0)                                           v0 is the input
    v2 = aten.mul.Tensor(v1, t('scale'))                            the last value is the output

``a`` and ``b`` are axes: sizes that differ between blocks with the same code. A size is an expression of axes with ``+``, ``-``, ``*``
and ``//``; ``batch`` is the number of images. In the shape of a tensor, ``3*a*16`` also states a layout: 3 repetitions of the units of
axis ``a``, with 16 values per unit (``ofa.blocks.runs``).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch

from ofa.blocks.runs import Run, Runs
from ofa.errors import SpaceError

__all__ = ["BATCH", "Code", "Declared", "Size", "Step", "TensorRef", "Value", "operator_named", "parse_code", "resolve"]

Kind = Literal["Conv2d", "BatchNorm", "Linear", "LayerNorm", "Parameter", "Buffer"]
KINDS: tuple[Kind, ...] = ("Conv2d", "BatchNorm", "Linear", "LayerNorm", "Parameter", "Buffer")
_TAKES: Mapping[Kind, tuple[int, int]] = {"Conv2d": (4, 5), "BatchNorm": (1, 2), "Linear": (2, 2), "LayerNorm": (1, 1)}
"""For each kind of layer, the number of dimensions of its weight and the number of further arguments (floats for norms)."""

BATCH = "batch"
_INPUT = "v0"
_MOST_CHARACTERS = 2**20
_LARGEST_NUMBER = 2**63 - 1
"""Largest signed 64-bit integer; as the end of a slice it means the end of the tensor."""
_LARGEST_DIMENSION = 2**24
"""Limit above the dimensions of all real weights; larger ones would exhaust time and memory."""
_ARITHMETIC: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_DTYPES = {str(each).removeprefix("torch."): each for each in (torch.float32, torch.int64, torch.int32, torch.bool)}
_FORMATS = {"contiguous_format": torch.contiguous_format, "preserve_format": torch.preserve_format}
_NAMES: Mapping[str, Any] = {**_DTYPES, **_FORMATS, "inf": float("inf")}


@dataclass(frozen=True)
class Value:
    """The result of a step, or the input."""

    name: str


@dataclass(frozen=True)
class TensorRef:
    """A reference to a loose tensor."""

    name: str


@dataclass(frozen=True, eq=False)
class Size:
    """A size that depends on axes or on the number of images."""

    tree: ast.expr

    def value(self, lengths: Mapping[str, int]) -> int:
        """The size for axes of these lengths."""
        return _evaluate(self.tree, lengths)


@dataclass(frozen=True, eq=False)
class Declared:
    """A layer or a loose tensor.

    Attributes:
        kind: of layer or tensor.
        name: dotted name within the block.
        shape: of the layer's weight, or of the tensor: the runs of each dimension.
        arguments: further arguments of the kind.
    """

    kind: Kind
    name: str
    shape: tuple[Runs, ...]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Step:
    """A call.

    Attributes:
        output: name of the result.
        kind: ``layer``, ``operator``, or ``item`` (one of several outputs of a step).
        target: name of the layer, or of the operator, such as ``relu.default``; empty for ``item``.
        args, kwargs: numbers, texts, lists, ``Value``, ``TensorRef`` and ``Size``.
    """

    output: str
    kind: Literal["layer", "operator", "item"]
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Code:
    """Parsed code.

    Attributes:
        declared: layers and loose tensors by name.
        steps: the calls in order; the result of the last is the output.
        axes: names of all axes, in order of first occurrence.
    """

    declared: Mapping[str, Declared]
    steps: tuple[Step, ...]
    axes: tuple[str, ...]


@lru_cache(maxsize=4096)
def parse_code(text: str) -> Code:
    """Parse the code of a block.

    Raises:
        SpaceError: the text is not valid code, or calls an operator that is not allowed.
    """
    if len(text) > _MOST_CHARACTERS:
        raise SpaceError(
            f"the code of a block must have at most {_MOST_CHARACTERS} characters, but one has {len(text)}; adopt the model again"
        )
    try:
        return _Parser(text).code
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise SpaceError(f"the code of a block must be one call per line, but has an error: {error}; adopt the model again") from error


class _Parser:
    def __init__(self, text: str) -> None:
        self._axes: dict[str, None] = {}
        self._declared: dict[str, Declared] = {}
        self._values = {_INPUT}
        steps = []
        for statement in ast.parse(text).body:
            match statement:
                case ast.Expr(value=ast.Call(func=ast.Name(id=kind), args=args, keywords=[])) if kind in KINDS:
                    self._declare(kind, args)
                case ast.Assign(targets=[ast.Name(id=output)], value=value) if output not in self._values:
                    steps.append(self._step(output, value))
                    self._values.add(output)
                case _:
                    raise ValueError(f"invalid line: {_shown(statement)}")
        if not steps:
            raise ValueError("no calls")
        self.code = Code(self._declared, tuple(steps), tuple(self._axes))

    def _declare(self, kind: Kind, args: list[ast.expr]) -> None:
        match args:
            case [ast.Constant(value=str(name)), ast.List(elts=dims), *rest] if name not in self._declared and _is_dotted(name):
                shape = tuple(tuple(self._runs(dim)) for dim in dims)
                arguments = tuple(map(self._argument, rest))
                if (len(shape), len(arguments)) != _TAKES.get(kind, (len(shape), 0)):
                    raise ValueError(f"{kind} with {len(shape)} dimensions and {len(arguments)} arguments")
                if kind.endswith("Norm") and not all(type(each) is float and 0 <= each < math.inf for each in arguments):
                    raise ValueError(f"{kind} with arguments other than numbers of at least 0")
                self._declared[name] = Declared(kind, name, shape, arguments)
            case _:
                raise ValueError(f"{kind} must have a new name and a shape")

    def _runs(self, tree: ast.expr) -> Iterator[Run]:
        if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
            yield from self._runs(tree.left)
            yield from self._runs(tree.right)
            return
        factors = list(_factors(tree))
        names = [number for number, each in enumerate(factors) if isinstance(each, ast.Name)]
        numbers = [each.value if isinstance(each, ast.Constant) else 1 for each in factors]
        if len(names) > 1 or any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError(f"invalid dimension: {_shown(tree)}")
        if _product(numbers) > _LARGEST_DIMENSION:
            raise ValueError(f"a dimension of {_product(numbers)}")
        if not names:
            yield Run("", 1, _product(numbers))
            return
        (at,) = names
        axis = factors[at]
        assert isinstance(axis, ast.Name)
        self._axes.setdefault(_axis(axis.id))
        yield Run(axis.id, _product(numbers[:at]), _product(numbers[at + 1 :]))

    def _step(self, output: str, value: ast.expr) -> Step:
        match value:
            case ast.Subscript(value=ast.Name() as source, slice=ast.Constant(value=int(index))):
                return Step(output, "item", "", (self._argument(source), index))
            case ast.Call(func=ast.Name(id="call"), args=[ast.Constant(value=str(name)), *args], keywords=[]) if name in self._declared:
                if self._declared[name].kind in ("Parameter", "Buffer"):
                    raise ValueError(f"a call of the tensor {name}")
                return Step(output, "layer", name, tuple(map(self._argument, args)))
            case ast.Call(func=func, args=args, keywords=keywords):
                name = ast.unparse(func).removeprefix("aten.")
                operator_named(name)
                kwargs = {str(each.arg): self._argument(each.value) for each in keywords}
                return Step(output, "operator", name, tuple(map(self._argument, args)), kwargs)
        raise ValueError(f"invalid call: {_shown(value)}")

    def _argument(self, tree: ast.expr) -> Any:
        match tree:
            case ast.Constant(value=int(value)) if value > _LARGEST_NUMBER:
                raise ValueError(f"a number above {_LARGEST_NUMBER}")
            case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                found = self._argument(operand)
                return Size(tree) if isinstance(found, Size) else -found
            case ast.List(elts=elements):
                return [self._argument(each) for each in elements]
            case ast.Name(id=name) if name in self._values:
                return Value(name)
            case ast.Name(id=name) if name in _NAMES:
                return _NAMES[name]
            case ast.Call(func=ast.Name(id="t"), args=[ast.Constant(value=str(name))], keywords=[]) if name in self._declared:
                return TensorRef(name)
            case ast.Name() | ast.BinOp():
                for each in ast.walk(tree):
                    if isinstance(each, ast.Name) and each.id != BATCH:
                        self._axes.setdefault(_axis(each.id))
                _evaluate(tree, dict.fromkeys((*self._axes, BATCH), 1))
                return Size(tree)
        raise ValueError(f"invalid argument: {_shown(tree)}")


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() or part.isdigit() for part in name.split("."))


def _axis(name: str) -> str:
    if not (name.isascii() and name.isalpha() and name.islower() and len(name) <= 3) or name in ("t", BATCH):
        raise ValueError(f"invalid axis: {name[:20]}")
    return name


def _factors(tree: ast.expr) -> Iterator[ast.expr]:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult):
        yield from _factors(tree.left)
        yield from _factors(tree.right)
    else:
        yield tree


def _product(numbers: list[Any]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


def _evaluate(tree: ast.expr, lengths: Mapping[str, int]) -> int:
    match tree:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return lengths[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, lengths)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_evaluate(left, lengths), _evaluate(right, lengths))
    raise ValueError(f"invalid size: {_shown(tree)}")


def _shown(tree: ast.AST) -> str:
    return ast.unparse(tree)[:60]


def resolve(argument: Any, lengths: Mapping[str, int]) -> Any:
    """Replace every size in an argument by its number for axes of these lengths, except sizes that depend on the batch."""
    if isinstance(argument, list):
        return [resolve(each, lengths) for each in argument]
    if isinstance(argument, Size):
        depends = any(isinstance(each, ast.Name) and each.id == BATCH for each in ast.walk(argument.tree))
        return argument if depends else argument.value(lengths)
    return argument


# -- operators --------------------------------------------------------------------------------------------------------

_COMPUTE_ONLY = {"scaled_dot_product_attention.default", "index.Tensor", "einsum.default"}
"""Exceptions to the rules below: attention and indexing are tagged only because of dropout and of masks as indices, which networks in
evaluation mode do not use; einsum takes a text argument, but it only describes the computation."""
_REFUSED_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded}


@lru_cache(maxsize=4096)
def operator_named(name: str) -> Any:
    """The operator of ``torch.ops.aten`` with a name such as ``relu.default``.

    Raises:
        ValueError: there is no such operator, or it may do more than compute tensors of known sizes from tensors.
    """
    packet, _, overload = name.partition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None) if packet.isidentifier() and overload.isidentifier() else None
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"unknown operator: {name[:60]}")
    schema = found._schema
    takes = bool(schema.arguments) and str(schema.arguments[0].type) in ("Tensor", "List[Tensor]")
    gives = all("Tensor" in str(each.type) for each in schema.returns) and bool(schema.returns)
    text = any("str" in str(each.type) and each.name not in ("approximate", "mode", "padding") for each in schema.arguments)
    doubtful = not takes or text or bool(_REFUSED_TAGS & set(found.tags))
    if not gives or schema.is_mutable or (doubtful and name not in _COMPUTE_ONLY):
        raise ValueError(f"an operator that may do more than compute: {name[:60]}")
    return found
