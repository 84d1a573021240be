"""Parquet files with a column of images and a column of labels, in the layouts of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ofa.data.folders import is_hidden
from ofa.data.items import IMAGE_NAMES, LABEL_NAMES, ParquetItems
from ofa.data.labels import folded
from ofa.data.source import PURPOSES, Source, by_name, numbered, some
from ofa.errors import DataError, FileError
from ofa.files import reason_of
from ofa.reading import parse_json
from ofa.reading.parquet import open_parquet

__all__ = ["parquet_source", "shards_of"]

_USUAL_FOLDERS = ("data", "default", "plain_text")


def shards_of(folder: Path) -> list[Path]:
    """The Parquet files of a folder in a layout of Hugging Face's repositories; empty for any other folder.

    Raises:
        DataError: the files are of several parts (training would use test images) or of several configurations.
    """
    shards = _files(folder) or _files_of_parts(folder)
    if not shards:
        inside = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not is_hidden(entry.name)]
        found = {entry: _files(entry) or _files_of_parts(entry) for entry in inside if entry.name in _USUAL_FOLDERS or _only_parquet(entry)}
        configurations = [entry for entry, files in found.items() if files]
        if len(configurations) > 1:
            raise DataError(
                f"data must be of one configuration, but '{folder}' has {', '.join(entry.name for entry in configurations)}; name one of "
                f"them, for example '{configurations[0]}'"
            )
        shards = found[configurations[0]] if configurations else []
    _check_purposes(folder, shards)
    return shards


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if not is_hidden(path.name))


def _files_of_parts(folder: Path) -> list[Path]:
    """Files in folders that are named after a part, such as train."""
    return [path for entry in sorted(folder.iterdir()) if entry.is_dir() and _purpose(entry.name) for path in _files(entry)]


def _only_parquet(folder: Path) -> bool:
    found = False
    for path in folder.glob("**/*"):
        found = found or path.suffix == ".parquet"
        if path.suffix != ".parquet" and not is_hidden(path.name) and path.is_file():
            return False
    return found


def _purpose(name: str) -> str | None:
    begun = re.split(r"[-_.]", name)[0].lower()
    return begun if begun in PURPOSES else None


def _check_purposes(folder: Path, shards: Sequence[Path]) -> None:
    pattern_of: dict[str, Path] = {}
    for shard in shards:
        purpose = _purpose(shard.parent.name) if shard.parent != folder else None
        if purpose:
            pattern_of.setdefault(purpose, shard.parent)
        elif purpose := _purpose(shard.name):
            pattern_of.setdefault(purpose, shard.parent / f"{purpose}*.parquet")
    purposes = [purpose for purpose in PURPOSES if purpose in pattern_of]
    if len(purposes) > 1:
        raise DataError(
            f"data must not mix images to train and to test on, but '{folder}' has {', '.join(purposes)} files; name the training files, "
            f"for example '{pattern_of[purposes[0]]}', and others as test_data"
        )


def parquet_source(paths: Sequence[Path], spec: str) -> Source:
    """The rows of Parquet files as a source of images.

    Raises:
        DataError: the files cannot be read, lack a column of images or labels, or disagree about their classes.
    """
    schemas = [_schema(path, spec) for path in paths]
    image, label = (_column(schemas[0], names, spec) for names in (IMAGE_NAMES, LABEL_NAMES))
    for path, schema in zip(paths, schemas, strict=True):
        _check_images(schema, _column(schema, (image,), str(path)), str(path) if len(paths) > 1 else spec)
    read = [_read_labels(path, label, spec) for path in paths]
    labels, lengths = [flat for flat, _ in read], [each for _, each in read if each is not None]
    if lengths and len(lengths) != len(read):
        raise DataError(
            f"the files of a set must all hold lists or all hold single classes as {label}, but '{spec}' has both; write them again"
        )
    if not sum(len(items) for items in lengths or labels):
        raise DataError(f"a data set must have images, but '{spec}' has no rows; check where it was written")
    worded = {not pa.types.is_integer(column.type) for column in labels}
    if len(worded) > 1:
        raise DataError(f"the files of a set must all hold numbers or all hold words as {label}, but '{spec}' has both; write them again")
    if True in worded:
        words = np.concatenate([column.to_numpy(zero_copy_only=False) for column in labels]).astype(str)
        known, indices = np.unique(words, return_inverse=True)
        return _source(paths, image, spec, torch.from_numpy(indices), lengths, tuple(known.tolist()))
    names = [_class_names(schema.metadata or {}, label) for schema in schemas]
    _check_names(paths, names)
    first = names[0]
    numbers = [torch.from_numpy(column.to_numpy(zero_copy_only=False).astype(np.int64)) for column in labels]
    if first is not None:
        numbers = [by_name(part, own or first, first, spec) for part, own in zip(numbers, names, strict=True)]
    return _source(paths, image, spec, torch.cat(numbers), lengths, first)


def _source(
    paths: Sequence[Path], image: str, spec: str, flat: torch.Tensor, lengths: Sequence[torch.Tensor], names: tuple[str, ...] | None
) -> Source:
    """A source of images with one label each, or with the numbers of labels in ``lengths``."""
    labels = folded(flat, torch.cat(list(lengths)), len(names or (numbered(flat) if len(flat) else ""))) if lengths else flat
    return Source(items=ParquetItems(tuple(paths), image, spec), labels=labels, class_names=names)


def _schema(path: Path, spec: str) -> pa.Schema:
    try:
        with open_parquet(path) as content:
            return content.schema
    except FileError as error:
        raise _no_parquet(spec, error) from error


def _no_parquet(spec: str, error: Exception) -> DataError:
    return DataError(f"'{spec}' must be a Parquet file of images, but {reason_of(error)}; give such a file or a folder")


def _column(schema: pa.Schema, wanted: Sequence[str], spec: str) -> str:
    for name in wanted:
        if name in schema.names:
            return name
    raise DataError(f"'{spec}' must have a column {' or '.join(wanted)}, but has {', '.join(schema.names)}; rename one")


def _check_images(schema: pa.Schema, image: str, spec: str) -> None:
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and {field.name for field in kind} & {"bytes", "path"}:
        return
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    if not any(test(kind) for test in tests):
        raise DataError(f"the column {image} of '{spec}' must hold encoded images or paths, but holds {kind}; write their bytes")


def _read_labels(path: Path, label: str, spec: str) -> tuple[pa.ChunkedArray, torch.Tensor | None]:
    """A column of integers or words; a column of lists is flattened, and the lengths of the lists are returned too.

    Raises:
        DataError: the column has missing values or another type.
    """
    try:
        with open_parquet(path) as content:
            column = content.read([label]).column(0)
    except FileError as error:
        raise _no_parquet(spec, error) from error
    missing, lengths = column.null_count, None
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = torch.from_numpy(pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
        column = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
        missing += column.null_count
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    kinds = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
    if missing or not any(kind(column.type) for kind in kinds):
        raise DataError(
            f"the column {label} of '{spec}' must hold a whole number or a word in every row, or a list of them, but holds {column.type} "
            f"with {missing} missing; give each image its class, or a list that may be empty"
        )
    return column, lengths


def _check_names(paths: Sequence[Path], names: Sequence[tuple[str, ...] | None]) -> None:
    """Raise DataError unless all files have the same classes, in any order."""
    for path, own in zip(paths, names, strict=True):
        if set(own or ()) != set(names[0] or ()):
            shown = [f"'{each.name}' has {some(classes) if classes else 'none'}" for each, classes in ((paths[0], names[0]), (path, own))]
            raise DataError(f"the files of a set must name the same classes, but {' and '.join(shown)}; write them with the same names")


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """The class names that Hugging Face's datasets library writes into the schema; None if there are none."""
    try:
        feature = parse_json(metadata[b"huggingface"], what="the metadata")["info"]["features"][label]
        names = feature.get("feature", feature)["names"]
    except (AttributeError, KeyError, TypeError, FileError):
        return None
    return tuple(map(str, names))
