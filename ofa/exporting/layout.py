"""What lies where in a bundle, and what the files of its network carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ofa.arch import Arch
from ofa.data import ImageRule
from ofa.errors import SchemaError
from ofa.exporting.card import Card
from ofa.reading import parse_json
from ofa.resolution import resolution_to_json
from ofa.schema import parse
from ofa.space import Space
from ofa.tasks import CLASSIFICATION, TASKS, Task
from ofa.weights import space_header

__all__ = [
    "ARCH",
    "CARD",
    "ENGINES",
    "FLOAT",
    "KIND",
    "LABELS",
    "PICTURE",
    "PREPROCESSING",
    "README",
    "WEIGHTS",
    "Signature",
    "file_of",
    "version_of",
]

ARCH, CARD, WEIGHTS = "arch.json", "card.json", "network.safetensors"
LABELS, PREPROCESSING = "labels.json", "preprocessing.json"
README, PICTURE = "README.md", "network.svg"
ENGINES = "engines"
"""Name of the folder of engines in a bundle."""

KIND = "network"
"""What the header of the weights says that they are."""
FLOAT = "fp32"
"""The precision that every bundle has."""


def file_of(precision: str, *, takes_photos: bool = False) -> str:
    """Name of a network's ONNX file: of normalized images, or of photos."""
    stem = "photo" if takes_photos else "network"
    return f"{stem}.onnx" if precision == FLOAT else f"{stem}-{precision}.onnx"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """How a network sees images, and what its outputs mean.

    Attributes:
        class_names: one name a class, in the order of the logits.
        mean, std: of each colour channel on the scale 0..1; an image x in 0..1 enters the network as (x - mean) / std.
        rule: how an image becomes the pixels 0..255 that are scaled to 0..1 for it.
        task: name of what the network is for (``ofa.tasks``).
        activation: what makes probabilities of its outputs: ``softmax``, ``sigmoid``, or nothing.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rule: ImageRule
    task: str = CLASSIFICATION.name
    activation: str = CLASSIFICATION.activation

    def header(self, space: Space, arch: Arch) -> dict[str, str]:
        """What the files of a network carry, as text."""
        return {
            "kind": KIND,
            **space_header(space),
            "resolution": str(resolution_to_json(arch.resolution)),
            "arch": json.dumps(arch.to_json()),
            "class_names": json.dumps(list(self.class_names)),
            "mean": json.dumps(list(self.mean)),
            "std": json.dumps(list(self.std)),
            "image_rule": str(self.rule),
            "task": self.task,
            "activation": self.activation,
        }

    @classmethod
    def of_header(cls, header: Mapping[str, str], card: Card) -> Self:
        """What ``header`` gave; bundles of earlier versions say less: their images were of one shape or cut, their card has the metric.

        Raises:
            SchemaError, DataError, KeyError: the header is damaged.
        """
        class_names, mean, std = (_listed(header, key, kind) for key, kind in (("class_names", str), ("mean", float), ("std", float)))
        rule = ImageRule.from_text(header["image_rule"]) if "image_rule" in header else ImageRule(channels=len(mean))
        found = cls(class_names=class_names, mean=mean, std=std, rule=rule)
        if "task" in header:
            return cls(**{**vars(found), "task": header["task"], "activation": header["activation"]})
        known = [CLASSIFICATION, *(TASKS.get(name) for name in TASKS.names())]
        task = next((each for each in known if each.metric == card.metric), None)
        told = ("", "") if task is None else (task.name, task.activation)
        return cls(**{**vars(found), "task": told[0], "activation": told[1]})

    def get_task(self) -> Task:
        """What the network is for.

        Raises:
            RecipeError: no such task is registered.
        """
        return TASKS.get(self.task)


def version_of(folder: Path) -> tuple[int, ...]:
    """Which bundle it is, and which card it has: it may be replaced, and its files too, while others read it."""
    numbers: tuple[int, ...] = ()
    with suppress(OSError):
        numbers += (folder.stat().st_ino,)
        card = (folder / CARD).stat()
        numbers += (card.st_ino, card.st_mtime_ns)
    return numbers


def _listed(header: Mapping[str, str], key: str, hint: Any) -> Any:
    return parse(tuple[hint, ...], parse_json(header[key], what=f"{key} in the header", error=SchemaError))
