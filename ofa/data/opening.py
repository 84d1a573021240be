"""Files opened as images, by their content."""

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
"""Still images that Pillow itself decodes, and those of pillow-heif. None of the others is opened, whatever plugin is installed: some start
another program (PostScript: Ghostscript) or another library's reader, hold films or numbers, or open what is inside by any format."""

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
    """The formats that are opened, surest signatures first: those of a fixed list that Pillow was built with."""
    Image.init()
    with suppress(ImportError):  # then the reason why HEIC files are left out says how to get it
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _OPENED if name in Image.OPEN)


@lru_cache(maxsize=1)
def _endings() -> frozenset[str]:
    formats()
    return frozenset({*Image.registered_extensions(), *_PICTURES_NOT_OPENED} - {*_NO_PICTURES, ".pdf"})


def is_image_name(name: str) -> bool:
    """Whether a file is called as images are, so that it is damaged if it is none."""
    return any(name.lower().endswith(ending) for ending in _endings())


def open_image(data: bytes) -> Image.Image:
    """The image in a file, its header read.

    Raises:
        UnreadableError: Pillow knows no such image.
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
    """Find out by a file's first bytes, and not by its name, whether it is an image.

    Raises:
        UnreadableError: it is none, or cannot be read.
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
    """What an error of a decoder says, as a reason."""
    words = " ".join(str(error).split())
    return words[:160] if words else type(error).__name__
