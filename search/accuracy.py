"""Where accuracies come from: measured on data here, or predicted (search.predictor.accuracy_predictor).

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

_DEVIATIONS = 1.645  # of a normal distribution, between which 90 % lie


def reach_of(*standard_errors: float) -> float:
    """Half of a 90 % interval of an accuracy, or of the difference of several, from their standard errors (the normal approximation)."""
    return _DEVIATIONS * math.hypot(*standard_errors)


class AccuracySource(Protocol):
    """What tells the accuracy of networks, which is their task's score; asked for many encoded archs at once, so that arrays can answer."""

    @property
    def space(self) -> Space:
        """The space whose encoded archs it takes."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where its numbers come from, as JSON values.

        They are ``source`` (``predicted`` or ``measured``), ``metric`` (what the score is called; ``accuracy`` if it is left out) and what
        is known of it.
        """

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        """The accuracies (0..1) of encoded archs; [N]."""

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """The low and high ends of 90 % intervals of their accuracies, [N] each; NaN where none are known."""


@runtime_checkable
class Remembering(Protocol):
    """A source that measures, and can be told what was measured earlier or by another process."""

    def recall(self, rows_NC: Rows, values_N: Floats, /) -> None:
        """Answer these values for these encoded archs from now on; its accuracies, or its expected latencies in ms."""


class MeasuredAccuracy:
    """Measures each network: extracted from the supernet, its batch norms calibrated, evaluated on held-out images.

    Args:
        supernet: a trained one.
        data: images that the supernet was not trained on; the accuracy is the task's score on them.
        calibration_data: images whose statistics the batch norms take, usually those of training.
        calibration_images: how many of them.
        progress: told how many of the networks asked for are measured.
        task: of the supernet.
        steps: keeps the accuracy of each network.

    Raises:
        FileError: ``steps`` are of another supernet or of other images.
        DataError: the supernet has another number of outputs than the data has classes, or the labels are of another kind than the task.
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
        """What is measured, as JSON values."""
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
        """Take accuracies that were measured before, by this supernet, as measured."""
        self._known.update(zip(map(self.space.decode, rows_NC.tolist()), values_N.tolist(), strict=True))

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """How far an accuracy on so many images may be from that on all images like them, to 90 % (the normal approximation); [N] each.

        NaN where the task does not know its standard error.
        """
        accuracy_N = self.of_rows(rows_NC)
        reach_N = np.array([reach_of(self._task.standard_error(accuracy, len(self._data))) for accuracy in accuracy_N.tolist()])
        return np.clip(accuracy_N - reach_N, 0, 1), np.clip(accuracy_N + reach_N, 0, 1)

    def __call__(self, archs: Sequence[Arch], /) -> Floats:
        """The accuracies (0..1) of ``archs``; each network is measured once. Errors as ``Supernet.extract``."""
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
