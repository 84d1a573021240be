"""How good a network is."""

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
    """The task's score (0..1) on ``data``; images that are skipped because they are broken do not count.

    The network is put in evaluation mode meanwhile, and afterwards in the mode it was in.

    Args:
        network: maps [B, C, H, W] to [B, classes].
        data: images in order, unaugmented.
        resolution: height and width of the input in pixels.
        batch_size: images a forward pass.
        task: what the network is for.

    Raises:
        DataError: the network has another number of outputs than the data has classes, the labels are of another kind than the task, or
            no image can be read.
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
    """Raise DataError unless a network with so many outputs can be used on some images for a task."""
    task.check(data.labels)
    check_classes(outputs, data.class_names)


def check_classes(outputs: int, names: Sequence[str]) -> None:
    """Raise DataError unless a network has one output a class.

    Args:
        outputs: length of its logits.
        names: of the classes of the data that it is to be used on.
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
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())  # NumPy does not know all kinds of numbers
    return digest.hexdigest()[:12]


def digest_of_images(*sets: Images) -> str:
    """A short checksum of what images hold, in their order, whatever they are called."""
    return hashlib.sha256(b"".join(images.keys.numpy().tobytes() for images in sets)).hexdigest()[:12]


def digest_of_labels(*sets: Images) -> str:
    """A short checksum of the classes that images are of."""
    return hashlib.sha256(b"".join(images.labels.cpu().numpy().tobytes() for images in sets)).hexdigest()[:12]


def device_of(network: nn.Module) -> torch.device:
    """Where the network's first parameter or buffer lies; the CPU if it has none."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return torch.device("cpu")
