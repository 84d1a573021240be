"""ONNX export of ``torch.ops.aten`` calls that rearrange values: reshapes, slices, concatenations, pads, resizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ofa.exporting.graph import Call, GraphWriter, Value, require

__all__ = ["SHAPES", "axes_of", "nothing", "shape_of", "transposed"]

_END = np.iinfo(np.int64).max
_PADDINGS = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}

AtenHandler = Callable[[GraphWriter, Call], "str | tuple[str, ...]"]
"""Writes one call, and returns the name of its result or the names of its results."""


def axes_of(value: Value, dims: int | Sequence[int] | None) -> list[int]:
    """Non-negative dimensions; all dimensions for None or an empty list."""
    rank = len(value.shape)
    given = [dims] if isinstance(dims, int) else list(dims or range(rank))
    return [dim % rank for dim in given]


def nothing(writer: GraphWriter, call: Call) -> str:
    """Write no operator: the result is the call's first argument."""
    return writer.value(call.arguments[0])


def transposed(writer: GraphWriter, call: Call, value: Value, step: str) -> str:
    """The name of a matrix, or a batch of matrices, with the last two dimensions exchanged."""
    if value.constant is not None:
        return writer.value(value.derived("transposed", value.constant.mT))
    rank = len(value.shape)
    return writer.put("Transpose", call, value, step=step, perm=(*range(rank - 2), rank - 1, rank - 2))


def _dropout(writer: GraphWriter, call: Call) -> str:
    require(not call.arguments[2], call, "an exported dropout must be in evaluation mode")
    return nothing(writer, call)


def _size(writer: GraphWriter, call: Call, sizes: Sequence[int | Value]) -> str:
    """The name of a list of sizes; some may be known only at run time."""
    if all(isinstance(each, int) for each in sizes):
        return writer.sizes(*(int(each) for each in sizes))  # type: ignore[arg-type]
    parts = [each if isinstance(each, Value) else writer.sizes(each) for each in sizes]
    return writer.put("Concat", call, *parts, step="sizes", axis=0)


def shape_of(writer: GraphWriter, call: Call, value: Value) -> str:
    """The name of a value's shape. Before opset 14 it is a constant, because ONNX cannot infer a result's shape from a computed one."""
    if writer.opset >= 14:
        return writer.put("Shape", call, value, step="shape")
    require(None not in value.shape[1:], call, "a reshape to the shape of another value must be of opset 14 or newer")
    return writer.sizes(*(size or -1 for size in value.shape))


def _rest(call: Call, value: Value, begin: int) -> list[int]:
    """Sizes of the dimensions from ``begin`` on."""
    rest = value.shape[begin:]
    require(None not in rest, call, "an exported reshape must know all sizes behind the dimensions that it changes")
    return [size for size in rest if size is not None]


def _reshape(writer: GraphWriter, call: Call) -> str:
    x, sizes = call.arguments[:2]
    return writer.put("Reshape", call, x, _size(writer, call, sizes))


def _flatten(writer: GraphWriter, call: Call) -> str:
    x, start, end = call.arguments
    start, end = axes_of(x, (start, end))
    return writer.put("Reshape", call, x, writer.sizes(*[0] * start, -1, *_rest(call, x, end + 1)))


def _unflatten(writer: GraphWriter, call: Call) -> str:
    x, dim, sizes = call.arguments
    (dim,) = axes_of(x, dim)
    return writer.put("Reshape", call, x, _size(writer, call, [*[0] * dim, *sizes, *_rest(call, x, dim + 1)]))


def _with_axes(writer: GraphWriter, call: Call, kind: str, x: Value, axes: Sequence[int], step: str = "") -> str:
    if writer.opset >= 13:
        return writer.put(kind, call, x, writer.sizes(*axes), step=step)
    return writer.put(kind, call, x, step=step, axes=axes)


