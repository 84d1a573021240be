"""Safe reading of tensor files: safetensors and ``torch.save``. Headers are checked before any tensor is read."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from ofa.errors import FileError, OfaError
from ofa.files import reason_of
from ofa.reading.archives import check_archive
from ofa.reading.files import open_file
from ofa.reading.limits import DEEPEST, LARGEST_HEADER, LARGEST_TENSORS, LONGEST_PICKLE, MOST_OPERATIONS, MOST_TENSORS, UnfitError
from ofa.reading.texts import parse_json
from ofa.seal import check_seal

__all__ = ["TensorFile", "read_safetensors", "read_torch"]

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"

_MADE = {
    *("collections OrderedDict", "torch Size", "torch device", "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"),
    *("torch._utils _rebuild_parameter", "torch.nn.parameter Parameter", "_codecs encode", "numpy dtype"),
    *("numpy.core.multiarray scalar", "numpy._core.multiarray scalar"),
}
"""Globals that a pickle may name; torch's own list is longer and has, for example, byte arrays of any length."""
_LEGACY_PICKLES = 5
"""Number of consecutive pickles before the tensor bytes in files of torch before 1.6."""
_ZIP = b"PK\x03\x04"


class _Kind:
    """Replaces ``numpy.dtype`` in a file; accepts numeric types only."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"):
            raise pickle.UnpicklingError(f"{code!r} is no kind of numbers")
        self._code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._code = (">" if state[1] == ">" else "<") + self._code

    def number(self, content: bytes) -> float:
        """Decode a number from its bytes."""
        return cast(float, np.frombuffer(content, self._code, count=1)[0].item())


def _number(kind: _Kind, content: bytes) -> float:
    return kind.number(content)


# Training programs save the best accuracy as a NumPy scalar, under the module name of NumPy 1 or 2.
_NUMPY_SCALARS: list[Any] = [
    (_Kind, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]
"""Additional globals for unpickling: our own functions, which can only create numbers."""


@dataclass(frozen=True, eq=False)
class TensorFile:
    """The content of a safetensors file.

    Attributes:
        header: texts of the header (``__metadata__``), by key.
        tensors: by name.
        sealed: whether the file has a checksum, which matched.
    """

    header: dict[str, str]
    tensors: dict[str, torch.Tensor]
    sealed: bool


def read_safetensors(
    path: str | os.PathLike[str],
    *,
    what: str = "safetensors file",
    check: Callable[[Mapping[str, str]], None] = lambda header: None,
    error: type[OfaError] = FileError,
) -> TensorFile:
    """Read a safetensors file.

    Args:
        path: of the file.
        what: noun for the file in messages.
        check: called with the header's texts before tensors are read; raises its own error if the file is of the wrong kind.
        error: class of errors about damaged files.

    Raises:
        FileError: the file does not exist or cannot be read.
        DamagedError: the file has a checksum that does not match.
        OfaError: of the class ``error``: the file is malformed, exceeds a limit, or does not fit into memory.
    """
    name = os.fspath(path)
    try:
        with open_file(path, what=what) as file:
            texts = _header(file)
            check(texts)
            file.seek(0)
            content = file.read()
        sealed = check_seal(content, required=False, what=f"'{name}'")
        return TensorFile(texts, load(content), sealed)
    except MemoryError as problem:
        raise error(f"'{name}' must fit into memory, but does not; use a machine with more") from problem
    except (SafetensorError, UnfitError, OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, struct.error) as problem:
        raise error(f"'{name}' must be a whole {what}, but {reason_of(problem)}; copy or write it again") from problem


def _header(file: BinaryIO) -> dict[str, str]:
    """The texts of the header of an open file, after checks of its size and number of tensors."""
    size = os.fstat(file.fileno()).st_size
    length = _LENGTH.unpack(file.read(_LENGTH.size))[0]
    if length > min(size - _LENGTH.size, LARGEST_HEADER) or size > LARGEST_TENSORS:
        raise UnfitError(f"its header is cut off, has more than {LARGEST_HEADER} bytes, or the file more than {LARGEST_TENSORS}")
    header = parse_json(file.read(length), what="its header", remedy="nothing else is read", error=_HeaderError)
    texts = header.pop(_METADATA, None) or {} if isinstance(header, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise UnfitError("its header is no object of texts and tensors")
    if len(header) > MOST_TENSORS:
        raise UnfitError(f"it has more than {MOST_TENSORS} tensors")
    return texts


class _HeaderError(OfaError, ValueError):
    """A header that is not JSON."""


def read_torch(path: str | os.PathLike[str], *, error: type[OfaError] = FileError) -> Mapping[str, Any]:
    """Read a mapping that ``torch.save`` wrote; only tensors, numbers and containers are unpickled.

    Args:
        path: of the file.
        error: class of errors about damaged or unsupported files.

    Raises:
        FileError: the file does not exist or cannot be read.
        OfaError: of the class ``error``: the file is damaged, has other objects, is nested too deeply, or has tensors larger than the file.
    """
    name = os.fspath(path)
    with open_file(path, what="file of weights") as file:
        try:
            size = os.fstat(file.fileno()).st_size
            _check_pickles(file, size)
            file.seek(0)
            with torch.serialization.safe_globals(_NUMPY_SCALARS):
                state = torch.load(file, map_location="cpu", weights_only=True)
            _check_state(state, size)
        except pickle.UnpicklingError as problem:
            raise error(
                f"'{name}' must hold only tensors and numbers, but is damaged or has other objects, which are never unpickled; "
                "if you trust it, save its state dict alone with torch.save"
            ) from problem
        except OSError as problem:
            raise FileError(f"'{name}' must be readable, but {reason_of(problem)}; check its permissions") from problem
        except MemoryError as problem:
            raise error(f"'{name}' must fit into memory, but does not; use a machine with more") from problem
        except Exception as problem:  # arbitrary bytes read as a pickle may raise anything
            reason = str(problem) if isinstance(problem, UnfitError) else f"reading it raised {type(problem).__name__}"
            raise error(f"'{name}' must be a whole file of torch.save, but {reason}; copy it again") from problem
    if not isinstance(state, Mapping):
        raise error(f"'{name}' must hold a state dict, but holds a {type(state).__name__}; save the network's state_dict()")
    return state


def _check_pickles(file: BinaryIO, size: int) -> None:
    """Refuse a file before it is unpickled, by the sizes of its parts and by the globals that its pickles name."""
    if file.read(len(_ZIP)) == _ZIP:
        start, length = check_archive(file, size, "data.pkl")
        pickles = 1
    else:
        start, length, pickles = 0, size, _LEGACY_PICKLES
    file.seek(start)
    described = io.BytesIO(file.read(min(length, LONGEST_PICKLE)))
    operations = 0
    for _ in range(pickles):
        for operation, argument, _ in pickletools.genops(described):
            operations += 1
            if operations > MOST_OPERATIONS:
                raise UnfitError(f"it describes its tensors in more than {MOST_OPERATIONS} steps")
            if operation.name == "PROTO" and argument != 2:
                raise UnfitError(f"it is of pickle protocol {argument} in place of 2")
            if operation.name == "GLOBAL" and not (argument in _MADE or _is_plain(str(argument))):
                raise pickle.UnpicklingError(argument)


def _is_plain(named: str) -> bool:
    """Whether a global of torch is a storage class or a dtype."""
    module, _, name = named.partition(" ")
    return module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype))


def _check_state(state: Any, size: int) -> None:
    """Refuse deeply nested containers, and tensors larger than the file, which repeat few bytes by strides of 0."""
    level, depth = [state], 0
    seen: set[int] = set()
    while level:
        if depth > DEEPEST:
            raise UnfitError(f"it is nested more than {DEEPEST} deep")
        inner: list[Any] = []
        for each in level:
            if isinstance(each, torch.Tensor) and each.nbytes > size:
                raise UnfitError("a tensor in it is larger than the file")
            if isinstance(each, Mapping | list | tuple) and id(each) not in seen:
                seen.add(id(each))
                inner += each.values() if isinstance(each, Mapping) else each
        level, depth = inner, depth + 1
