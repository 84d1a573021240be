"""Weights as other programs leave them: files of ``torch.save`` or safetensors, a state dict within a checkpoint, wrapped keys.

Nothing is unpickled but tensors, containers and numbers.
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
"""Under what keys programs save a network's weights, and the moving average of them."""

_FRONT = ("module", "model")
_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What wrappers put before the keys of what they wrap; those of torch.compile and FSDP wrap parts of networks too."""

_DEEPEST = 4
"""Mappings within each other; each may hold several, so that more would be a walk without end."""

_COUNTERS = ("n_averaged", "module.n_averaged")
"""What averages of weights count in a tensor beside them."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights that were chosen of a file.

    Attributes:
        label: what errors call it.
        tensors: by their keys as they were saved.
        entry: where in the file they stood, such as ``state_dict_ema``; empty if they were all of it.
        others: where else weights stood, which were not taken.
        averaged: whether they are a moving average.
    """

    label: str
    tensors: Mapping[str, Any]
    entry: str = ""
    others: tuple[str, ...] = ()
    averaged: bool = False


def open_checkpoint(source: Mapping[str, Any] | str | os.PathLike[str], *, ema: bool = False) -> Checkpoint:
    """Find the weights in a state dict, in a checkpoint that holds one, or in a file of either.

    Args:
        source: the state dict or checkpoint, or a file that ``torch.save`` (read with ``weights_only=True``) or safetensors wrote.
        ema: whether to take the moving average of the weights where both are there; one that is there alone is taken anyhow.

    Raises:
        FileError: there is no such file, or it cannot be read.
        WeightsError: it is damaged, holds objects that would have to be executed, or no moving average although ``ema``.
    """
    state, label = (source, "the state dict") if isinstance(source, Mapping) else (_read(Path(source)), f"'{source}'")
    found = {(entry, averaged): tensors for entry, averaged, tensors in _entries(state, "", averaged=False)}
    chosen = next((place for place in found if place[1] is ema), None)
    if chosen is None and ema:
        raise WeightsError(
            f"{label} must hold a moving average of weights under {', '.join(_AVERAGED)}, but holds none; take its weights without ema"
        )
    chosen = chosen or next(iter(found))
    others = tuple(entry or "the whole file" for entry, averaged in found if (entry, averaged) != chosen)
    return Checkpoint(label, found[chosen], chosen[0], others, chosen[1])


def unwrapped_key(key: str) -> str:
    """A key without what ``torch.compile``, data parallelism and training frameworks put before it, in any order."""
    parts = [part for part in key.split(".") if part not in _ANYWHERE]
    while len(parts) > 1 and parts[0] in _FRONT:
        parts = parts[1:]
    return ".".join(parts)


def _entries(state: Mapping[str, Any], path: str, *, averaged: bool, depth: int = 0) -> Iterator[tuple[str, bool, Mapping[str, Any]]]:
    """Where the weights stand within nested mappings, as dotted keys; whether they are averages; and they themselves."""
    inner = [key for key in (*_PLAIN, *_AVERAGED) if isinstance(state.get(key), Mapping) and state[key]]
    if depth > _DEEPEST:
        raise WeightsError(
            f"weights must be within at most {_DEEPEST} mappings, but these are deeper, or within themselves; save the state dict alone"
        )
    for key in inner:
        yield from _entries(state[key], f"{path}.{key}" if path else key, averaged=averaged or key in _AVERAGED, depth=depth + 1)
    if not inner:
        yield path, averaged, {key: value for key, value in state.items() if key not in _COUNTERS}


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return read_safetensors(path, error=WeightsError).tensors
    return read_torch(path, error=WeightsError)
