"""A folder of photos as people have them: of many sizes, formats and kinds of pixels, some turned, some broken, and files between them.

What is in a photo can be learned, not without mistakes: which band is the brightest, that at the top (``sky``), at the bottom (``snow``)
or at the left (``wall``).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["CLASSES", "Dirt", "photo", "write_photos"]

CLASSES = ("sky", "snow", "wall")
_SIZES = ((64, 48), (48, 64), (96, 72), (60, 60))
_ORIENTATION = 0x0112
_TURNS: dict[int, Image.Transpose | None] = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera that is held so does to the pixels; a reader undoes it."""


@dataclass(frozen=True)
class Dirt:
    """What lies in a folder of ``write_photos``.

    Attributes:
        whole: images that can be read.
        broken: files that are called images and cannot be read, or only in part.
        others: files that are no images.
        hidden: files that nobody put there on purpose.
        copies: images of the same content as another of their class.
    """

    whole: int
    broken: int
    others: int
    hidden: int
    copies: int


def photo(label: int, seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """One RGB photo of a class."""
    width, height = size
    rng = np.random.default_rng(seed)
    pixels = rng.integers(40, 110, (height, width, 3)).astype(np.uint8)
    bands = [np.s_[: height // 2], np.s_[height // 2 :], np.s_[:, : width // 3]]
    pixels[bands[label]] += 60
    # Another class's band is bright too, nearly as bright at times, which makes the photo hard.
    pixels[bands[(label + 1 + seed % 2) % 3]] += np.uint8(rng.integers(0, 60))
    return Image.fromarray(pixels)


def write_photos(root: Path, each: int = 40, *, dirt: bool = True, first: int = 0) -> Dirt:
    """Write ``each`` photos a class, with the dirt of a first day between them.

    Args:
        root: the folder, which is made.
        each: photos a class, at least 16.
        first: number of the first photo of a class; no two numbers are alike.
        dirt: whether broken files, copies and files that are no images are written too.
    """
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(each):
            kind = _KINDS[number % len(_KINDS)]
            kind(photo(label, 1000 * label + first + number, _SIZES[number % len(_SIZES)]), root / name / f"{number:03}")
    if not dirt:
        return Dirt(whole=3 * each, broken=0, others=0, hidden=0, copies=0)
    _break(root)
    return Dirt(whole=3 * each + 2, broken=4, others=2, hidden=4, copies=2)


def _turned(orientation: int) -> Callable[[Image.Image, Path], None]:
    def write(image: Image.Image, path: Path) -> None:
        turn, exif = _TURNS[orientation], Image.Exif()
        exif[_ORIENTATION] = orientation
        (image if turn is None else image.transpose(turn)).save(path.with_suffix(".jpg"), quality=92, exif=exif)

    return write


def _as(ending: str, kind: str, change: Callable[[Image.Image], Image.Image] = lambda image: image) -> Callable[[Image.Image, Path], None]:
    return lambda image, path: change(image).save(path.with_name(f"{path.name}{ending}"), kind)


def _sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


_KINDS = (
    _turned(1),
    _turned(6),
    _as(".png", "PNG"),
    _as(".JPG", "JPEG"),
    _turned(8),
    _as(".webp", "WEBP"),
    _as(".gif", "GIF"),
    _as(".png", "PNG", _sixteen_bits),
    _turned(3),
    _as(".tif", "TIFF", lambda image: image.convert("CMYK")),
    _as(".png", "PNG", lambda image: image.convert("RGBA")),
    _as(".jfif", "JPEG"),
    _as("", "JPEG"),
    _as(".bmp", "BMP"),
    _as(".png", "PNG", lambda image: image.convert("P")),
    _as(".jpeg", "JPEG"),
)


def _break(root: Path) -> None:
    """Two broken photos, an empty one and text that is called one; copies; what systems and people leave in folders."""
    first, second, third = (root / name for name in CLASSES)
    whole = io.BytesIO()
    photo(0, 77, (96, 72)).save(whole, "JPEG")
    (first / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (second / "cut.png").write_bytes((second / "002.png").read_bytes()[:200])
    (third / "empty.jpg").write_bytes(b"")
    (third / "page.png").write_text("<html>404 not found</html>", encoding="utf-8")
    (first / "copy.jpg").write_bytes((first / "000.jpg").read_bytes())
    (second / "copy.png").write_bytes((second / "002.png").read_bytes())
    (first / "notes.txt").write_text("from the summer", encoding="utf-8")
    (second / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (first / "._000.jpg").write_bytes(b"\0\5\x16\7")
    (root / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for folder in (third / ".ipynb_checkpoints", root / "__MACOSX"):
        folder.mkdir()
        photo(2, 78).save(folder / "000-checkpoint.png")
