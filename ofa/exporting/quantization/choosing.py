"""The best int8 file of a network: ways to quantize it are judged on images, and where none will do, some layers stay in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ofa.errors import ExportError
from ofa.exporting.onnx import session_of
from ofa.exporting.quantization.floats import in_floats, layers_of
from ofa.exporting.quantization.repair import repaired
from ofa.exporting.quantization.static import Images, Quantization, quantize
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

_OF_NNCF = tuple(Quantization(library="nncf", bias_correction=each) for each in ("fast", "full"))
_SENSITIVITY_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One way to quantize a network, and what came of it.

    Attributes:
        how: it was quantized.
        floats: names of the layers that stayed in float32.
        score: of the task on the images, 0..1.
    """

    how: Quantization
    floats: tuple[str, ...] = ()
    score: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"how": str(self.how), "float_layers": list(self.floats), "score": self.score}


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A network in int8.

    Attributes:
        model: the file.
        best: how it was made.
        float_score: of the float32 file on the same images.
        tried: all ways, in their order.
        layers: how many the network has.
    """

    model: onnx.ModelProto
    best: Tried
    float_score: float
    tried: tuple[Tried, ...]
    layers: int

    def to_json(self) -> dict[str, Any]:
        """What a card says of it."""
        return {
            **self.best.to_json(),
            "float_score": self.float_score,
            "layers": self.layers,
            "tried": [each.to_json() for each in self.tried],
        }


def candidates(*, signed: bool = False) -> tuple[Quantization, ...]:
    """All ways that can be tried here: those of nncf too where it is installed.

    Args:
        signed: whether activations must be int8 with a zero of 0, as for TensorRT.
    """
    try:
        import_without_telemetry("nncf")
    except ImportError:
        found: tuple[Quantization, ...] = CANDIDATES
    else:
        found = CANDIDATES if signed else (*CANDIDATES, *_OF_NNCF)
    return tuple(replace(each, signed=signed) for each in found)


def best_quantized(
    model: onnx.ModelProto,
    images: Images,
    score: Callable[[onnx.ModelProto], float],
    *,
    ways: Sequence[Quantization] | None = None,
    most_loss: float = MOST_LOSS,
    progress: Progress = silent,
) -> Quantized:
    """Quantize a network in every way, keep the best one, and leave the layers that lose most in float32 until the loss is small enough.

    Args:
        model: in float32.
        images: inputs that the ranges of activations are fitted to.
        score: judges a file, 0..1; on images that nothing else is judged by.
        ways: that are tried; None for all that can be tried here.
        most_loss: of the score, beside that of ``model``.
        progress: told of each trial.

    Raises:
        ExportError: the loss is larger whatever is done; the message has the numbers. Or the images do not fit.
    """
    ways = candidates() if ways is None else ways
    source = repaired(model, images)
    float_score, tried, models = score(model), list[Tried](), list[onnx.ModelProto]()
    for number, how in enumerate(ways):
        progress(number, len(ways), f"quantizing by {how}")
        models.append(quantize(source, images, how))
        tried.append(Tried(how=how, score=score(models[-1])))
    number = max(range(len(tried)), key=lambda each: tried[each].score)
    best, chosen = tried[number], models[number]
    if float_score - best.score > most_loss:
        order = _by_loss(chosen, source, images[:_SENSITIVITY_IMAGES], progress)
        counts = list(_counts(len(order)))
        for step, count in enumerate(counts):
            names = tuple(order[:count])
            progress(step, len(counts), f"judging the network with {count} of {len(order)} layers in float32")
            chosen = in_floats(models[number], source, names)
            best = Tried(how=best.how, floats=names, score=score(chosen))
            tried.append(best)
            if float_score - best.score <= most_loss:
                break
        else:
            best_of_all = max(tried, key=lambda each: each.score)
            raise ExportError(
                f"a network in int8 may lose at most {most_loss:.1%} of its score, but this one falls from {float_score:.2%} to "
                f"{best_of_all.score:.2%} at best, with {len(best_of_all.floats)} of {len(order)} layers in float32; allow more, "
                "or ship it in float32"
            )
    return Quantized(model=chosen, best=best, float_score=float_score, tried=tuple(tried), layers=len(layers_of(model)))


def _counts(layers: int) -> Iterator[int]:
    """How many layers are put back: first few, at last half; with more of them int8 is not worth its name."""
    count = 1
    while count < layers / 2:
        yield count
        count *= 2
    yield max(1, layers // 2)


def _by_loss(quantized: onnx.ModelProto, model: onnx.ModelProto, images: Images, progress: Progress) -> list[str]:
    """The names of the layers by how much nearer the outputs come to those in float32 when one alone is put back, the nearest first."""
    wanted = outputs_of(model, images)
    layers, errors = layers_of(model), dict[str, float]()
    for number, name in enumerate(layers):
        progress(number, len(layers), f"measuring what {name} loses")
        errors[name] = float(np.square(outputs_of(in_floats(quantized, model, [name]), images) - wanted).mean())
    return sorted(layers, key=errors.__getitem__)


def outputs_of(model: onnx.ModelProto, images: Images) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What ONNX Runtime computes on the processor, of all images in their order."""
    session = session_of(model)
    (given,) = session.get_inputs()
    return np.concatenate([session.run(None, {given.name: image})[0] for image in images])
