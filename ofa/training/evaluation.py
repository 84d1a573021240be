"""Evaluation of a network: its score on images, and checksums of what was evaluated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ofa.data import Images, batches
from ofa.errors import DataError
from ofa.modes import evaluating
from ofa.resolution import Resolution
from ofa.tasks import CLASSIFICATION, Task

__all__ = ["check_classes", "check_data", "device_of", "digest_of_images", "digest_of_labels", "digest_of_tensors", "evaluate"]

_NAMED = 5
"""How many classes an error names."""


def evaluate(network: nn.Module, data: Images, *, resolution: Resolution, batch_size: int = 256, task: Task = CLASSIFICATION) -> float:
    """The task's score of a network on images; broken images are skipped and do not count.

    The network is in evaluation mode meanwhile; its own mode is restored afterwards.

    Args:
        network: maps [B, C, H, W] to [B, classes].
        data: images in order, unaugmented.
        resolution: height and width of the input in pixels.
        batch_size: images per forward pass.
        task: the network's task; it defines the score.

    Returns:
        The score (0..1).

    Raises:
        DataError: the network's outputs are not as many as the data's classes, the labels do not suit the task, or no image can be read.
    """
    device = device_of(network)

    def answers() -> Iterator[tuple[Tensor, Tensor]]:
        judged = 0
        for x_BCHW, y_B in batches(data, batch_size=batch_size, resolution=resolution, device=device):
            outputs_BK = network(x_BCHW)
            check_classes(outputs_BK.shape[1], data.class_names)
            judged += len(y_B)
            yield outputs_BK, y_B
        if not judged:
            raise DataError(f"images to evaluate on must be readable, but none of the {len(data)} is; look where they lie")

    task.check(data.labels)
    with evaluating(network), torch.no_grad():
        return task.score_of(answers())


def check_data(task: Task, outputs: int, data: Images) -> None:
    """Raise DataError unless images have labels of the task's kind and as many classes as a network has outputs."""
    task.check(data.labels)
    check_classes(outputs, data.class_names)


def check_classes(outputs: int, names: Sequence[str]) -> None:
    """Check that a network has one output for each class.

    Args:
        outputs: number of the network's outputs.
        names: names of the classes of the data.

    Raises:
        DataError: the numbers differ.
    """
    if outputs != len(names):
        shown = f"{', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}"
        raise DataError(
            f"a network must have one output a class, but it has {outputs:,} and the data has {len(names):,} classes ({shown}); use data "
            f"of {outputs:,} classes, or a network trained on these"
        )


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A short checksum of weights."""
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())  # NumPy lacks some dtypes
    return digest.hexdigest()[:12]


def digest_of_images(*sets: Images) -> str:
    """A short checksum of the contents of images in their order, independent of file names."""
    return hashlib.sha256(b"".join(images.keys.numpy().tobytes() for images in sets)).hexdigest()[:12]


def digest_of_labels(*sets: Images) -> str:
    """A short checksum of the labels of images in their order."""
    return hashlib.sha256(b"".join(images.labels.cpu().numpy().tobytes() for images in sets)).hexdigest()[:12]


def device_of(network: nn.Module) -> torch.device:
    """The device of the network's first parameter or buffer; the CPU if it has none."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return torch.device("cpu")
