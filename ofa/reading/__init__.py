"""Reading: what comes from a file goes through here first.

Only plain files are opened; size, depth and kind are checked before anything is made of the content; what is refused is refused by one
sentence and costs little.
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
