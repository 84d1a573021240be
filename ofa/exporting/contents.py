"""What is in a bundle: the values that its files hold, and where they lie."""

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
    """What a bundle holds.

    Attributes:
        folder: where it is.
        space: what the network is of, for as many classes.
        arch: the network.
        card: what is known of it.
        signature: how the network sees images, and what its outputs mean.
    """

    folder: Path
    space: Space
    arch: Arch
    card: Card
    signature: Signature

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class, in the order of the logits."""
        return self.signature.class_names

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each colour channel on the scale 0..1."""
        return self.signature.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Of each colour channel on the scale 0..1."""
        return self.signature.std

    @property
    def rule(self) -> ImageRule:
        """How an image becomes pixels."""
        return self.signature.rule

    @property
    def onnx_path(self) -> Path:
        """The network for any runtime."""
        return self.file(FLOAT)

    def file(self, precision: str) -> Path:
        """Where the network's ONNX file of a precision stands; of others than ``fp32`` it is there once it was exported."""
        return self.folder / file_of(precision)

    def photo_file(self, precision: str = FLOAT) -> Path:
        """Where the file of a precision stands that takes a photo and gives probabilities."""
        return self.folder / file_of(precision, takes_photos=True)

    def is_own(self, path: str | os.PathLike[str], precision: str) -> bool:
        """Whether a path, however it is written, is that of the bundle's file of a precision."""
        return Path(path).resolve() == self.file(precision).resolve()

    @property
    def engines(self) -> Path:
        """The folder of engines."""
        return self.folder / ENGINES

    @property
    def metadata(self) -> dict[str, str]:
        """What the files of the network carry: arch, classes and normalization, as text."""
        return self.signature.header(self.space, self.arch)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """[1, C, H, W] of one image."""
        return (1, len(self.mean), *sides(self.arch.resolution))

    def network(self) -> nn.Sequential:
        """The network with its weights, in evaluation mode, built anew from the arch.

        Raises:
            WeightsError: the weights are damaged, not finite, or not those of the arch.
        """
        weights = read_weights(self.folder / WEIGHTS, kind=KIND)
        network = empty_network(lower(self.space, self.arch))
        check_tensors(weights.tensors, network, f"'{weights.path}'")
        check_finite(weights.tensors, f"'{weights.path}'")
        # Copies, because tensors lie in the file at any address, and oneDNN's kernels for unaligned weights round otherwise.
        network.load_state_dict({name: tensor.clone() for name, tensor in weights.tensors.items()}, assign=True)
        return network.eval()

    def engine_path(self, flavour: str, gpus: Sequence[str] = (), *, precision: str = "fp32") -> Path:
        """Where an engine of this network stands: named by what builds it, the GPUs and the precision."""
        return self.engines / f"{'-'.join([flavour, *gpus, *[precision] * (precision != FLOAT)])}.engine"
