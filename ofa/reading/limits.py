"""Limits beyond which files are refused.

Each limit is far above the files that the project writes. They keep the cost of a refused file below 300 MB and 2 s, as measured by
``tests/faults/test_bounds.py``. Weights are the exception: a file of weights is read whole for its checksum.
"""

from __future__ import annotations

__all__ = [
    "DEEPEST",
    "LARGEST_CSV",
    "LARGEST_DECOMPRESSED",
    "LARGEST_DESCRIPTION",
    "LARGEST_DIRECTORY",
    "LARGEST_FOOTER",
    "LARGEST_HEADER",
    "LARGEST_IMAGE",
    "LARGEST_JSON",
    "LARGEST_LINES",
    "LARGEST_MODEL",
    "LARGEST_NUMBER",
    "LARGEST_PICTURE",
    "LARGEST_TABLE",
    "LARGEST_TENSORS",
    "LARGEST_TOML",
    "LARGEST_YAML",
    "LONGEST_LINE",
    "LONGEST_PICKLE",
    "LONGEST_SCALAR",
    "MOST_COLUMNS",
    "MOST_COMPRESSION",
    "MOST_EVENTS",
    "MOST_LINES",
    "MOST_OPERATIONS",
    "MOST_PARTS",
    "MOST_TENSORS",
    "MOST_VALUES",
    "UnfitError",
]


class UnfitError(Exception):
    """Content that exceeds a limit or is malformed; the message is the reason, as a clause."""


LARGEST_JSON = 4 * 2**20
"""Bytes of a JSON document; spaces have some thousand, networks some hundred."""
LARGEST_LINES = 16 * 2**20
"""Bytes of a file of JSON lines; a measured block has 500, an epoch 400."""
LARGEST_TOML = 2**18
"""Bytes of a TOML document; recipes have some thousand."""
LARGEST_YAML = 2**20
"""Bytes of a YAML document; MIT's published latency tables have fifteen thousand."""

DEEPEST = 64
"""Levels of nested lists and objects; deeper ones may exceed Python's recursion limit, and our files have fewer than ten."""
LARGEST_NUMBER = 2**128
"""Bound on the magnitude of integers; states of random generators are just below it, and larger ones are slow to compute with."""
LONGEST_SCALAR = 1000
"""Characters of a name or value in YAML; PyYAML's time for base-60 numbers and times is quadratic in them."""
MOST_EVENTS = 50_000
"""Parser events (starts, ends and values) of a YAML document."""
MOST_LINES = 2**17
"""Lines of a file of JSON lines."""

LARGEST_IMAGE = 256 * 2**20
"""Bytes of an image file."""
LARGEST_PICTURE = 100_000_000
"""Pixels of an image; the largest cameras have about that many."""
LARGEST_FOOTER = 16 * 2**20
"""Bytes of the footer of a Parquet file."""
LARGEST_TABLE = 512 * 2**20
"""Bytes of a Parquet file that the project wrote, which is read whole for its checksum; a run's record of a million images has thirty
million."""
MOST_PARTS = 2**18
"""Row groups of a Parquet file, their column chunks and the parts of their names; a thousand groups of three columns have ten thousand."""
MOST_COLUMNS = 1000
"""Columns of a Parquet file; fronts have some twenty."""
LARGEST_DECOMPRESSED, MOST_COMPRESSION = 64 * 2**20, 30
"""A Parquet file may decompress to at most this many bytes plus this many times its own size; files of images hardly compress."""
MOST_VALUES = 2**25
"""Values in all columns of a Parquet file; equal values take hardly any room in the file."""

LARGEST_TENSORS = 4 * 2**30
"""Bytes of a file of weights; a training state of ``ofa-resnet50`` has some six hundred million."""
LARGEST_DIRECTORY = 8 * 2**20
"""Bytes of the zip directory of a ``torch.save`` file; an entry, one per tensor, has some hundred."""
LONGEST_PICKLE, MOST_OPERATIONS = 2**20, 150_000
"""Bytes and opcodes of the pickle that describes the tensors of such a file; a tensor needs some hundred bytes and some dozen opcodes."""
MOST_TENSORS, LARGEST_HEADER = 10_000, 2**20
"""Tensors of a file of weights, and bytes of its header; a state of ``ofa-resnet50`` has some thousand and some hundred thousand."""

LARGEST_CSV, LONGEST_LINE = 64 * 2**20, 2**20
"""Bytes of a CSV file, and of one line; ten thousand networks have some three million."""
LARGEST_MODEL, LARGEST_DESCRIPTION = 2**31 - 1, 4 * 2**20
"""Bytes of an ONNX file (the limit of the format), and of its content without weights; networks have some hundred thousand."""
