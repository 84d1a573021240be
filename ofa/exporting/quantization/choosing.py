"""Finds the best int8 file of a network: judges several ways on images; if all lose too much, keeps layers in float or tunes weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from ofa.errors import ExportError
from ofa.exporting.onnx import session_of
from ofa.exporting.quantization.floats import in_floats, layers_of
from ofa.exporting.quantization.processor import saturates
from ofa.exporting.quantization.repair import repaired
from ofa.exporting.quantization.static import Images, Quantization, quantize
from ofa.exporting.quantization.tuning import Tuning
from ofa.progress import Progress, silent
from ofa.telemetry import import_without_telemetry

__all__ = ["CANDIDATES", "MOST_LOSS", "Quantized", "Tried", "best_quantized", "candidates", "outputs_of"]

MOST_LOSS = 0.01
"""Default of the largest loss of the score (0..1): one percentage point."""

CANDIDATES = (
    Quantization(),
    Quantization(clipping="percentile"),
    Quantization(clipping="entropy"),
    Quantization(per_channel=False),
    Quantization(per_channel=False, clipping="percentile"),
)
"""The ways that are tried with libraries of every installation."""

_OF_SEVEN_BITS = tuple(Quantization(reduce_range=True, clipping=each) for each in ("minmax", "percentile"))
_OF_NNCF = tuple(Quantization(library="nncf", bias_correction=each) for each in ("fast", "full"))
_SENSITIVITY_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One way to quantize a network, and its score.

    Attributes:
        how: settings of the quantization.
        floats: names of the layers that stay in float32.
        tuned_epochs: epochs in which the weights were tuned; 0 for none.
        score: the task's score (0..1) on the judging images.
    """

    how: Quantization
    floats: tuple[str, ...] = ()
    tuned_epochs: int = 0
    score: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"how": str(self.how), "float_layers": list(self.floats), "tuned_epochs": self.tuned_epochs, "score": self.score}


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A network in int8.

    Attributes:
        model: the quantized model.
        best: the way in which it was quantized.
        float_score: score (0..1) of the float32 model on the same images.
        tried: all ways that were tried, in order.
        impossible: ways in which this network cannot be quantized, with the error of their library.
        layers: number of the network's layers.
    """

    model: onnx.ModelProto
    best: Tried
    float_score: float
    tried: tuple[Tried, ...]
    impossible: Mapping[Quantization, str] = field(default_factory=dict)
    layers: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values for a card."""
        return {
            **self.best.to_json(),
            "float_score": self.float_score,
            "layers": self.layers,
            "tried": [each.to_json() for each in self.tried],
            "impossible": [{"how": str(how), "reason": reason} for how, reason in self.impossible.items()],
        }


def candidates(*, signed: bool = False) -> tuple[Quantization, ...]:
    """All ways to quantize that can be tried on this machine.

    They include 7-bit weights if sums overflow on this processor, and the ways of nncf if it is installed.

    Args:
        signed: whether activations must be int8 with zero point 0, as for TensorRT, whose sums do not overflow.
    """
    found = (*CANDIDATES, *_OF_SEVEN_BITS) if saturates() and not signed else CANDIDATES
    try:
        import_without_telemetry("nncf")
    except ImportError:
        pass
    else:
        found = found if signed else (*found, *_OF_NNCF)
    return tuple(replace(each, signed=signed) for each in found)


