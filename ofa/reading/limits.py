"""How much is read of a file before it is refused.

Each limit lies far above what the project writes, and so low that no file costs more than 300 MB and 2 s before it is refused.
"""

from __future__ import annotations

__all__ = [
    "DEEPEST",
    "LARGEST_JSON",
    "LARGEST_LINES",
    "LARGEST_NUMBER",
    "LARGEST_TOML",
    "LARGEST_YAML",
    "LONGEST_SCALAR",
    "MOST_EVENTS",
    "MOST_LINES",
]

LARGEST_JSON = 4 * 2**20
"""Bytes of a JSON document: a space has some thousand, a network some hundred."""
LARGEST_LINES = 16 * 2**20
"""Bytes of a file of JSON lines: a block that was measured has 500, an epoch 400."""
LARGEST_TOML = 2**19
"""Bytes of a TOML document: a recipe has some thousand."""
LARGEST_YAML = 2**20
"""Bytes of a YAML document: a latency table as MIT publishes them has fifteen thousand."""

DEEPEST = 64
"""Lists and objects within each other: what is deeper ends Python's own recursion sooner or later, and no file of ours has ten."""
LARGEST_NUMBER = 2**64
"""Whole numbers of files are below it in size: larger ones are no seeds and no counts, and cost time wherever they are used."""
LONGEST_SCALAR = 1000
"""Characters of a name or value of YAML: times and numbers of base 60 take time that grows with the square of them."""
MOST_EVENTS = 50_000
"""Beginnings, ends and values of a YAML document."""
MOST_LINES = 2**17
"""Lines of a file of JSON lines."""
