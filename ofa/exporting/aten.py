"""ONNX export of ``torch.ops.aten`` calls that compute values, as they occur in traced models beside modules.

Shapes: B batch, C channels, H W pixels, T tokens of D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from onnx import TensorProto
from torch._ops import OpOverload

from ofa.exporting.aten_layers import LAYERS
from ofa.exporting.aten_shapes import SHAPES, AtenHandler, axes_of, chunks, nothing
from ofa.exporting.graph import Call, GraphWriter, Operand, Value, require
from ofa.exporting.operators import gelu

__all__ = ["ATEN", "aten_handler"]

_TYPES = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64, torch.bool: TensorProto.BOOL}


def aten_handler(target: OpOverload[..., Any]) -> AtenHandler | None:
    """The handler of an overload; an in-place overload has the handler of its out-of-place form. None without a handler."""
    name, overload = str(target).removeprefix("aten.").split(".")
    return ATEN.get(f"{name.rstrip('_')}.{overload}" if target._schema.is_mutable else f"{name}.{overload}")


# -- one value at a time -----------------------------------------------------------------------------------------------


def _same(kind: str, **attributes: Any) -> AtenHandler:
    """A handler that writes one ONNX operator of the call's first argument."""

    def write(writer: GraphWriter, call: Call) -> str:
        return writer.put(kind, call, call.arguments[0], **attributes)

    return write


def _of_one_type(writer: GraphWriter, call: Call, operands: Sequence[Operand]) -> list[Operand]:
    """Operands, with integers cast to float if any operand is float (torch's type promotion)."""
    if not any(isinstance(each, Value) and each.dtype.is_floating_point for each in operands):
        return list(operands)
    return [
        each if not isinstance(each, Value) or each.dtype.is_floating_point else _floating(writer, call, each, f"floating{number}")
        for number, each in enumerate(operands)
    ]


def _floating(writer: GraphWriter, call: Call, value: Value, step: str) -> Operand:
    if value.constant is not None:
        return value.derived("floating", value.constant.float())
    return writer.put("Cast", call, value, step=step, to=TensorProto.FLOAT)


def _binary(kind: str, *, swapped: bool = False) -> AtenHandler:
    """A handler that writes a binary operator; the second operand is multiplied by ``alpha`` where the signature has it."""

    def write(writer: GraphWriter, call: Call) -> str:
        first, second = call.arguments[1::-1] if swapped else call.arguments[:2]
        first, second = _of_one_type(writer, call, (first, second))
        return writer.put(kind, call, first, _scaled(writer, call, second, *call.arguments[2:]))

    return write


def _scaled(writer: GraphWriter, call: Call, operand: Operand, factor: float = 1) -> Operand:
    if factor == 1:
        return operand
    if isinstance(operand, int | float):
        return operand * factor
    return writer.put("Mul", call, operand, factor, step="scaled")


def _clip(writer: GraphWriter, call: Call) -> str:
    return writer.put("Clip", call, *call.arguments[:3])


def _clamp_min(writer: GraphWriter, call: Call) -> str:
    return writer.put("Clip", call, *call.arguments, None)


def _clamp_max(writer: GraphWriter, call: Call) -> str:
    x, high = call.arguments
    return writer.put("Clip", call, x, None, high)


def _relu6(writer: GraphWriter, call: Call) -> str:
    return writer.put("Clip", call, call.arguments[0], 0.0, 6.0)


def _silu(writer: GraphWriter, call: Call) -> str:
    (x,) = call.arguments
    return writer.put("Mul", call, x, writer.put("Sigmoid", call, x, step="gate"))


def _mish(writer: GraphWriter, call: Call) -> str:
    (x,) = call.arguments
    return writer.put("Mul", call, x, writer.put("Tanh", call, writer.put("Softplus", call, x, step="soft"), step="gate"))


def _glu(writer: GraphWriter, call: Call) -> str:
    x, dim = call.arguments
    value, gate = chunks(writer, replace(call, name=f"{call.name}_parts"), x, axes_of(x, dim)[0], 2)
    return writer.put("Mul", call, value, writer.put("Sigmoid", call, gate, step="gate"))


