"""Writing the ONNX files of a bundle's network: each is run before it takes its place, and may have one beside it that takes photos."""

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
"""How far a file in float32 may be from its network, as a share of the outputs' scale."""


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
    """Write a model of a bundle's network that nobody else knows yet, or while it may be changed, and run it before it takes its place.

    Args:
        bundle: of the network.
        model: with an open batch.
        path: the file.
        companion: the file that takes photos; None writes none.
        batch: images a call; None leaves them open.
        network: that the file must compute; None where something else has judged that.
        tolerance: how far the file may be from the network, as a share of the outputs' scale.
        generator: where the random inputs come from.

    Returns:
        The largest difference of the outputs; None without ``network``.

    Raises:
        ExportError: a file computes something else.
        FileError: it cannot be written.
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
