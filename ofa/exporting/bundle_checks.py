"""What must fit each other in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ofa.errors import ExportError
from ofa.space import Space
from ofa.weights import check_names

__all__ = ["check_channels", "check_classes", "check_tensors"]


def check_tensors(tensors: Mapping[str, torch.Tensor], network: nn.Module, source: str) -> None:
    """Raise WeightsError unless tensors are those of a network."""
    check_names(source, {name: tensor.shape for name, tensor in tensors.items()}, network.state_dict())


def check_classes(space: Space, class_names: Sequence[str]) -> None:
    """Raise ExportError unless each class of a space has a name."""
    if len(class_names) != space.num_classes:
        raise ExportError(
            f"each of the network's {space.num_classes} classes must have a name, but class_names has {len(class_names)}; give those "
            "of its data"
        )


def check_channels(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ExportError unless there is a mean and a deviation for each channel of the images."""
    if len(mean) != channels or len(std) != channels:
        raise ExportError(
            f"mean and std must have one value for each of the network's {channels} input channels, but have {len(mean)} and {len(std)}; "
            "give those that the network was trained with"
        )