def _squeeze(writer: GraphWriter, call: Call) -> str:
    x, dims = (*call.arguments, None)[:2]
    axes = [axis for axis in axes_of(x, dims) if x.shape[axis] == 1]
    return _with_axes(writer, call, "Squeeze", x, axes) if axes else nothing(writer, call)


def _unsqueeze(writer: GraphWriter, call: Call) -> str:
    x, dim = call.arguments
    return _with_axes(writer, call, "Unsqueeze", x, [dim % (len(x.shape) + 1)])


def _stack(writer: GraphWriter, call: Call) -> str:
    values, dim = call.arguments
    dim %= len(values[0].shape) + 1
    parts = [_with_axes(writer, call, "Unsqueeze", each, [dim], f"part{number}") for number, each in enumerate(values)]
    return writer.put("Concat", call, *parts, axis=dim)


def _cat(writer: GraphWriter, call: Call) -> str:
    values, dim = call.arguments
    return writer.put("Concat", call, *values, axis=axes_of(values[0], dim)[0])


def _permute(writer: GraphWriter, call: Call) -> str:
    x, dims = call.arguments
    return writer.put("Transpose", call, x, perm=axes_of(x, dims))


def _transpose(writer: GraphWriter, call: Call) -> str:
    x, first, second = call.arguments
    order = list(range(len(x.shape)))
    first, second = axes_of(x, (first, second))
    order[first], order[second] = second, first
    return writer.put("Transpose", call, x, perm=order)


def _t(writer: GraphWriter, call: Call) -> str:
    (x,) = call.arguments
    return writer.put("Transpose", call, x, perm=list(reversed(range(len(x.shape)))))


def _length(call: Call, value: Value, axis: int) -> int:
    size = value.shape[axis]
    require(size is not None, call, "an exported network must not be cut into parts of its batch")
    return size or 0


def _split(writer: GraphWriter, call: Call, x: Value, axis: int, sizes: Sequence[int]) -> tuple[str, ...]:
    if writer.opset >= 13:
        return writer.parts("Split", call, len(sizes), x, writer.sizes(*sizes), axis=axis)
    return writer.parts("Split", call, len(sizes), x, axis=axis, split=list(sizes))


def _split_with_sizes(writer: GraphWriter, call: Call) -> tuple[str, ...]:
    x, sizes, dim = call.arguments
    return _split(writer, call, x, axes_of(x, dim)[0], sizes)


def _split_evenly(writer: GraphWriter, call: Call, x: Value, axis: int, size: int) -> tuple[str, ...]:
    whole = _length(call, x, axis)
    return _split(writer, call, x, axis, [min(size, whole - begin) for begin in range(0, whole, size)])


def _split_tensor(writer: GraphWriter, call: Call) -> tuple[str, ...]:
    x, size, dim = call.arguments
    return _split_evenly(writer, call, x, axes_of(x, dim)[0], size)


def _chunk(writer: GraphWriter, call: Call) -> tuple[str, ...]:
    x, count, dim = call.arguments
    return chunks(writer, call, x, axes_of(x, dim)[0], count)