def _gelu(writer: GraphWriter, call: Call) -> str:
    x, approximate = call.arguments
    if approximate == "none":
        return gelu(writer, replace(call, inputs=(writer.value(x),)))
    cube = writer.put("Pow", call, x, 3.0, step="cube")
    bent = writer.put("Add", call, x, writer.put("Mul", call, cube, 0.044715, step="small"), step="bent")
    angle = writer.put("Tanh", call, writer.put("Mul", call, bent, math.sqrt(2 / math.pi), step="angle"), step="tanh")
    share = writer.put("Add", call, angle, 1.0, step="share")
    return writer.put("Mul", call, writer.put("Mul", call, x, share, step="doubled"), 0.5)


def _leaky_relu(writer: GraphWriter, call: Call) -> str:
    x, slope = call.arguments
    return writer.put("LeakyRelu", call, x, alpha=slope)


def _elu(writer: GraphWriter, call: Call) -> str:
    x, alpha, scale, input_scale = call.arguments
    require(scale == input_scale == 1, call, "an exported ELU must not be scaled")
    return writer.put("Elu", call, x, alpha=float(alpha))


def _softplus(writer: GraphWriter, call: Call) -> str:
    x, beta, _ = call.arguments  # torch's threshold changes the result by less than float32 resolves
    if beta == 1:
        return writer.put("Softplus", call, x)
    stretched = writer.put("Softplus", call, writer.put("Mul", call, x, beta, step="stretched"), step="soft")
    return writer.put("Div", call, stretched, beta)


def _rsqrt(writer: GraphWriter, call: Call) -> str:
    return writer.put("Reciprocal", call, writer.put("Sqrt", call, *call.arguments, step="root"))


def _cast(writer: GraphWriter, call: Call) -> str:
    x, *others = call.arguments
    wanted = next((each for each in others if isinstance(each, torch.dtype)), x.dtype)
    if wanted == x.dtype:
        return nothing(writer, call)
    require(wanted in _TYPES, call, "an exported network must compute in float32, int64 and bool")
    return writer.put("Cast", call, x, to=_TYPES[wanted])


def _masked_fill(writer: GraphWriter, call: Call) -> str:
    x, mask, value = call.arguments
    return writer.put("Where", call, mask, value, x)


def _where(writer: GraphWriter, call: Call) -> str:
    condition, *values = call.arguments
    return writer.put("Where", call, condition, *_of_one_type(writer, call, values))


def _bitwise_not(writer: GraphWriter, call: Call) -> str:
    require(call.arguments[0].dtype is torch.bool, call, "an exported negation must be of true and false")
    return writer.put("Not", call, *call.arguments)


# -- along dimensions --------------------------------------------------------------------------------------------------


def _softmax(kind: str) -> AtenHandler:
    def write(writer: GraphWriter, call: Call) -> str:
        x, dim, _ = call.arguments
        (axis,) = axes_of(x, dim)
        last = axis == len(x.shape) - 1
        require(last or writer.opset >= 13, call, "a softmax over another dimension than the last must be of opset 13 or newer")
        return writer.put(kind, call, x, axis=axis)

    return write


def _reduced(writer: GraphWriter, call: Call, kind: str, x: Value | str, axes: Sequence[int], keep: bool, step: str = "") -> str:
    if writer.opset >= (13 if kind == "ReduceSum" else 18):
        return writer.put(kind, call, x, writer.sizes(*axes), step=step, keepdims=int(keep))
    return writer.put(kind, call, x, step=step, axes=list(axes), keepdims=int(keep))


def _reduction(kind: str) -> AtenHandler:
    def write(writer: GraphWriter, call: Call) -> str:
        x, dims, keep = (*call.arguments, None, False)[:3]
        dims, keep = (None, False) if isinstance(dims, torch.dtype) else (dims, keep)
        return _reduced(writer, call, kind, x, axes_of(x, dims), bool(keep))

    return write


def _norm(writer: GraphWriter, call: Call) -> str:
    x, order, dims, keep = call.arguments[:4]
    require(order in (1, 2), call, "an exported norm must be of order 1 or 2")
    return _reduced(writer, call, f"ReduceL{int(order)}", x, axes_of(x, dims), keep)


