"""The contents of a bundle: values of its files, and their paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ofa.arch import Arch
from ofa.blocks import empty_network
from ofa.data import ImageRule
from ofa.exporting.bundle_checks import check_tensors
from ofa.exporting.card import Card
from ofa.exporting.layout import ENGINES, FLOAT, KIND, WEIGHTS, Signature, file_of
from ofa.families import lower
from ofa.resolution import sides
from ofa.space import Space
from ofa.weights import check_finite, read_weights

__all__ = ["Contents"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contents:
    """The contents of a bundle.

    Attributes:
        folder: the bundle's folder.
        space: the network's space, for its number of classes.
        arch: the network's arch.
        card: the network's card.
        signature: preprocessing of images, and meaning of the outputs.
    """

    folder: Path
    space: Space
    arch: Arch
    card: Card
    signature: Signature

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each class, in the order of the logits."""
        return self.signature.class_names

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each colour channel (images in 0..1)."""
        return self.signature.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each colour channel (images in 0..1)."""
        return self.signature.std

    @property
    def rule(self) -> ImageRule:
        """How an image file becomes pixels."""
        return self.signature.rule

    @property
    def onnx_path(self) -> Path:
        """Path of the float32 ONNX file, which takes normalized images."""
        return self.file(FLOAT)

    def file(self, precision: str) -> Path:
        """Path of the network's ONNX file of a precision; files other than ``fp32`` exist once exported."""
        return self.folder / file_of(precision)

    def photo_file(self, precision: str = FLOAT) -> Path:
        """Path of the ONNX file of a precision that maps a photo to probabilities."""
        return self.folder / file_of(precision, takes_photos=True)

    def is_own(self, path: str | os.PathLike[str], precision: str) -> bool:
        """Whether a path leads to the bundle's file of a precision, however the path is written."""
        return Path(path).resolve() == self.file(precision).resolve()

    @property
    def engines(self) -> Path:
        """The folder of engines."""
        return self.folder / ENGINES

    @property
    def metadata(self) -> dict[str, str]:
        """Header of the network's files: arch, classes and normalization, as text."""
        return self.signature.header(self.space, self.arch)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape [1, C, H, W] of one image."""
        return (1, len(self.mean), *sides(self.arch.resolution))

    def network(self) -> nn.Sequential:
        """The network with its weights, in evaluation mode, built anew from the arch.

        Raises:
            WeightsError: the weights are damaged, not finite, or not of the arch.
        """
        weights = read_weights(self.folder / WEIGHTS, kind=KIND)
        network = empty_network(lower(self.space, self.arch))
        check_tensors(weights.tensors, network, f"'{weights.path}'")
        check_finite(weights.tensors, f"'{weights.path}'")
        # Copies, because tensors in the file may be unaligned, and oneDNN's kernels for unaligned weights round differently.
        network.load_state_dict({name: tensor.clone() for name, tensor in weights.tensors.items()}, assign=True)
        return network.eval()

    def engine_path(self, flavour: str, gpus: Sequence[str] = (), *, precision: str = "fp32") -> Path:
        """Path of an engine of this network, named by flavour, GPUs and precision."""
        return self.engines / f"{'-'.join([flavour, *gpus, *[precision] * (precision != FLOAT)])}.engine"
