"""Quantizes a bundle's network to int8 and judges it on images: writes ``network-int8.onnx`` and the card's entry about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ofa.data import Images as Data
from ofa.data.batches import batches
from ofa.errors import ExportError
from ofa.exporting.bundle import Bundle
from ofa.exporting.onnx import session_of, to_model
from ofa.exporting.precision import write_model
from ofa.exporting.quantization.choosing import MOST_LOSS, Quantized, best_quantized, candidates
from ofa.exporting.quantization.processor import instructions
from ofa.exporting.quantization.tuning import Tuning
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.training.evaluation import check_data, evaluate

__all__ = ["FEWEST_IMAGES", "SIGNED", "FileNetwork", "divided", "inputs_of", "quantize_bundle"]

SIGNED = "int8-signed"
"""Name of the precision of a bundle's int8 file for TensorRT."""

FEWEST_IMAGES = 32
"""Least number of images for calibration: with fewer, ranges of activations depend on single images."""
_FITTED = 128
"""The most images for calibration; the others judge."""


class FileNetwork(nn.Module):
    """An ONNX model as a torch module, computed by ONNX Runtime on this machine's CPU.

    Args:
        model: a model with one input [B, C, H, W] and open batch size.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._session = session_of(model)
        self._input = model.graph.input[0].name

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """The logits."""
        return torch.from_numpy(self._session.run(None, {self._input: images_BCHW.contiguous().numpy()})[0])


def quantize_bundle(
    bundle: Bundle,
    data: Data,
    path: Path,
    *,
    signed: bool = False,
    batch: int | None = None,
    most_loss: float = MOST_LOSS,
    tuning: Tuning | None = None,
    progress: Progress = silent,
) -> Quantized:
    """Write the best int8 file of a bundle's network, and note the result on the bundle's card.

    Args:
        bundle: the network's bundle.
        data: images of its classes that are used neither for training nor for testing. 128 of them (half if there are fewer than 256)
            calibrate the ranges of activations; the others judge.
        path: path of the file. The card notes only the bundle's own file, ``bundle.file`` of ``int8`` or ``int8-signed``.
        signed: whether activations are int8 with zero point 0, as TensorRT requires; that file has a name of its own.
        batch: images per call; None leaves the batch size open.
        most_loss: largest loss of the score (0..1) against the float32 network on the same images.
        tuning: trains the weights of the file, on images of its own, if it loses more; the bundle's weights stay. None trains nothing.
        progress: told of each trial.

    Returns:
        The quantized network, and all ways that were tried.

    Raises:
        DataError: the data has other classes, or none of it can be read.
        ExportError: there are too few images, or the network loses more in every way.
    """
    data = data.normalized((bundle.mean, bundle.std))
    fitting, judging = divided(data)
    task = bundle.signature.get_task()
    check_data(task, bundle.space.num_classes, data)
    network = bundle.network()
    resolution = bundle.arch.resolution
    model = to_model(network, bundle.input_shape, metadata=bundle.metadata, dynamic_batch=True)
    name = SIGNED if signed else "int8"
    found = best_quantized(
        model,
        list(inputs_of(fitting, resolution)),
        lambda file: evaluate(FileNetwork(file), judging, resolution=resolution, task=task),
        ways=candidates(signed=signed),
        most_loss=most_loss,
        tuning=tuning and replace(tuning, task=task, data=tuning.data.normalized((bundle.mean, bundle.std))),
        progress=progress,
    )
    write_model(bundle, found.model, path, precision=name, batch=1 if signed else batch, of_photos=not signed)
    if bundle.is_own(path, name):
        facts = {**found.to_json(), "metric": task.metric, "fitted_images": len(fitting), "judging_images": len(judging)}
        facts["file_bytes"] = path.stat().st_size
        if tuning is not None and any(each.tuned_epochs for each in found.tried):
            facts |= {"tuning_images": len(tuning.data), "learning_rate": tuning.learning_rate}
        bundle.note(precisions={**bundle.card_now().precisions, name: {**facts, "instructions": instructions()}})
    return found


def divided(data: Data) -> tuple[Data, Data]:
    """Split images into a part for calibration and a part for judging.

    Calibration images are spread evenly over the data, because data is often ordered by class.

    Raises:
        ExportError: there are too few images.
    """
    if len(data) < 2 * FEWEST_IMAGES:
        raise ExportError(
            f"int8 needs at least {2 * FEWEST_IMAGES} images, half to calibrate it and half to judge it, but there are {len(data)}; give "
            "more images of the network's classes that it was not trained on"
        )
    judges = torch.ones(len(data), dtype=torch.bool)
    judges[torch.linspace(0, len(data) - 1, min(_FITTED, len(data) // 2)).long()] = False
    return data.subset((~judges).nonzero().flatten()), data.subset(judges.nonzero().flatten())


def inputs_of(data: Data, resolution: Resolution) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Inputs of a network's file, [1, C, H, W] each."""
    for x_BCHW, _ in batches(data, batch_size=1, resolution=resolution):
        yield x_BCHW.contiguous().numpy()
