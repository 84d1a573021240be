"""Writes the ONNX files of a bundle's network: each is verified before it is put in place, and may have a companion that takes photos."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn

from ofa.exporting.contents import Contents
from ofa.exporting.onnx import at_batch, verify_outputs, write_sealed
from ofa.exporting.photo import check_photo, of_a_photo
from ofa.files import replacing

__all__ = ["TOLERANCE", "put_model"]

TOLERANCE = 1e-4
"""Largest difference between a float32 file and its network, relative to the outputs' scale."""


def put_model(
    bundle: Contents,
    model: onnx.ModelProto,
    path: Path,
    *,
    companion: Path | None,
    batch: int | None,
    network: nn.Module | None,
    tolerance: float = TOLERANCE,
    generator: torch.Generator,
) -> float | None:
    """Write and verify an ONNX file of a bundle's network. The bundle must be new, or locked by ``Bundle.changing``.

    Args:
        bundle: the network's bundle.
        model: the model, with open batch size.
        path: path of the file.
        companion: path of the file that takes photos; None writes none.
        batch: images per call; None leaves the batch size open.
        network: the network whose outputs the file must reproduce; None skips the comparison, if the model was checked otherwise.
        tolerance: largest difference between file and network, relative to the outputs' scale.
        generator: draws the random inputs.

    Returns:
        The largest relative difference of the outputs; None without ``network``.

    Raises:
        ExportError: a file's outputs differ.
        FileError: a file cannot be written.
    """
    difference = None
    with replacing(path) as temporary:
        write_sealed(model if batch is None else at_batch(model, batch), temporary)
        if network is not None:
            shape = (batch or 1, *bundle.input_shape[1:])
            difference = verify_outputs(network, temporary, shape, generator=generator, tolerance=tolerance)
        if companion is not None:
            of_photo = of_a_photo(model, bundle.signature)
            check_photo(of_photo, bundle.signature, generator=generator)
            with replacing(companion) as beside:
                write_sealed(of_photo, beside)
    return difference
