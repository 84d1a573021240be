"""Measures quantization losses: networks of a supernet are extracted, calibrated, quantized, and scored in both precisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial

import numpy as np

from ofa.arch import Arch
from ofa.calibrate import CALIBRATION_IMAGES, calibrate
from ofa.data import Images, Splits
from ofa.errors import SearchError
from ofa.exporting.onnx import to_model
from ofa.exporting.quantization.bundles import FileNetwork, divided, inputs_of
from ofa.exporting.quantization.processor import instructions
from ofa.exporting.quantization.repair import repaired
from ofa.exporting.quantization.static import Quantization, quantize
from ofa.journal import UNKEPT, Steps
from ofa.progress import Progress, silent
from ofa.resolution import sides
from ofa.supernet import Supernet
from ofa.tasks import CLASSIFICATION, Task
from ofa.training.evaluation import check_data, digest_of_images, digest_of_labels, digest_of_tensors, evaluate
from search.predictor.quantization import QuantizationLoss
from search.predictor.sampling import sample_stratified
from search.predictor.training_data import LEAST_NETWORKS

__all__ = ["measure_losses", "scores_in_both"]

_HOW = {"int8": Quantization()}
"""Quantization method by precision: the first one that an export tries. An export picks its best, so it loses at most as much."""


def measure_losses(
    supernet: Supernet,
    data: Splits,
    *,
    precision: str = "int8",
    nets: int,
    rng: np.random.Generator,
    progress: Progress = silent,
    task: Task = CLASSIFICATION,
    steps: Steps = UNKEPT,
) -> QuantizationLoss:
    """Quantize networks of a trained supernet, score each in float32 and quantized, and fit a predictor of the loss.

    Up to 128 images of the selection part calibrate the ranges of activations; the scores are of its other images.

    Args:
        supernet: a trained supernet.
        data: its data; batch norms are calibrated on the training part.
        precision: precision of the quantized files.
        nets: number of networks, evenly spaced over the logarithm of MACs; at least 10.
        rng: draws the networks.
        progress: receives the number of measured networks.
        task: task of the supernet.
        steps: journal that keeps the scores of each network.

    Returns:
        The fitted losses.

    Raises:
        SearchError: too few networks, or a precision whose files are not calibrated on images.
        ExportError: too few images, or a network cannot be quantized.
        DataError: the labels do not suit the task, or the data has other classes than the supernet.
        FileError: ``steps`` are of another supernet or of other images.
    """
    space = supernet.space
    if precision not in _HOW:
        raise SearchError(
            f"losses are measured of files calibrated on images ({', '.join(_HOW)}), but the precision is '{precision}'; search in it "
            "without losses"
        )
    if not LEAST_NETWORKS <= nets <= space.size:
        raise SearchError(
            f"losses of {space.name} are measured of {LEAST_NETWORKS} to {space.size} networks, but nets is {nets}; choose a number between"
        )
    check_data(task, space.num_classes, data.selection)
    fitting, judging = divided(data.selection)
    how, archs = _HOW[precision], sample_stratified(space, nets, rng)
    of_what = {"supernet_digest": digest_of_tensors(supernet.state_dict()), "images_digest": digest_of_images(data.selection, data.train)}
    steps.begin({**of_what, "labels": digest_of_labels(data.selection), "precision": precision, "how": str(how), "metric": task.metric})
    scores = []
    for done, arch in enumerate(archs):
        progress(done, nets, f"quantizing {nets} networks")
        work = partial(scores_in_both, supernet, arch, data.train, fitting, judging, how, task)
        scores.append(steps.once(json.dumps(arch.to_json()), work, Mapping[str, float]))
    progress(nets, nets, "fitting")
    return QuantizationLoss.fit(
        space,
        archs,
        np.array([[each["float_score"], each["score"]] for each in scores]),
        precision=precision,
        metric=task.metric,
        how=str(how),
        fitted_images=len(fitting),
        judging_images=len(judging),
        instructions=instructions(),
    )


def scores_in_both(
    supernet: Supernet, arch: Arch, training: Images, fitting: Images, judging: Images, how: Quantization, task: Task
) -> dict[str, float]:
    """Scores of a network in float32 (``float_score``) and quantized (``score``), both of its ONNX file on the CPU.

    Args:
        supernet: the supernet.
        arch: the network.
        training: images that calibrate its batch norms.
        fitting: images that calibrate the ranges of activations.
        judging: images of the scores.
        how: quantization method.
        task: task of the supernet.

    Raises:
        ExportError: the network cannot be quantized.
    """
    network = supernet.extract(arch)
    calibrate(network, training, resolution=arch.resolution, images=CALIBRATION_IMAGES)
    shape = (1, supernet.space.in_channels, *sides(arch.resolution))
    model = to_model(network.cpu().eval(), shape, dynamic_batch=True)
    images = list(inputs_of(fitting, arch.resolution))
    files = {"float_score": model, "score": quantize(repaired(model, images), images, how)}
    return {name: evaluate(FileNetwork(file), judging, resolution=arch.resolution, task=task) for name, file in files.items()}
