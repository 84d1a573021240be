"""ONNX files; their content without weights is sized before parsing, because a message of two bytes becomes an object of a hundred."""

from __future__ import annotations

import os

import onnx
from google.protobuf.message import DecodeError

from ofa.errors import ExportError
from ofa.files import reason_of
from ofa.reading.files import read_bytes
from ofa.reading.limits import LARGEST_DESCRIPTION, LARGEST_MODEL, UnfitError
from ofa.seal import SEAL_KEY, check_seal

__all__ = ["parse_model", "read_model_bytes"]

_VARINT, _EIGHT_BYTES, _TEXT, _FOUR_BYTES = 0, 1, 2, 5
_GRAPH, _INITIALIZER = 7, 5
_VALUES = (4, 9)
"""Fields of a tensor with its values, as floats and as raw bytes; parsing does not enlarge them."""


def read_model_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read the content of an ONNX file.

    Raises:
        FileError: the file does not exist or cannot be read.
        DamagedError: the file has a checksum that does not match.
        ExportError: the file is malformed or exceeds a limit.
    """
    content = read_bytes(path, most=LARGEST_MODEL, what="ONNX file")
    check_seal(content, required=False, what=f"'{os.fspath(path)}'")
    _check(content, f"'{os.fspath(path)}'")
    return content


def parse_model(content: bytes, what: str) -> onnx.ModelProto:
    """Parse the content of an ONNX file; its seal is removed, and tensors in external files are refused.

    Args:
        content: of the file.
        what: name of the file in messages.

    Raises:
        ExportError: the content is malformed, exceeds a limit, or has external tensors.
    """
    _check(content, what)
    try:
        model = onnx.load_from_string(content)
        outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    except (DecodeError, ValueError) as error:
        raise _unfit(what, reason_of(error)) from error
    for text in [each for each in model.metadata_props if each.key == SEAL_KEY]:  # the seal is of the file, not of models derived from it
        model.metadata_props.remove(text)
    if outside:
        raise _unfit(what, f"its tensor {outside[0]} is in another file")
    return model


def _check(content: bytes, what: str) -> None:
    try:
        values = 0
        for number, start, end in _fields(content, 0, len(content)):
            for inner, inner_start, inner_end in _fields(content, start, end) if number == _GRAPH else ():
                if inner == _INITIALIZER:
                    values += sum(last - first for each, first, last in _fields(content, inner_start, inner_end) if each in _VALUES)
        if len(content) - values > LARGEST_DESCRIPTION:
            raise UnfitError(f"it has {len(content) - values} bytes beside its weights, more than {LARGEST_DESCRIPTION}")
    except (UnfitError, IndexError) as error:
        reason = "it is cut off" if isinstance(error, IndexError) else str(error)
        raise _unfit(what, reason) from error


def _unfit(what: str, reason: str) -> ExportError:
    return ExportError(f"{what} must be an ONNX file of a network, but cannot be read: {reason}; export the network again")


def _fields(content: bytes, place: int, end: int) -> list[tuple[int, int, int]]:
    """(number, start, end) of the length-delimited fields of a protobuf message."""
    found = []
    while place < end:
        tag, place = _varint(content, place)
        kind, length = tag & 7, 0
        if kind == _VARINT:
            _, place = _varint(content, place)
        elif kind == _TEXT:
            length, place = _varint(content, place)
            found.append((tag >> 3, place, place + length))
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise UnfitError("it is damaged")
        place += length
        if place > end or len(found) > LARGEST_DESCRIPTION // 8:
            raise UnfitError("it is cut off, or has too many parts")
    return found


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise UnfitError("it is damaged")
