"""Opens files as images, by their content."""

from __future__ import annotations

import importlib
import io
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ofa.reading import LARGEST_PICTURE

__all__ = ["UnreadableError", "check_start", "formats", "is_image_name", "open_image", "reason_of"]

_OPENED = (
    *("PNG", "JPEG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "QOI", "PSD", "PCX", "DDS", "SGI"),
    *("ICO", "ICNS", "TGA"),  # TGA has no signature, and is tried last
)
"""Formats of still images that Pillow itself, or pillow-heif, decodes. No other format is opened, whatever plugin is installed: some start
another program (PostScript: Ghostscript) or another library's reader, hold videos or data, or open embedded content of any format."""

_PICTURES_NOT_OPENED = (".emf", ".eps", ".heic", ".heif", ".hif", ".jxl", ".ps", ".svg", ".wmf")
_NO_PICTURES = (".bufr", ".grib", ".h5", ".hdf", ".iim", ".mpeg", ".mpg")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class UnreadableError(Exception):
    """An image that cannot be read; the message is the reason, half a sentence.

    Attributes:
        unknown: whether nothing in its content says that it is an image.
    """

    def __init__(self, reason: str, *, unknown: bool = False) -> None:
        super().__init__(reason)
        self.unknown = unknown


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """The allowed formats that this Pillow supports, in the order of how sure their signatures are."""
    Image.init()
    with suppress(ImportError):  # without it, the reason given for HEIC files says how to install it
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _OPENED if name in Image.OPEN)


@lru_cache(maxsize=1)
def _endings() -> frozenset[str]:
    formats()
    return frozenset({*Image.registered_extensions(), *_PICTURES_NOT_OPENED} - {*_NO_PICTURES, ".pdf"})


def is_image_name(name: str) -> bool:
    """Whether a file's extension is that of an image, so that a file without image content counts as damaged."""
    return any(name.lower().endswith(ending) for ending in _endings())


def open_image(data: bytes) -> Image.Image:
    """Open an image and read its header; the pixels are decoded later.

    Raises:
        UnreadableError: Pillow cannot read it, or it has too many pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError as error:
        raise _unidentified(data[:16]) from error
    except Exception as error:  # decoders of damaged files raise errors of any kind
        raise UnreadableError(reason_of(error)) from error
    if image.width * image.height > LARGEST_PICTURE:
        raise UnreadableError(f"has {image.width} x {image.height} pixels, more than {LARGEST_PICTURE}")
    return image


def check_start(path: Path) -> None:
    """Check by a file's first bytes, not by its name, that it is an image.

    Raises:
        UnreadableError: the file is no image, or cannot be read.
    """
    try:
        Image.open(path, formats=formats()).close()
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            raise _unidentified(file.read(16)) from error
    except Exception as error:  # as in open_image
        raise UnreadableError(reason_of(error)) from error


def _unidentified(start: bytes) -> UnreadableError:
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return UnreadableError("Pillow cannot read HEIC here: convert it to JPEG, or install pillow-heif, as the extra 'heif' does")
    if start[:4] in (b"%!PS", b"\xc5\xd0\xd3\xc6"):
        return UnreadableError("PostScript is not read, because another program would have to run it")
    return UnreadableError("has no content of an image" if start else "is empty", unknown=True)


def reason_of(error: Exception) -> str:
    """The message of a decoder's error, as a reason."""
    words = " ".join(str(error).split())
    return words[:160] if words else type(error).__name__
