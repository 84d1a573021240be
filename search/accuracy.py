"""Sources of accuracies: measured on data here, or predicted (``search.predictor.accuracy_predictor``).

Shape suffixes: N archs, C columns of an encoded arch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.calibrate import CALIBRATION_IMAGES, calibrate
from ofa.data import Images
from ofa.journal import UNKEPT, Steps
from ofa.progress import Progress, silent
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.tasks import CLASSIFICATION, Task
from ofa.training.evaluation import check_data, device_of, digest_of_images, digest_of_labels, digest_of_tensors, evaluate

__all__ = ["AccuracySource", "MeasuredAccuracy", "Remembering", "reach_of"]

_DEVIATIONS = 1.645  # standard deviations: half of a 90 % interval of a normal distribution


def reach_of(*standard_errors: float) -> float:
    """Half width of the 90 % interval (normal approximation) of an accuracy, or of a difference of several, from their standard errors."""
    return _DEVIATIONS * math.hypot(*standard_errors)


class AccuracySource(Protocol):
    """A source of accuracies, which are the score of a task. It answers for many encoded archs in one call, so that arrays can be used."""

    @property
    def space(self) -> Space:
        """The space of the encoded archs."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Origin of the accuracies, as JSON values.

        Its keys are ``source`` (``predicted`` or ``measured``), ``metric`` (name of the score; ``accuracy`` by default), and further ones
        of the source.
        """

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        """The accuracies (0..1) of encoded archs; [N]."""

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """Lower and upper ends of the accuracies' 90 % intervals, [N] each; NaN where unknown."""


@runtime_checkable
class Remembering(Protocol):
    """A measuring source that accepts values measured earlier or by another process."""

    def recall(self, rows_NC: Rows, values_N: Floats, /) -> None:
        """Store values of encoded archs, so that they are not measured again: accuracies (0..1), or expected latencies in ms; [N]."""


class MeasuredAccuracy:
    """Measures accuracies: extracts each network from the supernet, calibrates its batch norms, and evaluates it on held-out images.

    Args:
        supernet: a trained supernet.
        data: images that the supernet was not trained on; the accuracy is the task's score on them.
        calibration_data: images for the batch norms' statistics, usually the training images.
        calibration_images: number of calibration images.
        progress: receives the number of measured networks.
        task: task of the supernet.
        steps: journal that keeps the accuracy of each network.

    Raises:
        FileError: ``steps`` are of another supernet or of other images.
        DataError: the supernet's number of outputs differs from the data's number of classes, or the labels do not suit the task.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Images,
        calibration_data: Images,
        *,
        calibration_images: int = CALIBRATION_IMAGES,
        progress: Progress = silent,
        task: Task = CLASSIFICATION,
        steps: Steps = UNKEPT,
    ) -> None:
        check_data(task, supernet.space.num_classes, data)
        self._supernet, self._task = supernet, task
        self._data = data
        self._calibration_data = calibration_data
        self._calibration_images = calibration_images
        self._progress = progress
        self._known: dict[Arch, float] = {}
        self._digest, self._images_digest = digest_of_tensors(supernet.state_dict()), digest_of_images(data, calibration_data)
        self._steps = steps
        steps.begin({**self.provenance, "labels": digest_of_labels(data), "on": device_of(supernet).type})

    @property
    def space(self) -> Space:
        """The space of the supernet."""
        return self._supernet.space

    @property
    def provenance(self) -> dict[str, Any]:
        """Digests of supernet and images, and the number of images, as JSON values."""
        images = {"images": len(self._data), "calibration_images": self._calibration_images}
        return {
            "source": "measured",
            "metric": self._task.metric,
            "supernet_digest": self._digest,
            "images_digest": self._images_digest,
            **images,
        }

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        """The accuracies (0..1) of encoded archs; each network is measured once."""
        return self([self.space.decode(row) for row in rows_NC.tolist()])

    def recall(self, rows_NC: Rows, values_N: Floats, /) -> None:
        """Store accuracies ``values_N`` (0..1) of this supernet's networks ``rows_NC`` that were measured before."""
        self._known.update(zip(map(self.space.decode, rows_NC.tolist()), values_N.tolist(), strict=True))

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """Ends of the 90 % intervals of the accuracies for the sampling error of the images (normal approximation); [N] each.

        NaN where the task does not know its standard error.
        """
        accuracy_N = self.of_rows(rows_NC)
        reach_N = np.array([reach_of(self._task.standard_error(accuracy, len(self._data))) for accuracy in accuracy_N.tolist()])
        return np.clip(accuracy_N - reach_N, 0, 1), np.clip(accuracy_N + reach_N, 0, 1)

    def __call__(self, archs: Sequence[Arch], /) -> Floats:
        """The accuracies (0..1) of ``archs``; [N]. Each network is measured once. Errors as ``Supernet.extract``."""
        new = [arch for arch in dict.fromkeys(archs) if arch not in self._known]
        for done, arch in enumerate(new):
            self._progress(done, len(new), f"measuring the accuracy of {len(new)} networks")
            self._known[arch] = self._steps.once(json.dumps(arch.to_json()), partial(self._measure, arch), float)
        if new:
            self._progress(len(new), len(new), f"measured the accuracy of {len(new)} networks")
        return np.array([self._known[arch] for arch in archs], dtype=np.float64)

    def _measure(self, arch: Arch) -> float:
        network = self._supernet.extract(arch)
        calibrate(network, self._calibration_data, resolution=arch.resolution, images=self._calibration_images)
        return evaluate(network, self._data, resolution=arch.resolution, task=self._task)
