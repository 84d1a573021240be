"""File formats of networks, converted from ONNX; a runtime names the format that it reads (``devices.runtimes.Runtime.format``).

A format of your own is a ``Format`` that is entered in ``FORMATS``, by ``FORMATS.register`` or by the entry point ``ofa.formats`` of its
package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ofa.errors import ExportError, OfaError
from ofa.files import unwritable
from ofa.reasons import reason_of
from ofa.registry import Registry

__all__ = ["FORMATS", "ONNX", "Format", "write_file"]

ONNX = "onnx"
"""The format that networks are exported to; all others are converted from it."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format.

    Attributes:
        suffix: suffix of file names, such as ``.tflite``.
        convert: converts the content of an ONNX file to the content of a file of this format; None for ONNX itself.
    """

    suffix: str
    convert: Callable[[bytes], bytes] | None = None


FORMATS: Registry[Format] = Registry(
    "file format",
    group="ofa.formats",
    error=ExportError,
    entries={ONNX: Format(suffix=".onnx")},
    valid=lambda entry: isinstance(entry, Format),
    must_be="an ofa.exporting.formats.Format",
)


def write_file(model: bytes, folder: Path, format: str) -> Path:
    """Write a network as a file that is named by the hash of its content, so that equal networks are one file.

    Args:
        model: the content of its ONNX file, in the wanted precision.
        folder: folder of the file; the caller removes it with all files if this fails (``ofa.files.temporary_folder``).
        format: a name of ``FORMATS``.

    Returns:
        Path of the file.

    Raises:
        ExportError: there is no such format, or the network cannot be converted.
        FileError: the folder cannot be written.
    """
    kind = FORMATS.get(format)
    content = model if kind.convert is None else _converted(model, kind.convert, format)
    path = folder / f"{hashlib.sha256(content).hexdigest()}{kind.suffix}"
    try:
        path.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _converted(model: bytes, convert: Callable[[bytes], bytes], format: str) -> bytes:
    try:
        return convert(model)
    except OfaError:
        raise
    except Exception as error:  # errors of converters have no common base
        raise ExportError(
            f"a network must be convertible from ONNX to the format '{format}' of its runtime, but: {reason_of(error)}; name a device "
            "whose runtime takes another format"
        ) from error
