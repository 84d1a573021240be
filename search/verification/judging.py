"""Scores of a file on images through a device's runtime, compared with PyTorch on the same images.

Shapes: B images of a batch, C channels, H W height and width in pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from devices import Device
from devices.running import DeviceNetwork
from ofa.data import Images, batches
from ofa.errors import DataError, ExportError
from ofa.exporting.bundle import Bundle
from ofa.exporting.onnx import float_outputs
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.tasks import CLASSIFICATION, Task
from ofa.training.evaluation import check_data

__all__ = ["Judged", "images_for", "judge"]

_BATCH = 64
"""Approximate batch size of PyTorch."""
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Scores of a file on a set of images.

    Attributes:
        images: number of images, without the broken ones that were skipped.
        metric: name of the score.
        score: the task's score (0..1) of the device's outputs.
        pytorch_score: the same score of PyTorch's outputs here, in float32.
        standard_error: sampling error of ``score``, as a standard deviation; None if the task does not know it.
        difference: largest difference between device and PyTorch outputs, as a share of PyTorch's largest output.
        same_class: share of the images for which both outputs have their maximum at the same class.
    """

    images: int
    metric: str
    score: float
    pytorch_score: float
    standard_error: float | None
    difference: float
    same_class: float


def images_for(bundle: Bundle, data: Images, task: Task, most: int | None = None) -> Images:
    """Images, normalized as a bundle's network expects them.

    Args:
        bundle: the bundle of the network.
        data: images of its classes, read by its rule.
        task: the network's task.
        most: number of images, evenly spread over ``data``; None for all.

    Raises:
        DataError: the images have other classes or channels, were read by another rule, have labels of another kind than the task, or
            ``most`` is below 1.
    """
    if data.rule.channels != bundle.rule.channels:
        raise DataError(
            f"images must have the network's {bundle.rule.channels} channels, but these have {data.rule.channels}; read them "
            "with load_data(.., rule=bundle.rule)"
        )
    if data.rule != bundle.rule:
        mine, theirs = ({name: value for name, value in rule.to_json().items() if value is not None} for rule in (bundle.rule, data.rule))
        raise DataError(
            f"images must be read as those that the network knows, by {mine}, but these are by {theirs}; read them with load_data(.., "
            "rule=bundle.rule)"
        )
    check_data(task, bundle.space.num_classes, data)
    if data.class_names != bundle.class_names:
        mine_named, theirs_named = (
            ", ".join(names[:_NAMED]) + " ..." * (len(names) > _NAMED) for names in (bundle.class_names, data.class_names)
        )
        raise DataError(
            f"images must be of the network's classes in their order, {mine_named}, but these are of {theirs_named}; read them with "
            "load_data(.., classes=bundle.class_names)"
        )
    if most is not None and most < 1:
        raise DataError(f"a network is judged on at least 1 image, but {most} are asked for; ask for more, or leave the images out")
    if most is not None and most < len(data):
        data = data.subset(torch.linspace(0, len(data) - 1, most, dtype=torch.float64).long())
    return data.normalized((bundle.mean, bundle.std))


def judge(
    network: nn.Module,
    device: Device,
    path: Path,
    data: Images,
    *,
    name: str,
    resolution: Resolution,
    task: Task = CLASSIFICATION,
    progress: Progress = silent,
) -> Judged:
    """Run a file on a device and its PyTorch network here, on the same images.

    Args:
        network: the PyTorch network.
        device: the device that runs the file, with its runtime, precision and batch size; an incomplete last batch is padded.
        path: the network's file in the format of that runtime.
        data: images of the network's classes, normalized as it expects them.
        name: name of the network in messages.
        resolution: input resolution of the network in pixels.
        task: the network's task.
        progress: receives the number of images done.

    Raises:
        DataError: none of the images can be read.
        DeviceError: the device cannot run the file.
        ExportError: outputs of the file are infinite or NaN.
    """
    found = _Answers(network, name, device, len(data), progress)
    at_once = device.batch * math.ceil(_BATCH / device.batch)
    with DeviceNetwork(device, path, output=(len(data.class_names),), name=name, tell=found.tell) as on_device:
        score = task.score_of(found.of(on_device, batches(data, batch_size=at_once, resolution=resolution)))
    error = task.standard_error(score, found.images)
    return Judged(
        images=found.images,
        metric=task.metric,
        score=score,
        pytorch_score=task.score_of(found.by_pytorch),
        standard_error=None if math.isnan(error) else error,
        difference=found.difference / (found.scale or 1.0),
        same_class=found.same / found.images,
    )


class _Answers:
    """Outputs of device and PyTorch, and their largest difference so far.

    Attributes:
        images, same: number of images so far, and of those with the same predicted class.
        difference, scale: largest difference between the outputs, and PyTorch's largest output by magnitude.
        by_pytorch: PyTorch's outputs with the labels.
    """

    def __init__(self, network: nn.Module, name: str, device: Device, most: int, progress: Progress) -> None:
        self._network, self._name, self._device, self._most, self._progress = network, name, device, most, progress
        self.images = self.same = 0
        self.difference = self.scale = 0.0
        self.by_pytorch: list[tuple[Tensor, Tensor]] = []

    def of(self, on_device: DeviceNetwork, given: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The device's outputs with the labels, batch after batch."""
        self.tell(f"judging on {self._device.name}")
        for x_BCHW, y_B in given:
            expected_BK = float_outputs(self._network, x_BCHW)
            outputs_BK = torch.from_numpy(on_device(x_BCHW.contiguous().numpy()))
            self._compare(outputs_BK, expected_BK)
            self.by_pytorch.append((expected_BK, y_B))
            self.tell(f"judging on {self._device.name}")
            yield outputs_BK, y_B
        if not self.images:
            raise DataError(f"images to judge a network on must be readable, but none of the {self._most} is; check the files")

    def tell(self, doing: str) -> None:
        """Report the current activity."""
        self._progress(self.images, self._most, doing)

    def _compare(self, outputs_BK: Tensor, expected_BK: Tensor) -> None:
        wrong = int((~outputs_BK.isfinite()).any(1).sum())
        if wrong:
            raise ExportError(
                f"'{self._name}' must answer with numbers, but on {self._device.name} in {self._device.precision} it answers with "
                f"infinities or NaN for {wrong} of {len(outputs_BK)} images; name a device of another precision"
            )
        self.images += len(outputs_BK)
        self.same += int((outputs_BK.argmax(1) == expected_BK.argmax(1)).sum())
        self.difference = max(self.difference, float((outputs_BK - expected_BK).abs().max()))
        self.scale = max(self.scale, float(expected_BK.abs().max()))
