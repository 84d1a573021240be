"""File names of a bundle, and the header that the files of its network carry."""

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
"""The ``kind`` in the header of the weights."""
FLOAT = "fp32"
"""The precision that every bundle has."""


def file_of(precision: str, *, takes_photos: bool = False) -> str:
    """Name of a network's ONNX file that takes normalized images, or photos."""
    stem = "photo" if takes_photos else "network"
    return f"{stem}.onnx" if precision == FLOAT else f"{stem}-{precision}.onnx"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Preprocessing of a network's images, and meaning of its outputs.

    Attributes:
        class_names: one name for each class, in the order of the logits.
        mean, std: mean and standard deviation of each colour channel; the network's input for an image x in 0..1 is (x - mean) / std.
        rule: how an image file becomes pixels in 0..255, which are then scaled to 0..1.
        task: name of the network's task (``ofa.tasks``).
        activation: activation that turns outputs into probabilities: ``softmax``, ``sigmoid``, or empty.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rule: ImageRule
    task: str = CLASSIFICATION.name
    activation: str = CLASSIFICATION.activation

    def header(self, space: Space, arch: Arch) -> dict[str, str]:
        """The header that the files of a network carry, as text."""
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
        """Read what ``header`` returned.

        Headers of earlier versions have no image rule and no task: their images were of one shape or cropped, and the task is found by
        the card's metric.

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
        """The network's task.

        Raises:
            RecipeError: no task of this name is registered.
        """
        return TASKS.get(self.task)


def version_of(folder: Path) -> tuple[int, ...]:
    """Numbers that change when a bundle or its card is replaced: both may happen while another process reads it."""
    numbers: tuple[int, ...] = ()
    with suppress(OSError):
        numbers += (folder.stat().st_ino,)
        card = (folder / CARD).stat()
        numbers += (card.st_ino, card.st_mtime_ns)
    return numbers


def _listed(header: Mapping[str, str], key: str, hint: Any) -> Any:
    return parse(tuple[hint, ...], parse_json(header[key], what=f"{key} in the header", error=SchemaError))
