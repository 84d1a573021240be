"""How much is read of a file before it is refused.

Each limit lies far above what the project writes. They are meant to keep a file that is refused below 300 MB and 2 s, which
``tests/faults/test_bounds.py`` measures; weights are the exception: a whole file of them is read for its checksum.
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
    """What is beyond a limit, or what no program wrote to be read; the message is the reason, half a sentence."""


LARGEST_JSON = 4 * 2**20
"""Bytes of a JSON document: a space has some thousand, a network some hundred."""
LARGEST_LINES = 16 * 2**20
"""Bytes of a file of JSON lines: a block that was measured has 500, an epoch 400."""
LARGEST_TOML = 2**18
"""Bytes of a TOML document: a recipe has some thousand."""
LARGEST_YAML = 2**20
"""Bytes of a YAML document: a latency table as MIT publishes them has fifteen thousand."""

DEEPEST = 64
"""Lists and objects within each other: what is deeper ends Python's own recursion sooner or later, and no file of ours has ten."""
LARGEST_NUMBER = 2**128
"""Whole numbers of files are below it in size, as states of random generators are: larger ones cost time wherever they are used."""
LONGEST_SCALAR = 1000
"""Characters of a name or value of YAML: times and numbers of base 60 take time that grows with the square of them."""
MOST_EVENTS = 50_000
"""Beginnings, ends and values of a YAML document."""
MOST_LINES = 2**17
"""Lines of a file of JSON lines."""

LARGEST_IMAGE = 256 * 2**20
"""Bytes of an image's file."""
LARGEST_PICTURE = 100_000_000
"""Pixels of an image; the largest cameras have about as many."""
LARGEST_FOOTER = 16 * 2**20
"""Bytes at the end of a Parquet file that say what is in it."""
LARGEST_TABLE = 512 * 2**20
"""Bytes of a Parquet file of ours, all of which are read for its checksum: what a run knows of a million images has thirty million."""
MOST_PARTS = 2**18
"""Groups of rows of a Parquet file, their columns and the names of these: a thousand groups of three columns are ten thousand."""
MOST_COLUMNS = 1000
"""Columns of a Parquet file: a front has some twenty."""
LARGEST_DECOMPRESSED, MOST_COMPRESSION = 64 * 2**20, 30
"""A Parquet file decompresses to so many bytes, and so many times its own, at most; a file of images hardly does at all."""
MOST_VALUES = 2**25
"""Values in all columns of a Parquet file, of which those that are equal take hardly any room in it."""

LARGEST_TENSORS = 4 * 2**30
"""Bytes of a file of weights: a state of ``ofa-resnet50`` has some six hundred million."""
LARGEST_DIRECTORY = 8 * 2**20
"""Bytes of the directory of a file of ``torch.save``: an entry of it, which is a tensor, has some hundred."""
LONGEST_PICKLE, MOST_OPERATIONS = 2**20, 150_000
"""Bytes of what such a file says of its tensors, and steps by which it says it: some hundred bytes and some dozen steps each."""
MOST_TENSORS, LARGEST_HEADER = 10_000, 2**20
"""Tensors of a file of weights, and bytes of its header: a state of ``ofa-resnet50`` has some thousand and some hundred thousand."""

LARGEST_CSV, LONGEST_LINE = 64 * 2**20, 2**20
"""Bytes of a CSV file and of a line of it: ten thousand networks have some three million."""
LARGEST_MODEL, LARGEST_DESCRIPTION = 2**31 - 1, 4 * 2**20
"""Bytes of an ONNX file, whose format ends there, and of what it has beside its weights: a network has some hundred thousand."""
