"""The best int8 file of a network: ways to quantize it are judged on images; if none will do, layers stay float, or weights are tuned."""

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
"""Of the score, where nothing else is asked: one point."""

CANDIDATES = (
    Quantization(),
    Quantization(clipping="percentile"),
    Quantization(clipping="entropy"),
    Quantization(per_channel=False),
    Quantization(per_channel=False, clipping="percentile"),
)
"""What is tried with the libraries that every installation has."""

_OF_SEVEN_BITS = tuple(Quantization(reduce_range=True, clipping=each) for each in ("minmax", "percentile"))
_OF_NNCF = tuple(Quantization(library="nncf", bias_correction=each) for each in ("fast", "full"))
_SENSITIVITY_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One way to quantize a network, and what came of it.

    Attributes:
        how: it was quantized.
        floats: names of the layers that stayed in float32.
        tuned_epochs: passes over images in which its weights were trained; 0 for none.
        score: of the task on the images, 0..1.
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
        model: the file.
        best: how it was made.
        float_score: of the float32 file on the same images.
        tried: all ways, in their order.
        impossible: the ways that this network cannot be quantized in, by what their library reports.
        layers: how many the network has.
    """

    model: onnx.ModelProto
    best: Tried
    float_score: float
    tried: tuple[Tried, ...]
    impossible: Mapping[Quantization, str] = field(default_factory=dict)
    layers: int

    def to_json(self) -> dict[str, Any]:
        """What a card says of it."""
        return {
            **self.best.to_json(),
            "float_score": self.float_score,
            "layers": self.layers,
            "tried": [each.to_json() for each in self.tried],
            "impossible": [{"how": str(how), "reason": reason} for how, reason in self.impossible.items()],
        }


def candidates(*, signed: bool = False) -> tuple[Quantization, ...]:
    """All ways that can be tried here: weights of 7 bits too where the processor's sums overflow, and those of nncf where it is installed.

    Args:
        signed: whether activations must be int8 with a zero of 0, as for TensorRT, which does not overflow.
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
    """Quantize a network in every way and keep the best one; while it loses too much, put layers back to float32, then tune its weights.

    Args:
        model: in float32; with a tuning its batch is open.
        images: inputs that the ranges of activations are fitted to.
        score: judges a file, 0..1; on images that nothing else is judged by.
        ways: that are tried; None for all that can be tried here.
        most_loss: of the score, beside that of ``model``.
        tuning: trains the weights where nothing else will do, and then layers are put back again; None leaves the weights as they are.
        progress: told of each trial.

    Raises:
        ExportError: the loss is larger whatever is done; the message has the numbers. Or no way is possible, as where images do not fit.
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
    """A quantized file, the float32 model of which it was made, and what came of it."""

    model: onnx.ModelProto
    source: onnx.ModelProto
    tried: Tried


class _Trials:
    """Files of one network that are made and judged; arguments as of ``best_quantized``, but ``source`` is repaired."""

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
        """All ways, in their order."""
        self.impossible: dict[Quantization, str] = {}

    def is_enough(self, file: _File) -> bool:
        """Whether it loses no more than it may."""
        return self.float_score - file.tried.score <= self._most_loss

    def of_ways(self, ways: Sequence[Quantization]) -> _File:
        """The best one of several ways to quantize."""
        files = list[_File]()
        for number, how in enumerate(ways):
            self._progress(number, len(ways), f"quantizing by {how}")
            try:
                made = quantize(self._source, self._images, how)
            except ExportError as error:  # a library may stumble over a network that others take
                if number + 1 == len(ways) and not files:
                    raise
                self.impossible[how] = str(error)
                continue
            files.append(self._judged(made, self._source, how=how))
        return max(files, key=_score)

    def with_floats(self, file: _File) -> _File:
        """The first one that is enough with more and more layers in float32, or the best one."""
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
        """One of trained weights, quantized in the best way of those that round to the nearest number and correct nothing afterwards."""
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
    """How many layers are put back: first few, at last half; with more of them int8 is not worth its name."""
    count = 1
    while count < layers / 2:
        yield count
        count *= 2
    yield max(1, layers // 2)


def _by_loss(file: _File, model: onnx.ModelProto, images: Images, progress: Progress) -> list[str]:
    """The names of the layers by how much nearer the outputs come to the float network's when one alone is put back, the nearest first."""
    wanted = outputs_of(model, images)
    layers, errors = layers_of(model), dict[str, float]()
    for number, name in enumerate(layers):
        progress(number, len(layers), f"measuring what {name} loses")
        errors[name] = float(np.square(outputs_of(in_floats(file.model, file.source, [name]), images) - wanted).mean())
    return sorted(layers, key=errors.__getitem__)


def outputs_of(model: onnx.ModelProto, images: Images) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What ONNX Runtime computes on the processor, of all images in their order."""
    session = session_of(model)
    (given,) = session.get_inputs()
    return np.concatenate([session.run(None, {given.name: image})[0] for image in images])