def best_quantized(
    model: onnx.ModelProto,
    images: Images,
    score: Callable[[onnx.ModelProto], float],
    *,
    ways: Sequence[Quantization] | None = None,
    most_loss: float = MOST_LOSS,
    tuning: Tuning | None = None,
    progress: Progress = silent,
) -> Quantized:
    """Quantize a network in several ways, and keep the best one.

    If it loses too much, layers are put back to float32; if that does not suffice, weights are tuned, and layers put back again.

    Args:
        model: the float32 model; for a tuning its batch size must be open.
        images: inputs for calibration.
        score: returns a file's score (0..1), on images that are used for nothing else.
        ways: the ways to try; None is ``candidates()``.
        most_loss: largest loss of the score (0..1) against ``model``.
        tuning: trains the weights; None leaves them as they are.
        progress: told of each trial.

    Returns:
        The best quantized network, and all ways that were tried.

    Raises:
        ExportError: the loss is larger in every way (the message has the numbers), or no way is possible, for example because images do
            not fit.
    """
    trials = _Trials(repaired(model, images), images, score, score(model), most_loss, progress)
    found = trials.of_ways(candidates() if ways is None else ways)
    if not trials.is_enough(found):
        found = trials.with_floats(found)
    if tuning is not None and not trials.is_enough(found):
        found = trials.tuned(tuning)
        if not trials.is_enough(found):
            found = trials.with_floats(found)
    layers = len(layers_of(model))
    if not trials.is_enough(found):
        best = max(trials.tried, key=lambda each: each.score)
        remedy = "tune its weights on training images (tuning_data, --tune-data), allow more" if tuning is None else "allow more"
        raise ExportError(
            f"a network in int8 may lose at most {most_loss:.1%} of its score, but this one falls from {trials.float_score:.2%} to "
            f"{best.score:.2%} at best, with {len(best.floats)} of {layers} layers in float32"
            f"{f' after tuning for {best.tuned_epochs} epochs' * bool(best.tuned_epochs)}; {remedy}, or ship it in float32"
        )
    return Quantized(
        model=found.model,
        best=found.tried,
        float_score=trials.float_score,
        tried=tuple(trials.tried),
        impossible=trials.impossible,
        layers=layers,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _File:
    """A quantized model, its float32 source, and its score."""

    model: onnx.ModelProto
    source: onnx.ModelProto
    tried: Tried


class _Trials:
    """Makes and judges quantized files of one network; arguments are as of ``best_quantized``, but ``source`` is repaired."""

    def __init__(
        self,
        source: onnx.ModelProto,
        images: Images,
        score: Callable[[onnx.ModelProto], float],
        float_score: float,
        most_loss: float,
        progress: Progress,
    ) -> None:
        self._source, self._images, self._score, self._progress = source, images, score, progress
        self.float_score, self._most_loss = float_score, most_loss
        self.tried: list[Tried] = []
        """All ways that were tried, in order."""
        self.impossible: dict[Quantization, str] = {}

    def is_enough(self, file: _File) -> bool:
        """Whether a file loses at most ``most_loss``."""
        return self.float_score - file.tried.score <= self._most_loss

    def of_ways(self, ways: Sequence[Quantization]) -> _File:
        """The best file of several ways to quantize."""
        files = list[_File]()
        for number, how in enumerate(ways):
            self._progress(number, len(ways), f"quantizing by {how}")
            try:
                made = quantize(self._source, self._images, how)
            except ExportError as error:  # a library may fail on a network that others can quantize
                if number + 1 == len(ways) and not files:
                    raise
                self.impossible[how] = str(error)
                continue
            files.append(self._judged(made, self._source, how=how))
        return max(files, key=_score)

    def with_floats(self, file: _File) -> _File:
        """The first sufficient file with more and more layers in float32; the best file if none suffices."""
        order = _by_loss(file, self._source, self._images[:_SENSITIVITY_IMAGES], self._progress)
        counts, files = list(_counts(len(order))), [file]
        for step, count in enumerate(counts):
            self._progress(step, len(counts), f"judging the network with {count} of {len(order)} layers in float32")
            names = tuple(order[:count])
            made = in_floats(file.model, file.source, names)
            files.append(self._judged(made, file.source, how=file.tried.how, floats=names, tuned_epochs=file.tried.tuned_epochs))
            if self.is_enough(files[-1]):
                return files[-1]
        return max(files, key=_score)

    def tuned(self, tuning: Tuning) -> _File:
        """A file with tuned weights, quantized in the best way of onnxruntime: it rounds to nearest and corrects nothing afterwards."""
        ours = [each for each in self.tried if each.how.library == "onnxruntime" and not each.floats]
        how = max(ours, key=lambda each: each.score).how if ours else Quantization()
        trained = tuning.tune(self._source, quantize(self._source, self._images, how), self._progress)
        source = repaired(trained, self._images)
        return self._judged(quantize(source, self._images, how), source, how=how, tuned_epochs=tuning.epochs)

    def _judged(self, model: onnx.ModelProto, source: onnx.ModelProto, **about: Any) -> _File:
        self.tried.append(Tried(score=self._score(model), **about))
        return _File(model=model, source=source, tried=self.tried[-1])


def _score(file: _File) -> float:
    return file.tried.score


def _counts(layers: int) -> Iterator[int]:
    """Numbers of layers to put back: 1, 2, 4, ... up to half of them; with more, int8 is not worthwhile."""
    count = 1
    while count < layers / 2:
        yield count
        count *= 2
    yield max(1, layers // 2)


def _by_loss(file: _File, model: onnx.ModelProto, images: Images, progress: Progress) -> list[str]:
    """Names of the layers, most sensitive first: by the output error that remains when this layer alone is put back to float32."""
    wanted = outputs_of(model, images)
    layers, errors = layers_of(model), dict[str, float]()
    for number, name in enumerate(layers):
        progress(number, len(layers), f"measuring the loss from {name}")
        errors[name] = float(np.square(outputs_of(in_floats(file.model, file.source, [name]), images) - wanted).mean())
    return sorted(layers, key=errors.__getitem__)


def outputs_of(model: onnx.ModelProto, images: Images) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Outputs of ONNX Runtime on the CPU for all images, in order."""
    session = session_of(model)
    (given,) = session.get_inputs()
    return np.concatenate([session.run(None, {given.name: image})[0] for image in images])
