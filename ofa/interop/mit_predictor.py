"""MIT's accuracy predictor for MobileNetV3 subnets: a multi-layer perceptron 128-400-400-400-1 on one-hot genes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.errors import SpaceError, WeightsError
from ofa.families import named_space
from ofa.interop.checkpoints import open_checkpoint, unwrapped_key
from ofa.resolution import Resolution, pixels, resolutions_to_json
from ofa.space import Space
from ofa.weights import SPACE_KEY, check_finite, read_weights, space_header, write_weights

__all__ = ["MitPredictor", "load_predictor"]

_SPACE = "ofa-mbv3-w1.2"
_KIND = "mit-predictor"

_GENES = (("kernel", (3, 5, 7)), ("expand", (3, 4, 6)))
_DEPTHS = (2, 3, 4)
_STAGES = 5
_CHUNK = 1 << 10
"""Networks per chunk, so that their activations stay in the cache."""
_RESOLUTIONS = range(112, 225, 16)
_SIZES = (128, 400, 400, 400, 1)

_FIRST_RESOLUTION = 2 * 3 * _STAGES * _DEPTHS[-1]
"""Index of the first one-hot feature of the resolution, after the features of all kernels and all expand ratios."""


class MitPredictor:
    """Predicts the ImageNet top-1 accuracy of subnets of MIT's MobileNetV3 supernets, as a fraction.

    It was fitted to accuracies on images held out from the training set: its predictions are about 0.059 above the accuracy on
    ImageNet's validation set. Use them to rank networks; do not report them as accuracies.

    Its features are kernels, expand ratios, depths and the resolution, but not widths, so it cannot check that the space has the right
    widths.

    Args:
        space: a MobileNetV3 space with MIT's choices, or a subset of them.
        layers: weight [outputs, inputs] and bias [outputs] of each layer.

    Raises:
        SpaceError: the space has choices that the predictor does not know.
        WeightsError: the layers do not have the shapes of MIT's predictor.
    """

    def __init__(self, space: Space, layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> None:
        _check_space(space)
        if [(weight.shape, bias.shape) for weight, bias in layers] != [((o, i), (o,)) for i, o in pairwise(_SIZES)]:
            raise WeightsError(
                f"MIT's predictor has layers of {'-'.join(map(str, _SIZES))}, "
                f"but these are {[list(weight.shape) for weight, _ in layers]}; "
                "give the file acc_predictor.pth"
            )
        self.space = space
        self._layers = tuple(
            (torch.from_numpy(np.asarray(weight, np.float32)), torch.from_numpy(np.asarray(bias, np.float32))) for weight, bias in layers
        )
        self._inputs = _inputs(space)
        known: dict[Resolution, int] = {each: _FIRST_RESOLUTION + _RESOLUTIONS.index(each) for each in self.resolutions}
        self._resolution_features = np.array([known.get(each, -1) for each in space.resolutions])

    @property
    def space_name(self) -> str:
        """Name of the space."""
        return self.space.name

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The resolutions of the space that the predictor knows, in pixels."""
        return tuple(each for each in self.space.resolutions if isinstance(each, int) and each in _RESOLUTIONS)

    @property
    def provenance(self) -> dict[str, Any]:
        """Origin of the predictions, as JSON values."""
        return {"source": "predicted", "model": "MIT once-for-all, perceptron 128-400-400-400-1", "above_imagenet_validation": 0.059}

    def __call__(self, archs: Sequence[Arch], /) -> Floats:
        """Same as ``predict``."""
        return self.predict(archs)

    def predict(self, archs: Sequence[Arch]) -> Floats:
        """Predict accuracies of archs.

        Returns:
            Accuracies [N], 0..1.

        Raises:
            ArchError: an arch is of another space.
            SpaceError: the predictor does not know an arch's resolution.
        """
        rows_NC = np.array([self.space.encode(arch) for arch in archs], dtype=np.int64)
        return self.predict_rows(rows_NC.reshape(len(archs), len(self.space.columns)))

    def predict_rows(self, rows_NC: NDArray[np.int64]) -> Floats:
        """Predict accuracies of encoded archs.

        Args:
            rows_NC: as from ``space.encode_all``.

        Returns:
            Accuracies [N], 0..1.

        Raises:
            SpaceError: the predictor does not know an arch's resolution.
        """
        x_NF = torch.from_numpy(self.features(rows_NC))
        with torch.inference_mode():
            parts = [self._perceptron(part_NF) for part_NF in x_NF.split(_CHUNK)]
        return torch.cat(parts).double().numpy() if parts else np.empty(0)

    def _perceptron(self, x_NF: torch.Tensor) -> torch.Tensor:
        for weight, bias in self._layers[:-1]:
            x_NF = torch.relu_(functional.linear(x_NF, weight, bias))
        return functional.linear(x_NF, *self._layers[-1])[:, 0]

    of_rows = predict_rows

    def interval_of_rows(self, rows_NC: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """NaN for both ends [N]: the perceptron's error for single networks is unknown."""
        unknown_N = np.full(len(rows_NC), np.nan)
        return unknown_N, unknown_N

    def features(self, rows_NC: NDArray[np.int64]) -> NDArray[np.float32]:
        """Input features of the perceptron for encoded archs.

        One-hot kernels of the 20 slots (3, 5, 7), one-hot expand ratios of the slots (3, 4, 6), one-hot resolution (112, 128 .. 224);
        slots of skipped blocks are zero.

        Returns:
            [N, 128].

        Raises:
            SpaceError: the predictor does not know an arch's resolution.
        """
        resolution_N = self._resolution_features[rows_NC[:, 0]]
        unknown = np.flatnonzero(resolution_N < 0)
        if len(unknown):
            raise SpaceError(
                f"MIT's predictor knows the resolutions {list(_RESOLUTIONS)}, but a network has "
                f"{pixels(self.space.resolutions[rows_NC[unknown[0], 0]])}; "
                "restrict the space to them, for example space.restrict(resolution=[160, 176, 192, 208, 224])"
            )
        # An extra column after the last collects the features of skipped blocks and is dropped.
        x_NF = np.zeros((len(rows_NC), _SIZES[0] + 1), np.float32)
        columns, features_SV = self._inputs
        active_NS = self.space.active(rows_NC)[:, columns]
        set_NS = np.where(active_NS, features_SV[np.arange(len(columns)), rows_NC[:, columns]], _SIZES[0])
        x_NF[np.arange(len(rows_NC))[:, None], set_NS] = 1
        x_NF[np.arange(len(rows_NC)), resolution_N] = 1
        return np.ascontiguousarray(x_NF[:, : _SIZES[0]])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor as a safetensors file for ``load_predictor``.

        Raises:
            FileError: the file cannot be written.
        """
        tensors = {}
        for index, (weight, bias) in enumerate(self._layers):
            tensors[f"{2 * index}.weight"], tensors[f"{2 * index}.bias"] = weight, bias
        write_weights(tensors, path, {"kind": _KIND, **space_header(self.space)})


def load_predictor(path: str | os.PathLike[str], space: Space | None = None) -> MitPredictor:
    """Read MIT's ``acc_predictor.pth``, or a file of ``MitPredictor.save``.

    Args:
        path: of the file; unless it ends in ``.safetensors``, it is read as a file of ``torch.save``, with ``weights_only=True``.
        space: of the networks to predict; by default the file's space, or ``ofa-mbv3-w1.2`` for MIT's file, as in MIT's tutorial.

    Raises:
        FileError: the file does not exist.
        WeightsError: the file is damaged or has other content.
        SpaceError: the space has choices that the predictor does not know.
    """
    if Path(path).suffix == ".safetensors":
        weights = read_weights(path, kind=_KIND)
        # Files of earlier versions have only the space's name.
        stored = weights.space() if SPACE_KEY in weights.metadata else named_space(weights.metadata["space"])
        return MitPredictor(space or stored, _layers(weights.tensors, path))
    tensors = {unwrapped_key(key): tensor for key, tensor in open_checkpoint(path).tensors.items()}
    return MitPredictor(space or named_space(_SPACE), _layers(tensors, path))


def _layers(tensors: Mapping[str, Any], path: str | os.PathLike[str]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    names = [(f"{2 * index}.weight", f"{2 * index}.bias") for index in range(len(_SIZES) - 1)]
    wanted = {name for pair in names for name in pair}
    if set(tensors) != wanted or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        found = ", ".join(list(map(str, tensors))[:3])
        raise WeightsError(
            f"'{path}' must hold the {len(wanted)} tensors 0.weight .. 6.bias of MIT's predictor, but holds {len(tensors)} entries "
            f"({found} ..); give the file acc_predictor.pth"
        )
    check_finite(tensors, f"'{path}'")
    return [(tensors[weight].float().numpy(), tensors[bias].float().numpy()) for weight, bias in names]


def _inputs(space: Space) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The columns of a row that are features [S], and for each the feature to set by the index of the gene's value [S, V]."""
    columns, features = [], []
    numbers = {gene.name: c for c, gene in enumerate(space.columns)}
    for g, (name, known) in enumerate(_GENES):
        for s, stage in enumerate(space.stages):
            values = next(gene.values for gene in stage.genes if gene.name == name)
            for b in range(stage.depths[-1]):
                first = 3 * (_STAGES * _DEPTHS[-1] * g + _DEPTHS[-1] * s + b)
                columns.append(numbers[f"stages.{s}.{b}.{name}"])
                features.append([first + known.index(int(value)) for value in values] + [0] * (len(known) - len(values)))
    return np.array(columns), np.array(features)


def _check_space(space: Space) -> None:
    genes = [[(gene.name, set(gene.values)) for gene in stage.genes] for stage in space.stages]
    known = all([name for name, _ in of] == [name for name, _ in _GENES] for of in genes) and all(
        values <= set(those) for of in genes for (_, values), (_, those) in zip(of, _GENES, strict=True)
    )
    depths = len(space.stages) == _STAGES and all(set(stage.depths) <= set(_DEPTHS) for stage in space.stages)
    if not (known and depths and not space.network):
        raise SpaceError(
            f"MIT's predictor knows 5 stages of 2 to 4 blocks with kernels 3, 5, 7 and expand ratios 3, 4, 6, but {space.name} has others; "
            "use it with ofa-mbv3-w1.0 or ofa-mbv3-w1.2"
        )
    if not set(space.resolutions) & set(_RESOLUTIONS):
        raise SpaceError(
            f"MIT's predictor knows the resolutions {list(_RESOLUTIONS)}, but {space.name} has {resolutions_to_json(space.resolutions)}; "
            "use it with ofa-mbv3-w1.0 or ofa-mbv3-w1.2"
        )
