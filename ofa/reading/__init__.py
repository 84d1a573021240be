"""Safe reading of untrusted files; every file that the library reads goes through this package.

Only plain files are opened. Size, nesting and kind are checked before the content is parsed. A refused file costs little time and memory,
and the error is one sentence.
"""

from __future__ import annotations

from ofa.reading.files import open_file, read_bytes, read_text, sha256_of
from ofa.reading.limits import LARGEST_IMAGE, LARGEST_JSON, LARGEST_PICTURE, LARGEST_TENSORS, LARGEST_TOML, LARGEST_YAML
from ofa.reading.texts import parse_json, parse_toml, parse_yaml, read_json, read_toml, read_yaml

__all__ = [
    "LARGEST_IMAGE",
    "LARGEST_JSON",
    "LARGEST_PICTURE",
    "LARGEST_TENSORS",
    "LARGEST_TOML",
    "LARGEST_YAML",
    "open_file",
    "parse_json",
    "parse_toml",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_text",
    "read_toml",
    "read_yaml",
    "sha256_of",
]
