"""A bundle's network in int8, judged on images: the file ``network-int8.onnx`` of the bundle, and what its card says of it."""

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
"""How a bundle calls its file for TensorRT."""

FEWEST_IMAGES = 32
"""With fewer the ranges of activations are those of single images."""
_FITTED = 128
"""Images that ranges are fitted to; the others judge."""


class FileNetwork(nn.Module):
    """An ONNX model as a module: what ONNX Runtime computes of images on this machine's processor.

    Args:
        model: of one input [B, C, H, W] whose batch is open.
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
    """Write the best int8 file of a bundle's network; the bundle's card says what came of it.

    Args:
        bundle: whose network.
        data: images of its classes that it was not trained on, and is not tested on: 128 of them fit the ranges of activations, or
            half of them where there are fewer than 256; the others judge.
        path: the file; its card tells of the bundle's own, ``bundle.file`` of ``int8`` or ``int8-signed``.
        signed: whether activations are int8 with a zero of 0, as TensorRT takes them: that file has a name of its own.
        batch: images a call; None leaves them open.
        most_loss: of the score, beside the float32 network's on the same images.
        tuning: trains the weights of the file where it loses more, on images of its own; the bundle's weights stay. None trains nothing.
        progress: told of each trial.

    Raises:
        DataError: the data has other classes, or nothing of it can be read.
        ExportError: there are too few images, or the network loses more whatever is done.
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
    """The images that fit a quantized file, from all over, for data is often in the order of its classes, and those that judge it.

    Raises:
        ExportError: there are too few.
    """
    if len(data) < 2 * FEWEST_IMAGES:
        raise ExportError(
            f"int8 needs at least {2 * FEWEST_IMAGES} images, half of them to fit it and half to judge it, but there are {len(data)}; give "
            "more images of the network's classes that it was not trained on"
        )
    judges = torch.ones(len(data), dtype=torch.bool)
    judges[torch.linspace(0, len(data) - 1, min(_FITTED, len(data) // 2)).long()] = False
    return data.subset((~judges).nonzero().flatten()), data.subset(judges.nonzero().flatten())


def inputs_of(data: Data, resolution: Resolution) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Images as a network's file takes them, one at a time."""
    for x_BCHW, _ in batches(data, batch_size=1, resolution=resolution):
        yield x_BCHW.contiguous().numpy()
