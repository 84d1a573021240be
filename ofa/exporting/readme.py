"""The README of a bundle with its picture, and ``preprocessing.json``.

The README is generated from the card, and generated again whenever the card changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ofa.costs import COSTS
from ofa.exporting.card import Card
from ofa.exporting.contents import Contents
from ofa.exporting.layout import FLOAT, PICTURE, README, file_of
from ofa.exporting.photo import PHOTO, PROBABILITIES
from ofa.exporting.picture import draw_network
from ofa.exporting.tracing import INPUT, LOGITS
from ofa.families import lower
from ofa.files import replacing
from ofa.resolution import pixels
from ofa.version import __version__

__all__ = ["lines_of_cpp", "lines_of_python", "preprocessing", "write_readme"]

_MOST_NAMES = 20
_COLOURS = {1: ("grey", "L"), 3: ("RGB", "RGB"), 4: ("RGBA", "RGBA")}
"""Name of an image's colours, and Pillow's mode, by number of channels."""


def preprocessing(bundle: Contents) -> dict[str, Any]:
    """Preprocessing of images for ``network.onnx``, and its output, as JSON values."""
    signature = bundle.signature
    _, channels, height, width = bundle.input_shape
    rule = signature.rule
    return {
        "schema": 1,
        "input": {"name": INPUT, "layout": "NCHW", "type": "float32", "shape": ["batch", channels, height, width]},
        "channels": _COLOURS.get(channels, (channels,))[0],
        "orientation": "upright, by EXIF",
        "crop": "center" if rule.fit == "crop" else None,
        "crop_aspect_ratio": width / height if rule.fit == "crop" else None,
        "resize": {"height": height, "width": width, "filter": "bilinear", "antialias": True, "pixel_centers": "half"},
        "levels": [0, 255],
        "white_of_32_bit_integers": rule.integer_white,
        "white_of_floats": rule.float_white,
        "range": [0, 1],
        "mean": list(signature.mean),
        "std": list(signature.std),
        "output": {
            "name": LOGITS,
            "type": "float32",
            "shape": ["batch", len(signature.class_names)],
            "activation": signature.activation or None,
        },
    }


def write_readme(bundle: Contents) -> None:
    """Write the README and the picture of a bundle from its present card."""
    for name, text in ((PICTURE, _picture(bundle)), (README, _environment().get_template("README.md.jinja").render(_content(bundle)))):
        with replacing(bundle.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def lines_of_python(channels: int, activation: str) -> str:
    """A Python program that classifies a photo, with onnxruntime, numpy and Pillow."""
    mode = _COLOURS.get(channels, ("", ""))[1]
    opened = f'ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("{mode}")'
    grey = ".reshape(photo.height, photo.width, 1)" if channels == 1 else ""
    read, array = (f"photo = {opened}", f"np.asarray(photo){grey}") if mode else ("photo = np.load(sys.argv[1])", "photo")
    shown = (
        ["for index in np.flatnonzero(probabilities >= 0.5):", "    print(labels[index], float(probabilities[index]))"]
        if activation == "sigmoid"
        else ["index = int(probabilities.argmax())", "print(labels[index], float(probabilities[index]))"]
    )
    return "\n".join(
        [
            "import json, sys",
            "import numpy as np, onnxruntime",
            *["from PIL import Image, ImageOps"] * bool(mode),
            "",
            'labels = json.load(open("labels.json", encoding="utf-8"))',
            f'session = onnxruntime.InferenceSession("{file_of(FLOAT, takes_photos=True)}", providers=["CPUExecutionProvider"])',
            read,
            f'(probabilities,) = session.run(["{PROBABILITIES}"], {{"{PHOTO}": {array}}})',
            *shown,
        ]
    )


def lines_of_cpp(channels: int, classes: int) -> str:
    """C++ code that classifies a decoded photo, with ONNX Runtime."""
    kind = _COLOURS.get(channels, (f"{channels} channels",))[0]
    return "\n".join(
        [
            f"// #include <onnxruntime_cxx_api.h>; std::uint8_t* pixels: height x width x {channels}, {kind}, row by row",
            "Ort::Env environment;",
            f'Ort::Session session(environment, "{file_of(FLOAT, takes_photos=True)}", Ort::SessionOptions{{}});',
            f"std::array<std::int64_t, 3> shape{{height, width, {channels}}};",
            "auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);",
            f"std::size_t count = static_cast<std::size_t>(height) * width * {channels};",
            "auto photo = Ort::Value::CreateTensor<std::uint8_t>(memory, pixels, count, shape.data(), shape.size());",
            f'const char *inputs[] = {{"{PHOTO}"}}, *outputs[] = {{"{PROBABILITIES}"}};',
            "auto answers = session.Run(Ort::RunOptions{}, inputs, &photo, 1, outputs, 1);",
            "const float* probabilities = answers[0].GetTensorData<float>();",
            f"auto index = std::max_element(probabilities, probabilities + {classes}) - probabilities;",
        ]
    )


# -- the content ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(loader=PackageLoader("ofa.exporting"), undefined=StrictUndefined, keep_trailing_newline=True)


def _picture(bundle: Contents) -> str:
    title = f"{bundle.space.name}, {pixels(bundle.arch.resolution)}"
    return draw_network(lower(bundle.space, bundle.arch), title)


def _content(bundle: Contents) -> dict[str, Any]:
    signature, card = bundle.signature, bundle.card
    _, channels, height, width = bundle.input_shape
    colours = _COLOURS.get(channels, (f"{channels} channels",))[0]
    tells = "which classes are" if signature.activation == "sigmoid" else "which class is"
    return {
        "title": _text(f"A network for {len(signature.class_names)} classes"),
        "about": _text(
            f"It tells {tells} in an image: a network of the space {bundle.space.name} for images of {pixels(bundle.arch.resolution)}."
        ),
        "facts": _facts(bundle),
        "latencies": _latencies(card),
        "pixels": f"{colours}, as bytes [height, width, {channels}], of any size",
        "python": lines_of_python(channels, signature.activation),
        "cpp": lines_of_cpp(channels, len(signature.class_names)),
        "alike": [name for name in sorted(card.files) if name.startswith("photo-")],
        "preparing": f"images as float32 [batch, {channels}, {height}, {width}], prepared as `preprocessing.json` says; it gives logits.",
        "files": [(f"`{name}`", _use_of(name), _size(bundle, name), f"`{digest}`") for name, digest in sorted(card.files.items())],
        "provenance": [(_text(name.replace("_", " ")), _text(value)) for name, value in card.provenance.items() if _is_plain(value)],
        "version": __version__,
    }


_USES = {
    "arch.json": "the network's choices and its space",
    "labels.json": "names of the classes, in the order of the outputs",
    "preprocessing.json": "how an image becomes the input of `network.onnx`",
    "network.safetensors": "weights, for PyTorch",
}
_USES_OF_STEMS = {"network": "normalized images to logits", "photo": "a photo to probabilities"}


def _use_of(name: str) -> str:
    stem, _, precision = name.removesuffix(".onnx").partition("-")
    if name.endswith(".onnx") and stem in _USES_OF_STEMS:
        return f"{_USES_OF_STEMS[stem]}{f', in {precision}' * bool(precision)}"
    return _USES.get(name, "")


def _facts(bundle: Contents) -> list[tuple[str, str]]:
    signature, card = bundle.signature, bundle.card
    names = ", ".join(signature.class_names[:_MOST_NAMES]) + (", .." if len(signature.class_names) > _MOST_NAMES else "")
    rows = [("classes", _text(names))]
    if card.accuracy is not None:
        images = card.provenance.get("test_images")
        on = f" on {images} test images" if images else ""
        rows.append((_text(card.metric), f"{card.accuracy:.2%}{on}, float32"))
    for name, found in card.precisions.items():
        score, before = found.get("score"), found.get("float_score")
        if score is not None and before is not None:
            judged = found.get("judging_images")
            rows.append(
                (
                    _text(f"{found.get('metric', card.metric)} in {name}"),
                    f"{score:.2%}, {before:.2%} in float32 on the same {judged} images",
                )
            )
    rows.append(("input", f"{' x '.join(map(str, bundle.input_shape[1:]))}, {signature.rule.fit} to the aspect ratio"))
    costs = [(COSTS.get(name), value) for name, value in card.costs.items() if name in COSTS]
    rows += [(cost.words, f"{value:,}{' bytes' * (cost.unit == 'bytes')}") for cost, value in costs]
    return rows


def _latencies(card: Card) -> list[tuple[str, str, str, str]]:
    if card.device is None or (card.latency is None and card.measured_ms is None):
        return []
    promised = "-"
    if card.latency is not None:
        interval = f" ({card.latency.latency_low_ms:.3g} .. {card.latency.latency_high_ms:.3g})" if card.latency.has_interval else ""
        promised = f"{card.latency.latency_ms:.3g} ms{interval}"
    measured = "-" if card.measured_ms is None else f"{card.measured_ms:.3g} ms"
    return [(_text(card.device), promised, measured, _text(_conditions(card.measured_conditions or card.conditions or {})))]


def _conditions(conditions: Mapping[str, Any]) -> str:
    runtime = " ".join(str(conditions[key]) for key in ("runtime", "runtime_version") if conditions.get(key))
    threads = conditions.get("threads")
    words = [
        runtime,
        conditions.get("precision"),
        f"batch {conditions.get('batch', 1)}",
        f"{threads} thread{'s' * (threads > 1)}" if threads else "",
    ]
    return ", ".join(str(word) for word in words if word)


def _size(bundle: Contents, name: str) -> str:
    path = bundle.folder / name
    return f"{path.stat().st_size:,}" if path.is_file() else "-"


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    """A text as one line of a Markdown table, with special characters escaped."""
    line = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "\\|`*_[]<>#" else letter for letter in line)