def _var(writer: GraphWriter, call: Call) -> str:
    x, dims, correction, keep = call.arguments
    axes = axes_of(x, dims)
    sizes = [x.shape[axis] for axis in axes]
    require(None not in sizes, call, "an exported variance must not be over the batch")
    count = math.prod(size or 0 for size in sizes)
    left = count - (1 if correction is None else correction)
    mean = _reduced(writer, call, "ReduceMean", writer.value(x), axes, True, "mean")
    centred = writer.put("Sub", call, x, mean, step="centred")
    squared = writer.put("Mul", call, centred, centred, step="squared")
    return writer.put("Mul", call, _reduced(writer, call, "ReduceMean", squared, axes, keep, "variance"), count / left)


def _rms_norm(writer: GraphWriter, call: Call) -> str:
    x, shape, weight, eps = call.arguments
    square = writer.put("Mul", call, x, x, step="square")
    mean = _reduced(writer, call, "ReduceMean", square, [axis % len(x.shape) for axis in range(-len(shape), 0)], True, "mean")
    shifted = writer.put("Add", call, mean, torch.finfo(x.dtype).eps if eps is None else eps, step="shifted")
    root = writer.put("Sqrt", call, shifted, step="root")
    if weight is None:
        return writer.put("Div", call, x, root)
    return writer.put("Mul", call, writer.put("Div", call, x, root, step="scaled"), weight)


def _std(writer: GraphWriter, call: Call) -> str:
    return writer.put("Sqrt", call, _var(writer, replace(call, name=f"{call.name}_square")))


_COMPUTING: Mapping[AtenHandler, str] = {
    _binary("Add"): "add.Tensor add.Scalar",
    _binary("Div"): "div.Tensor div.Scalar true_divide.Tensor",
    _binary("Mul"): "mul.Tensor mul.Scalar",
    _binary("Pow"): "pow.Tensor_Scalar",
    _binary("Sub"): "sub.Tensor sub.Scalar",
    _binary("Sub", swapped=True): "rsub.Tensor rsub.Scalar",
    _bitwise_not: "bitwise_not.default logical_not.default",
    _cast: "to.dtype to.dtype_layout to.device _to_copy.default",
    _clamp_max: "clamp_max.default",
    _clamp_min: "clamp_min.default",
    _clip: "clamp.default hardtanh.default",
    _elu: "elu.default",
    _gelu: "gelu.default",
    _leaky_relu: "leaky_relu.default",
    _masked_fill: "masked_fill.Scalar",
    _norm: "norm.ScalarOpt_dim linalg_vector_norm.default",
    _reduction("ReduceMax"): "amax.default",
    _reduction("ReduceMean"): "mean.default mean.dim",
    _reduction("ReduceMin"): "amin.default",
    _reduction("ReduceSum"): "sum.default sum.dim_IntList",
    _relu6: "relu6.default",
    _rsqrt: "rsqrt.default",
    _same("Abs"): "abs.default",
    _same("Erf"): "erf.default",
    _same("Exp"): "exp.default",
    _same("HardSigmoid", alpha=1 / 6, beta=0.5): "hardsigmoid.default",
    _same("HardSwish"): "hardswish.default",
    _same("Log"): "log.default",
    _same("Neg"): "neg.default",
    _same("Reciprocal"): "reciprocal.default",
    _same("Relu"): "relu.default",
    _same("Selu"): "selu.default",
    _same("Sigmoid"): "sigmoid.default",
    _same("Sqrt"): "sqrt.default",
    _same("Tanh"): "tanh.default",
    _mish: "mish.default",
    _glu: "glu.default",
    _silu: "silu.default",
    _softmax("LogSoftmax"): "log_softmax.int _log_softmax.default",
    _softmax("Softmax"): "softmax.int _softmax.default",
    _softplus: "softplus.default",
    _rms_norm: "rms_norm.default",
    _std: "std.correction",
    _var: "var.correction",
    _where: "where.self",
}

ATEN: Mapping[str, AtenHandler] = {
    name: handler for table in (_COMPUTING, LAYERS, SHAPES) for handler, names in table.items() for name in names.split()
}
"""The handler of each overload, such as ``add.Tensor``."""
