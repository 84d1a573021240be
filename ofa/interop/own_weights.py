"""Weights of a user's own model, as its training left them."""

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
"""Of batch norms: how many batches their statistics are of, which some programs leave out."""


def load_weights(model: nn.Module, source: Mapping[str, Any] | str | os.PathLike[str]) -> None:
    """Give a model the weights of a state dict; keys may have what wrappers such as ``torch.compile`` put before them.

    Args:
        model: whose parameters and buffers are overwritten, but nothing if not all fit.
        source: the state dict, a checkpoint that holds one, or a file that ``torch.save`` (read with ``weights_only=True``) or
            safetensors wrote.

    Raises:
        FileError: there is no such file, or it cannot be read.
        WeightsError: it is damaged, holds objects that would have to be executed, or its tensors do not fit or are not finite.
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
            f"weights must have the {len(own)} tensors of the model {model}, but in {label} {' and '.join(parts)}; make the model as it "
            "was when they were saved, with as many classes"
        )
