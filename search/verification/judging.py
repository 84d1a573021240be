"""What a file answers on images through a device's runtime, beside what PyTorch answers on the same images.

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
"""Images that PyTorch computes at once, about."""
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a file answers on some images.

    Attributes:
        images: how many there are; those that are skipped because they are broken do not count.
        metric: what the score is called.
        score: the task's (0..1), of what the device answers.
        pytorch_score: likewise of what PyTorch answers here, in float32.
        standard_error: how far ``score`` is from that on all images like them, in standard deviations; None if that is not known.
        difference: largest one between the outputs of both, as a share of the scale of PyTorch's.
        same_class: share of the images of which both have the largest output for the same class.
    """

    images: int
    metric: str
    score: float
    pytorch_score: float
    standard_error: float | None
    difference: float
    same_class: float


def images_for(bundle: Bundle, data: Images, task: Task, most: int | None = None) -> Images:
    """Images as a bundle's network takes them.

    Args:
        bundle: whose network.
        data: images of its classes, read by its rule.
        task: what the network is for.
        most: how many, from all over; None for all.

    Raises:
        DataError: they are of other classes, were read otherwise, or have labels of another kind than the task.
    """
    if data.rule.channels != bundle.rule.channels:
        raise DataError(
            f"images must have the channels that the network takes, {bundle.rule.channels}, but these have {data.rule.channels}; read them "
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
    """Run a file on a device, and its network here, on the same images.

    Args:
        network: the PyTorch network.
        device: where the file runs, with its runtime, precision and batch; a last batch that is not full is filled up.
        path: the network's file in the format of that runtime.
        data: images of its classes, normalized as it takes them.
        name: of the network, for messages.
        resolution: of its input.
        task: what it is for.
        progress: told how many images are done.

    Raises:
        DataError: none of the images can be read.
        DeviceError: the device cannot run the file.
        ExportError: what it answers are no numbers.
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
    """The answers of both, and how far they are from one another.

    Attributes:
        images, same: how many there are so far, and how many have the same class.
        difference, scale: the largest difference of two outputs, and the largest of PyTorch's.
        by_pytorch: its outputs with the labels.
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
            raise DataError(f"images to judge a network on must be readable, but none of the {self._most} is; signature where they lie")

    def tell(self, doing: str) -> None:
        """Say what is done."""
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
