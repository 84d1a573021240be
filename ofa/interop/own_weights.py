"""Loading trained weights into a user's own model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ofa.errors import WeightsError
from ofa.interop.checkpoints import open_checkpoint, unwrapped_key
from ofa.weights import check_finite

__all__ = ["load_weights"]

_COUNTER = "num_batches_tracked"
"""Batch counter of batch norms, which some programs do not save."""


def load_weights(model: nn.Module, source: Mapping[str, Any] | str | os.PathLike[str]) -> None:
    """Load a state dict into a model; keys may have prefixes of wrappers such as ``torch.compile``.

    Args:
        model: its parameters and buffers are overwritten, all or none.
        source: the state dict, a checkpoint that contains one, or a file that ``torch.save`` (read with ``weights_only=True``) or
            safetensors wrote.

    Raises:
        FileError: the file does not exist or cannot be read.
        WeightsError: the file is damaged or has objects other than tensors and numbers; or tensors do not match the model or are not
            finite.
    """
    found = open_checkpoint(source)
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(_COUNTER)}
    plain = {unwrapped_key(name): name for name in own}
    tensors: dict[str, Tensor] = {}
    for key, value in found.tensors.items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"{found.label} must map names to tensors, but {key!r} is a {type(value).__name__}; save the model's state_dict()"
            )
        if not key.endswith(_COUNTER):
            tensors[key if key in own else plain.get(unwrapped_key(key), key)] = value
    _check(own, tensors, type(model).__name__, found.label)
    check_finite(tensors, found.label)
    with torch.no_grad():
        for name, target in own.items():
            target.copy_(tensors[name])


def _check(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], model: str, label: str) -> None:
    missing, unknown = [name for name in own if name not in tensors], [name for name in tensors if name not in own]
    other = [name for name, tensor in own.items() if name in tensors and tensors[name].shape != tensor.shape]
    parts = [f"{len(names)} are {what} (first {names[0]})" for names, what in ((missing, "missing"), (unknown, "unknown")) if names]
    if other:
        first = other[0]
        shapes = f"{first}, {list(tensors[first].shape)} in place of {list(own[first].shape)}"
        parts.append(f"{len(other)} {'has another shape' if len(other) == 1 else 'have other shapes'} (first {shapes})")
    if parts:
        raise WeightsError(
            f"weights must have the {len(own)} tensors of the model {model}, but in {label} {' and '.join(parts)}; build the model as it "
            "was when the weights were saved, with the same number of classes"
        )
