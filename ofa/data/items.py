"""Items: access to the images of a source, one at a time.

Shapes: H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor

from ofa.data.images import key_of
from ofa.data.opening import UnreadableError
from ofa.data.reading import Array, Content
from ofa.errors import DataError, FileError
from ofa.files import reason_of
from ofa.reading import LARGEST_IMAGE, read_bytes
from ofa.reading.parquet import open_parquet

__all__ = [
    "IMAGE_NAMES",
    "LABEL_NAMES",
    "DatasetItems",
    "FileItems",
    "Items",
    "ParquetItems",
    "Unreadable",
    "digest",
    "file_bytes",
    "regular_file",
]

Unreadable = Literal["refuse", "skip"]

IMAGE_NAMES = ("image", "img", "pixel_values")
LABEL_NAMES = ("label", "labels", "fine_label")
"""Names of columns of Parquet files, and keys of items; the first that exists is used."""


class Items(Protocol):
    """Images of a source, by number. They can be sent to another process."""

    @property
    def parallel(self) -> bool:
        """Whether several threads may read at once."""

    def __len__(self) -> int:
        """The number of images."""

    def content(self, number: int) -> Content:
        """One image: its encoded bytes, or its pixels if it has none.

        Raises:
            UnreadableError: the image cannot be read.
        """

    def name(self, number: int) -> str:
        """Name by which a person finds the image."""


def digest(content: Content) -> bytes:
    """The key of an image: digest of its encoded bytes, or of its pixels if it has none."""
    return key_of(content if isinstance(content, bytes) else np.asarray(content).tobytes())


@dataclass(frozen=True)
class FileItems:
    """Images with one file each."""

    paths: Sequence[Path]
    parallel = True

    def __len__(self) -> int:
        return len(self.paths)

    def content(self, number: int) -> bytes:
        """Content of the file."""
        return file_bytes(self.paths[number])

    def name(self, number: int) -> str:
        """Path of the file."""
        return str(self.paths[number])


def file_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        UnreadableError: the file cannot be read.
    """
    regular_file(path)
    try:
        return read_bytes(path, most=LARGEST_IMAGE, what="image")
    except FileError as error:
        raise UnreadableError(str(error)) from error


def regular_file(path: Path) -> Path:
    """The path, if it is a regular file; reading a pipe could block forever.

    Raises:
        UnreadableError: it is no regular file, or does not exist.
    """
    try:
        if path.is_file():
            return path
        if path.exists():
            raise UnreadableError("is no regular file", unknown=True)
    except OSError as error:
        raise UnreadableError((error.strerror or str(error)).lower()) from error
    raise UnreadableError("is a link to a file that does not exist" if path.is_symlink() else "does not exist")


@dataclass(frozen=True)
class ParquetItems:
    """The images in a column of Parquet files.

    The column is held in memory; a process that is not forked from this one reads it again from the files.

    Attributes:
        paths: the files; their rows are concatenated.
        column: name of the column. It has encoded bytes, paths relative to the file's folder and within it, or structs of ``bytes`` and
            ``path``.
        source: common name of the files.
    """

    paths: tuple[Path, ...]
    column: str
    source: str
    parallel = True

    def __len__(self) -> int:
        return int(self._rows.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "column": self.column, "source": self.source}

    @cached_property
    def _rows(self) -> _Rows:
        try:
            columns = tuple(_read_column(path, self.column) for path in self.paths)
        except FileError as error:
            reason = reason_of(error)
            raise DataError(f"'{self.source}' must be readable Parquet files, but {reason}; write or download them again") from error
        return _Rows(columns, np.cumsum([0, *map(len, columns)]))

    def content(self, number: int) -> bytes:
        """The encoded bytes in the row, or of the file that the row names."""
        file = int(np.searchsorted(self._rows.starts, number, side="right")) - 1
        value: Any = self._rows.columns[file][number - int(self._rows.starts[file])].as_py()
        path = value if isinstance(value, str) else None
        if isinstance(value, Mapping):
            value, path = value.get("bytes"), value.get("path")
        if isinstance(value, bytes):
            return value
        if not path:
            raise UnreadableError("has no bytes")
        place = PureWindowsPath(path)  # recognizes separators, drives and shares of every system
        if place.anchor or ".." in place.parts:
            raise UnreadableError("is named outside of the folder of its Parquet file")
        return file_bytes(self.paths[file].parent / path)

    def name(self, number: int) -> str:
        """Name of the source, and the row."""
        return f"{self.source} row {number}"


class _Rows(NamedTuple):
    """The columns of several files, and the number of each file's first row, followed by the number of all rows."""

    columns: tuple[pa.ChunkedArray, ...]
    starts: np.ndarray[Any, np.dtype[np.int64]]


def _read_column(path: Path, column: str) -> pa.ChunkedArray:
    with open_parquet(path) as content:
        return content.read([column]).column(0)


@dataclass(frozen=True)
class DatasetItems:
    """The images of a ``torch.utils.data.Dataset`` whose items are (image, label), or dictionaries with both."""

    dataset: Any
    source: str
    parallel = False

    def __len__(self) -> int:
        return len(self.dataset)

    def content(self, number: int) -> Content:
        """The image: a PIL image, encoded bytes, or an array."""
        return self.labelled(number)[0]

    def labelled(self, number: int) -> tuple[Content, Any]:
        """The image and its label, as the dataset returns them."""
        try:
            item = self.dataset[number]
        except Exception as error:  # from the user's code
            words = " ".join(str(error).split())[:160]
            raise UnreadableError(f"the dataset raises {type(error).__name__}: {words}") from error
        image, label = self._parts(item)
        return self._content(image), label

    def name(self, number: int) -> str:
        """Name of the dataset, and the index."""
        return f"{self.source}[{number}]"

    def _parts(self, item: Any) -> tuple[Any, Any]:
        if isinstance(item, Mapping):
            image, label = (next((item[name] for name in names if name in item), None) for names in (IMAGE_NAMES, LABEL_NAMES))
            if image is not None and label is not None:
                return image, label
        elif isinstance(item, tuple | list) and len(item) == 2:
            return item[0], item[1]
        raise DataError(
            f"the items of '{self.source}' must be (image, label), or dictionaries with {' or '.join(IMAGE_NAMES)} and "
            f"{' or '.join(LABEL_NAMES)}, but one is {_described(item)}; wrap the dataset so"
        )

    def _content(self, image: Any) -> Content:
        if isinstance(image, Mapping) and isinstance(image.get("bytes"), bytes):
            image = image["bytes"]
        if isinstance(image, bytes | Image.Image):
            return image
        if isinstance(image, Tensor):
            image = image.detach().cpu()
            image = image.float() if image.is_floating_point() else image
            array: Array = (image.permute(1, 2, 0) if image.ndim == 3 else image).numpy()
            return array
        if isinstance(image, np.ndarray):
            return image
        raise DataError(
            f"the images of '{self.source}' must be PIL images, encoded bytes, tensors [C, H, W] or arrays [H, W] or [H, W, C], but one is "
            f"{_described(image)}; convert them in the dataset"
        )


def _described(value: Any) -> str:
    """A short description of a value's type and shape."""
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(map(str, list(value)[:6])) or 'no keys'}"
    if isinstance(value, tuple | list):
        inside = ", ".join(_described(entry) for entry in value[:4]) + (", ..." if len(value) > 4 else "")
        return f"a {type(value).__name__} of {len(value)} ({inside})"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" {list(shape)}" if isinstance(shape, tuple) else "")
