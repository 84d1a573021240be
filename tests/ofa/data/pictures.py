"""Small pictures for the tests of reading, in memory and in files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(size: tuple[int, int] = (24, 18), seed: int = 0) -> Image.Image:
    """A smooth picture, which lossy formats keep, with four different corners, which tell how it was turned."""
    rng = np.random.default_rng(seed)
    corners = Image.fromarray(rng.integers(30, 220, (3, 3, 3)).astype(np.uint8))
    return corners.resize(size, Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_classes(root: Path, images: dict[str, bytes]) -> Path:
    """Two folders of classes with the same files."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for file, data in images.items():
            (root / name / file).write_bytes(data)
    return root
