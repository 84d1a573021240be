"""Record of a run's data: the part and the class of each image, by a hash of its content; a file beside the recipe.

Shapes: N images of all parts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from ofa.arrays import Integers
from ofa.data import ImageRule
from ofa.data.images import KEY_BYTES, Normalization, key_of
from ofa.data.labels import folded, label_sets
from ofa.errors import DamagedError, FileError, OfaError
from ofa.files import replacing
from ofa.reading import parse_json
from ofa.reading.parquet import open_parquet
from ofa.seal import BLANK_SEAL, SEAL_KEY
from ofa.training.toml import build
from ofa.version import __version__

__all__ = ["PARTS", "RECORD", "DataRecord", "Facts", "Source"]

RECORD = "data.parquet"
PARTS = ("train", "selection", "test", "unused")
"""The parts of a run's data; ``unused`` has the images that the fractions leave over."""

_SCHEMA = 2
_SEALED = 2
"""The first schema whose files carry a checksum (``ofa.seal``)."""
_KIND = "data record"
_KEY = b"ofa"
_COLUMNS = {"key": pa.binary(KEY_BYTES), "part": pa.int8(), "label": pa.int32()}
_OF_LISTS = {**_COLUMNS, "label": pa.list_(pa.int32())}
"""Columns for images with several classes."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[Any]]
"""int64 [N], or bool [N, classes]."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data source of a recipe (``data`` or ``test_data``).

    Attributes:
        path: its path, which holds from any current folder.
        typed: its path or name as it was typed.
    """

    path: str
    typed: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about the data as a whole.

    Attributes:
        class_names: names of the classes, in the order of the logits.
        mean: mean of each channel (images in 0..1); subtracted from every batch.
        std: standard deviation of each channel (images in 0..1); every batch is divided by it.
        data: the images.
        test_data: the images to test on; an empty path if they were cut from ``data``.
        fractions: share of ``data`` to train on, to select on, and to test on.
        seed: the recipe's seed, from which the parts were drawn.
        rule: how the images are read.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: Source
    test_data: Source
    fractions: tuple[float, float, float]
    seed: int
    rule: ImageRule

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of each channel."""
        return self.mean, self.std


@dataclass(frozen=True, eq=False, kw_only=True)
class DataRecord:
    """All images of a run, part by part, in the order within each part.

    Attributes:
        facts: facts about the data as a whole.
        keys: uint8 [N, 16], a digest of each image's content.
        parts: int64 [N], indices into ``PARTS``.
        labels: int64 [N], indices into the class names, or bool [N, classes].
    """

    facts: Facts
    keys: Bytes
    parts: Integers
    labels: Labels

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by part."""
        return dict(zip(PARTS, np.bincount(self.parts, minlength=len(PARTS)).tolist(), strict=True))

    @property
    def known(self) -> frozenset[bytes]:
        """The keys, as a set for look-ups."""
        joined = self.keys.tobytes()
        return frozenset(joined[start : start + KEY_BYTES] for start in range(0, len(joined), KEY_BYTES))

    @property
    def digest(self) -> str:
        """Digest (32 hexadecimal digits) of all contents and their class names, independent of order and file names."""
        sets, which = label_sets(self.labels)
        names = b"".join(key_of("\0".join(self.facts.class_names[label] for label in each).encode()) for each in sets)
        rows = np.concatenate([self.keys, np.frombuffer(names, np.uint8).reshape(-1, KEY_BYTES)[which]], axis=1)
        return key_of(np.sort(rows.view(f"V{2 * KEY_BYTES}").ravel()).tobytes()).hex()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the record into the folder of a run, atomically.

        Raises:
            FileError: the folder cannot be written.
        """
        keys = pa.FixedSizeBinaryArray.from_buffers(_COLUMNS["key"], len(self.keys), [None, pa.py_buffer(np.ascontiguousarray(self.keys))])
        kinds, labels = (_COLUMNS, self.labels) if self.labels.ndim == 1 else (_OF_LISTS, [np.flatnonzero(row) for row in self.labels])
        columns = [keys, pa.array(self.parts, pa.int8()), pa.array(labels, kinds["label"])]
        stamp = {"kind": _KIND, "schema": _SCHEMA, "ofa": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        metadata = {SEAL_KEY: BLANK_SEAL, **stamp, "digest": self.digest, "counts": self.counts, "facts": asdict(self.facts)}
        schema = pa.schema(list(kinds.items()), metadata={_KEY: json.dumps(metadata).encode()})
        with replacing(Path(folder) / RECORD) as temporary:
            pq.write_table(pa.Table.from_arrays(columns, schema=schema), temporary, compression="zstd")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self | None:
        """Read the record of a run; None if it has none, like runs of earlier versions.

        Raises:
            FileError: the file is damaged, of a newer version, or no data record.
        """
        path = Path(folder) / RECORD
        if not os.path.lexists(path):
            return None
        try:
            with open_parquet(path, what=_KIND, ours=True) as content:
                metadata = parse_json(content.metadata.get(_KEY, b"{}"), what="its metadata", error=DamagedError)
                _check_stamp(path, metadata)
                if metadata["schema"] >= _SEALED and not content.sealed:
                    raise DamagedError("its checksum is gone")
                return cls._from_table(path, content.read(), metadata)
        except DamagedError as error:
            raise _damaged(path, str(error)) from error

    @classmethod
    def _from_table(cls, path: Path, table: pa.Table, metadata: Mapping[str, Any]) -> Self:
        if {name: table.schema.field(name).type for name in table.column_names} not in (_COLUMNS, _OF_LISTS):
            raise _damaged(path, f"it has the columns {', '.join(table.column_names)}")
        try:
            facts = build(Facts, metadata["facts"], "facts")
        except (OfaError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        keys = np.frombuffer(b"".join(table.column("key").to_pylist()), np.uint8).reshape(-1, KEY_BYTES)
        parts, classes = table.column("part").to_numpy().astype(np.int64), table.column("label")
        of_lists = pa.types.is_list(classes.type)
        labels = (pc.list_flatten(classes) if of_lists else classes).to_numpy().astype(np.int64)
        for name, values, end in (("part", parts, len(PARTS)), ("label", labels, len(facts.class_names))):
            if len(values) and not 0 <= values.min() <= values.max() < end:
                raise _damaged(path, f"a {name} of it is not in 0..{end - 1}")
        if of_lists:
            lengths = torch.from_numpy(pc.list_value_length(classes).to_numpy().astype(np.int64))
            labels = folded(torch.from_numpy(labels), lengths, len(facts.class_names)).numpy()
        record = cls(facts=facts, keys=keys, parts=parts, labels=labels)
        if record.digest != metadata.get("digest") or record.counts != metadata.get("counts"):
            raise _damaged(path, "its images do not match its digest")
        return record


def _check_stamp(path: Path, metadata: Any) -> None:
    kind, schema = (metadata.get(name) if isinstance(metadata, dict) else None for name in ("kind", "schema"))
    if kind != _KIND or not isinstance(schema, int):
        raise FileError(
            f"'{path}' must be the {_KIND} of a run, but is {f'a {kind}' if kind else 'another Parquet file'}; put back the file that "
            "ofa train wrote"
        )
    if schema > _SCHEMA:
        raise FileError(
            f"'{path}' must have schema {_SCHEMA} or older, but has {schema} (written by ofa {metadata.get('ofa')}); "
            "upgrade with: pip install -U ofa-nas"
        )


def _damaged(path: Path, reason: str) -> FileError:
    return FileError(f"'{path}' must be a whole {_KIND}, but {reason}; put back the file that ofa train wrote, or train a new run")