def chunks(writer: GraphWriter, call: Call, x: Value, axis: int, count: int) -> tuple[str, ...]:
    """``count`` parts of an axis, all of equal size except perhaps the last."""
    return _split_evenly(writer, call, x, axis, -(-_length(call, x, axis) // count))


def _index(writer: GraphWriter, index: int) -> str:
    return writer.constant(f"index.{index}", np.array(index, dtype=np.int64))


def _unbind(writer: GraphWriter, call: Call) -> tuple[str, ...]:
    x, dim = call.arguments
    (axis,) = axes_of(x, dim)
    return tuple(
        writer.put("Gather", call, x, _index(writer, number), step=str(number), axis=axis) for number in range(_length(call, x, axis))
    )


def _select(writer: GraphWriter, call: Call) -> str:
    x, dim, index = call.arguments
    return writer.put("Gather", call, x, _index(writer, index), axis=axes_of(x, dim)[0])


def _gather(writer: GraphWriter, call: Call) -> str:
    x, dim, index = call.arguments
    return writer.put("Gather", call, x, index, axis=axes_of(x, dim)[0])


def _index_tensor(writer: GraphWriter, call: Call) -> str:
    x, indices = call.arguments
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    require(
        len(given) == 1 and given[0][1].dtype is not torch.bool,
        call,
        "an exported index must be one tensor of whole numbers for one dimension",
    )
    ((axis, index),) = given
    return writer.put("Gather", call, x, index, axis=axis)


def _embedding(writer: GraphWriter, call: Call) -> str:
    table, index = call.arguments[:2]
    return writer.put("Gather", call, table, index, axis=0)


def _slice(writer: GraphWriter, call: Call) -> str:
    x, dim, start, end, step = call.arguments
    require(not any(isinstance(each, Value) for each in (start, end)), call, "an exported slice must begin and end at constants")
    start, end = start or 0, _END if end is None else end
    if (start, end, step) == (0, _END, 1):
        return nothing(writer, call)
    axis = axes_of(x, dim)[0]
    return writer.put("Slice", call, x, *(writer.sizes(each) for each in (start, end, axis, step)))


def _roll(writer: GraphWriter, call: Call) -> str:
    x, shifts, dims = call.arguments
    require(bool(dims), call, "an exported roll must name its dimensions")
    result: Value | str = x
    for number, (shift, axis) in enumerate(zip(shifts, axes_of(x, dims), strict=True)):
        shift %= _length(call, x, axis)
        if shift:
            parts = (
                writer.put("Slice", call, result, *map(writer.sizes, (begin, end, axis)), step=f"{name}{number}")
                for name, begin, end in (("last", -shift, _END), ("first", 0, -shift))
            )
            result = writer.put("Concat", call, *parts, step=f"rolled{number}", axis=axis)
    return result if isinstance(result, str) else writer.value(result)


def _expand(writer: GraphWriter, call: Call) -> str:
    x, sizes = call.arguments[:2]
    return writer.put("Expand", call, x, _size(writer, call, [1 if each == -1 else each for each in sizes]))


def _expand_as(writer: GraphWriter, call: Call) -> str:
    x, other = call.arguments
    return writer.put("Expand", call, x, writer.put("Shape", call, other, step="shape"))


def _reshape_as(writer: GraphWriter, call: Call) -> str:
    x, other = call.arguments
    return writer.put("Reshape", call, x, shape_of(writer, call, other))


def _repeat(writer: GraphWriter, call: Call) -> str:
    x, counts = call.arguments
    missing = len(counts) - len(x.shape)
    whole = _with_axes(writer, call, "Unsqueeze", x, range(missing), "raised") if missing else writer.value(x)
    return writer.put("Tile", call, whole, _size(writer, call, counts))


def _pad_as(writer: GraphWriter, call: Call, x: Value, pads: Sequence[int], mode: str, value: float | None) -> str:
    if not any(pads):
        return nothing(writer, call)
    require(mode in _PADDINGS, call, f"an exported pad must be one of {', '.join(_PADDINGS)}")
    missing = [0] * (len(x.shape) - len(pads) // 2)
    befores, afters = [*missing, *reversed(pads[::2])], [*missing, *reversed(pads[1::2])]
    filling = value or 0.0 if mode == "constant" else None
    return writer.put("Pad", call, x, writer.sizes(*befores, *afters), filling, mode=_PADDINGS[mode])


def _constant_pad(writer: GraphWriter, call: Call) -> str:
    x, pads, value = call.arguments
    return _pad_as(writer, call, x, pads, "constant", value)


def _pad(writer: GraphWriter, call: Call) -> str:
    return _pad_as(writer, call, *call.arguments)


def _pixel_shuffle(writer: GraphWriter, call: Call) -> str:
    x, factor = call.arguments
    return writer.put("DepthToSpace", call, x, blocksize=factor, mode="CRD")


def _pixel_unshuffle(writer: GraphWriter, call: Call) -> str:
    # SpaceToDepth orders output channels by (position in the square, channel), torch by (channel, position).
    x, factor = call.arguments
    channels, height, width = (_length(call, x, axis) for axis in (1, 2, 3))
    cut = writer.put("Reshape", call, x, writer.sizes(0, channels, height // factor, factor, width // factor, factor), step="cut")
    moved = writer.put("Transpose", call, cut, step="moved", perm=[0, 1, 3, 5, 2, 4])
    return writer.put("Reshape", call, moved, writer.sizes(0, channels * factor**2, height // factor, width // factor))


def _resize(writer: GraphWriter, call: Call, x: Value, size: Sequence[int] | None, scales: Sequence[float] | None, **how: Any) -> str:
    sides = x.shape[2:]
    require(None not in sides, call, "an exported resize must know the size of its images")
    known = [side for side in sides if side is not None]
    if size is None:
        size = [int(side * scale) for side, scale in zip(known, scales or (), strict=True)]
    exact = scales is None or all(new == side * scale for new, side, scale in zip(size, known, scales, strict=True))
    require(exact, call, "an exported resize must scale to a whole number of pixels")
    shape = writer.put("Shape", call, x, step="shape")
    kept = writer.put("Slice", call, shape, *map(writer.sizes, (0, 2)), step="kept")
    new = writer.put("Concat", call, kept, writer.sizes(*size), step="sizes", axis=0)
    # Opset 11 requires the inputs roi and scales, although they are not used here.
    unused = writer.constant("unused", np.zeros(0, dtype=np.float32)) if writer.opset < 13 else None
    return writer.put("Resize", call, x, unused, unused, new, **how)


def _scales(given: Sequence[Any]) -> list[float] | None:
    """Scale factors of both sides, given as one list or separately; None if there are none."""
    factors = [each for each in (given[0] if len(given) == 1 and given[0] is not None else given) if each is not None]
    return factors or None


def _nearest(writer: GraphWriter, call: Call) -> str:
    x, size, *scales = call.arguments
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _resize(writer, call, x, size, _scales(scales), **how)


def _bilinear(writer: GraphWriter, call: Call) -> str:
    x, size, align, *scales = call.arguments
    mode = "align_corners" if align else "pytorch_half_pixel"
    return _resize(writer, call, x, size, _scales(scales), mode="linear", coordinate_transformation_mode=mode)


SHAPES: Mapping[AtenHandler, str] = {
    _bilinear: "upsample_bilinear2d.vec upsample_bilinear2d.default",
    _cat: "cat.default",
    _chunk: "chunk.default",
    _constant_pad: "constant_pad_nd.default",
    _dropout: "dropout.default",
    _embedding: "embedding.default",
    _expand: "expand.default",
    _expand_as: "expand_as.default",
    _flatten: "flatten.using_ints",
    _gather: "index_select.default",
    _index_tensor: "index.Tensor",
    _nearest: "upsample_nearest2d.vec upsample_nearest2d.default",
    _pad: "pad.default",
    _permute: "permute.default",
    _pixel_shuffle: "pixel_shuffle.default",
    _pixel_unshuffle: "pixel_unshuffle.default",
    _repeat: "repeat.default",
    _reshape: "view.default reshape.default _unsafe_view.default",
    _reshape_as: "reshape_as.default view_as.default",
    _roll: "roll.default",
    _select: "select.int",
    _slice: "slice.Tensor",
    _split_tensor: "split.Tensor",
    _split_with_sizes: "split_with_sizes.default",
    _squeeze: "squeeze.default squeeze.dim squeeze.dims",
    _stack: "stack.default",
    _t: "t.default numpy_T.default",
    _transpose: "transpose.int",
    _unbind: "unbind.int",
    _unflatten: "unflatten.int",
    _unsqueeze: "unsqueeze.default",
    nothing: "alias.default clone.default contiguous.default detach.default lift_fresh.default lift_fresh_copy.default",
}
"""The overloads of each handler, separated by spaces."""
