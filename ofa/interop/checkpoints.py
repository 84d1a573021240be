"""Checkpoints of other programs: files of ``torch.save`` or safetensors, nested state dicts, keys with prefixes of wrappers.

Only tensors, containers and numbers are unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import WeightsError
from ofa.reading.tensors import read_safetensors, read_torch

__all__ = ["Checkpoint", "open_checkpoint", "unwrapped_key"]

_PLAIN = ("state_dict", "model_state_dict", "model", "module", "net", "network")
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema")
"""Keys under which programs save a network's weights, and their moving average."""

_FRONT = ("module", "model")
_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Prefixes that wrappers add to keys; torch.compile and FSDP may wrap parts of a network, so their prefixes occur anywhere in a key."""

_DEEPEST = 4
"""Most levels of nested mappings; without a limit, a hostile file could make the search endless."""

_COUNTERS = ("n_averaged", "module.n_averaged")
"""Counters of weight averaging, saved as tensors beside the weights."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights chosen from a file.

    Attributes:
        label: name of the file in messages.
        tensors: by key, as saved.
        entry: dotted key of the weights in the file, such as ``state_dict_ema``; empty if the whole file is the state dict.
        others: keys of other weights in the file, which were not chosen.
        averaged: whether the weights are a moving average.
    """

    label: str
    tensors: Mapping[str, Any]
    entry: str = ""
    others: tuple[str, ...] = ()
    averaged: bool = False


def open_checkpoint(source: Mapping[str, Any] | str | os.PathLike[str], *, ema: bool = False) -> Checkpoint:
    """Find the weights in a state dict, in a checkpoint that contains one, or in a file.

    Args:
        source: the state dict or checkpoint, or a file that ``torch.save`` (read with ``weights_only=True``) or safetensors wrote.
        ema: whether to prefer the moving average (EMA) if the file has both; an average without plain weights is always taken.

    Raises:
        FileError: the file does not exist or cannot be read.
        WeightsError: the file is damaged, contains objects other than tensors and numbers, or has no moving average although ``ema``.
    """
    state, label = (source, "the state dict") if isinstance(source, Mapping) else (_read(Path(source)), f"'{source}'")
    found = {(entry, averaged): tensors for entry, averaged, tensors in _entries(state, "", averaged=False)}
    chosen = next((place for place in found if place[1] is ema), None)
    if chosen is None and ema:
        raise WeightsError(
            f"{label} must hold a moving average of weights under {', '.join(_AVERAGED)}, but has none; take its weights without ema"
        )
    chosen = chosen or next(iter(found))
    others = tuple(entry or "the whole file" for entry, averaged in found if (entry, averaged) != chosen)
    return Checkpoint(label, found[chosen], chosen[0], others, chosen[1])


def unwrapped_key(key: str) -> str:
    """A key without the prefixes of ``torch.compile``, data parallelism and training frameworks, in any order."""
    parts = [part for part in key.split(".") if part not in _ANYWHERE]
    while len(parts) > 1 and parts[0] in _FRONT:
        parts = parts[1:]
    return ".".join(parts)


def _entries(state: Mapping[str, Any], path: str, *, averaged: bool, depth: int = 0) -> Iterator[tuple[str, bool, Mapping[str, Any]]]:
    """(dotted key, whether it is a moving average, weights) of every state dict in nested mappings."""
    inner = [key for key in (*_PLAIN, *_AVERAGED) if isinstance(state.get(key), Mapping) and state[key]]
    if depth > _DEEPEST:
        raise WeightsError(
            f"weights must be nested in at most {_DEEPEST} mappings, but these are nested deeper, or in a cycle; save the state dict alone"
        )
    for key in inner:
        yield from _entries(state[key], f"{path}.{key}" if path else key, averaged=averaged or key in _AVERAGED, depth=depth + 1)
    if not inner:
        yield path, averaged, {key: value for key, value in state.items() if key not in _COUNTERS}


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return read_safetensors(path, error=WeightsError).tensors
    return read_torch(path, error=WeightsError)
