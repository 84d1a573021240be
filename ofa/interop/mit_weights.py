"""Trained supernets of MIT's once-for-all package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ofa.errors import WeightsError
from ofa.families import get_space, space_names
from ofa.interop.checkpoints import Checkpoint, open_checkpoint
from ofa.interop.mit_keys import FAMILIES, family_of_keys, is_ignored, key_names, mit_class, plain_key
from ofa.sharing import layout
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.weights import check_finite

__all__ = ["load_supernet"]

Source = Mapping[str, Any] | str | os.PathLike[str] | Checkpoint

_CLASSIFIER = "classifier.linear.weight"


def load_supernet(source: Source, space: Space, *, ema: bool = False) -> Supernet:
    """Build a supernet from a state dict of MIT's package (OFAMobileNetV3, OFAProxylessNASNets or OFAResNets).

    All spellings of keys that the package writes or accepts are understood, also with prefixes of ``torch.compile`` and data
    parallelism. Batch-norm statistics and kernel matrices are copied too. Without any kernel matrix (a network trained with one kernel
    size, or with transforms switched off), small kernels are the plain centres of the large ones, as in the package.

    Args:
        source: the state dict, a checkpoint that contains one (see ``ofa.interop.checkpoints``), or a file that ``torch.save`` (read
            with ``weights_only=True``) or safetensors wrote.
        space: the space of the supernet, with the classifier's number of classes.
        ema: whether to prefer the moving average of the weights if there are both.

    Raises:
        FileError: the file does not exist.
        WeightsError: the file is damaged or has objects other than tensors and numbers; or tensors do not match the space or are not
            finite.
        SpaceError: MIT's package has no such family.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, ema=ema)
    keys = key_names(space)
    tensors = _plain_tensors(checkpoint.tensors, checkpoint.label)
    _check(tensors, space, checkpoint.label)
    check_finite(tensors, checkpoint.label)
    supernet = Supernet.empty(space)
    with torch.no_grad():
        for name, target in supernet.named_tensors().items():
            found = tensors.get(keys[name])
            # Only kernel matrices may be missing; the identity then leaves the centre of the large kernel unchanged.
            target.copy_(torch.eye(len(target)) if found is None else found.reshape(target.shape))
    return supernet


def _plain_tensors(state: Mapping[str, Any], label: str) -> dict[str, torch.Tensor]:
    """The tensors by plain key, without batch counters."""
    tensors: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{label} must map names to tensors, but {key!r} is a {type(value).__name__}; give the network's state_dict() or a "
                "checkpoint with the key 'state_dict'"
            )
        plain = plain_key(key)
        if is_ignored(plain):
            continue
        if plain in tensors:
            raise WeightsError(f"{label} must hold each tensor once, but has '{key}' in two spellings; remove one of them")
        tensors[plain] = value
    return tensors


# -- checks -----------------------------------------------------------------------------------------------------------


def _check(tensors: Mapping[str, torch.Tensor], space: Space, label: str) -> None:
    """Raise WeightsError, with the number of wrong tensors and the first of them, unless all match the space."""
    family = family_of_keys(tensors)
    if family is not None and family != mit_class(space):
        raise WeightsError(
            f"{label} must be of {mit_class(space)} for {space.name}, but its {len(tensors)} tensors are of {family} "
            f"(first {next(iter(tensors))}); {_advice(tensors, family)}"
        )
    shapes = _shapes(space)
    needed = {key for key in shapes if not _is_matrix(key)} if not any(map(_is_matrix, tensors)) else set(shapes)
    missing = [key for key in shapes if key in needed and key not in tensors]
    extra = [key for key in tensors if key not in shapes]
    if missing or extra:
        parts = [f"{len(keys)} are {what} (first {keys[0]})" for keys, what in ((missing, "missing"), (extra, "unknown")) if keys]
        raise WeightsError(
            f"{label} must hold the {len(needed)} tensors of {space.name}, but {' and '.join(parts)}; {_advice(tensors, family)}"
        )
    wrong = [key for key, tensor in tensors.items() if _matters(tensor.shape) != _matters(shapes[key])]
    if wrong:
        raise WeightsError(_shape_sentence(wrong, tensors, space, label))


def _shape_sentence(wrong: list[str], tensors: Mapping[str, torch.Tensor], space: Space, label: str) -> str:
    classes = _classes(tensors)
    if classes is not None and classes != space.num_classes and _fits(tensors, replace(space, num_classes=classes)):
        return (
            f"{label} must have the {space.num_classes} classes of this {space.name}, but its classifier has {classes}; "
            f"take the space with num_classes={classes}"
        )
    first = wrong[0]
    return (
        f"{label} must have the shapes of {space.name}, but {len(wrong)} of {len(tensors)} tensors have others, first {first} with "
        f"{list(tensors[first].shape)} instead of {list(_shapes(space)[first])}; {_advice(tensors, mit_class(space))}"
    )


def _advice(tensors: Mapping[str, torch.Tensor], family: str | None) -> str:
    """The next step of a message: the named space that the tensors match, or general advice."""
    for name in space_names():
        space = get_space(name, _classes(tensors))
        if family and FAMILIES.get(type(space)) == family and _fits(tensors, space):
            return f"it matches {name} with num_classes={space.num_classes}"
    return "it matches no named space, so make one with its widths, kernels and depths, or give the checkpoint of a whole supernet"


def _classes(tensors: Mapping[str, torch.Tensor]) -> int | None:
    """The number of classes of the classifier; None if there is no valid classifier."""
    weight = tensors.get(_CLASSIFIER)
    return len(weight) if weight is not None and weight.dim() == 2 and len(weight) > 1 else None


def _fits(tensors: Mapping[str, torch.Tensor], space: Space) -> bool:
    shapes = _shapes(space)
    absent = [key for key in shapes if key not in tensors]
    allowed = all(map(_is_matrix, absent)) and not (absent and any(map(_is_matrix, tensors)))
    return allowed and all(key in shapes and _matters(tensor.shape) == _matters(shapes[key]) for key, tensor in tensors.items())


def _shapes(space: Space) -> dict[str, torch.Size]:
    names = key_names(space)
    return {names[stored.name]: torch.Size(stored.shape) for stored in layout(space)}


def _matters(shape: torch.Size) -> tuple[int, ...]:
    """A shape without the kernel dimensions of a 1x1 convolution, which is equivalent to a linear layer."""
    return tuple(shape[:2]) if shape[2:] == (1, 1) else tuple(shape)


def _is_matrix(key: str) -> bool:
    return key.endswith("_matrix")
