"""Weights of another supernet that a run starts from: whether they fit, which tensors are taken, and which are new."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ofa.adopting.record import AdoptionRecord
from ofa.errors import FileError, RecipeError, WeightsError
from ofa.families import lower
from ofa.reading import LARGEST_TENSORS, LARGEST_TOML, parse_toml, read_text, sha256_of
from ofa.sharing import StoredTensor, layout
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.record import DataRecord
from ofa.training.toml import check_range
from ofa.weights import check_finite

__all__ = ["CONFIG", "SPACE", "START", "WEIGHTS", "Start", "StartWeights", "open_start", "settings_of_start"]

WEIGHTS = "supernet.safetensors"
"""The file in the folder of a run that holds its weights."""
SPACE = "space.json"
"""The file in the folder of a run that holds its space, unless the space is one of ofa's."""
CONFIG = "config.toml"
"""The recipe in the folder of a run."""
START = "start"
"""The name in a recipe for the space of its start, and for the start's largest network as a teacher."""
_NAMED = 5
"""How many classes an error names."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights of another supernet to start from. Its space must contain the recipe's space, apart from resolutions and classes.

    Attributes:
        path: the folder of a run that has ended or was imported, or a file of a supernet's weights; ``ofa train --from`` sets it.
        classifier: ``keep`` keeps the start's classifier, ``new`` draws one from the recipe's seed; ``auto`` draws one if the classes
            differ, by name if the start is a run that knows their names, otherwise by number.
        classifier_rate: factor of the learning rate of a new classifier.
        sha256: checksum of the file of weights, filled in when a run begins; a file with another checksum is refused.
        tensors: number of tensors taken from the start, filled in when a run begins.
        new: names of the tensors that are new, filled in when a run begins.

    Raises:
        RecipeError: an impossible rate.
    """

    path: str
    classifier: Literal["auto", "keep", "new"] = "auto"
    classifier_rate: float = 1.0
    sha256: str = ""
    tensors: int = 0
    new: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("start.classifier_rate", self.classifier_rate, 1e-6, 1e6)

    @property
    def factors(self) -> Mapping[str, float]:
        """Factors of the learning rate, by name of a new tensor; empty if the factor is 1."""
        return {} if self.classifier_rate == 1 else dict.fromkeys(self.new, self.classifier_rate)

    @property
    def sentence(self) -> str:
        """A sentence: what was taken, and what is new."""
        total = self.tensors + len(self.new)
        if not self.new:
            return f"all {total} tensors are taken from '{self.path}'"
        rate = "the recipe's learning rate" if self.classifier_rate == 1 else f"{self.classifier_rate:g} times the recipe's learning rate"
        return f"{self.tensors} of {total} tensors are taken from '{self.path}'; the classifier is new, and learns at {rate}"


@dataclass(frozen=True, eq=False)
class StartWeights:
    """A start that was loaded and fits a space, except perhaps for its classes.

    Attributes:
        start: the recipe's start, with its checksum.
        supernet: the supernet of its weights.
        class_names: names of its classes, in the order of the logits; None if they are unknown.
    """

    start: Start
    supernet: Supernet
    class_names: tuple[str, ...] | None

    @torch.no_grad()
    def copy_to(self, supernet: Supernet, class_names: Sequence[str]) -> Start:
        """Copy the start's weights into a supernet; a new classifier stays as it is.

        Args:
            supernet: an untrained supernet of the space that the start was opened for.
            class_names: names of its data's classes, in the order of the logits.

        Returns:
            The start, with ``tensors`` and ``new`` filled in.

        Raises:
            WeightsError: the start's classifier is to be kept, but is of other classes.
        """
        new = _classifier_of(self.supernet.space) if self._needs_classifier(class_names) else ()
        stored, own = {tensor.name: tensor for tensor in layout(self.supernet.space)}, self.supernet.named_tensors()
        wanted = {tensor.name: tensor for tensor in layout(supernet.space)}
        targets = supernet.named_tensors()
        for name, target in targets.items():
            if name not in new:
                target.copy_(_as_shaped(stored[name], own, wanted[name]))
        return replace(self.start, tensors=len(targets) - len(new), new=tuple(name for name in targets if name in new))

    def _needs_classifier(self, class_names: Sequence[str]) -> bool:
        count, start = self.supernet.space.num_classes, self.start
        same = count == len(class_names) if self.class_names is None else self.class_names == tuple(class_names)
        if start.classifier == "keep" and not same:
            shown = "" if self.class_names is None else f" ({_listed(self.class_names)})"
            raise WeightsError(
                f"a classifier can be kept only for the classes that it knows, but '{start.path}' has {count}{shown} and the data "
                f'{len(class_names)} ({_listed(class_names)}); set start.classifier = "new"'
            )
        return start.classifier == "new" or not same


def open_start(start: Start | None, space: Space) -> StartWeights | None:
    """Load the weights that a recipe starts from, and check that they fit its space.

    Args:
        start: the recipe's start.
        space: the recipe's space, for any number of classes.

    Returns:
        The weights; None if the recipe has no start.

    Raises:
        FileError: there are no weights, or they are not the weights that the run began with.
        WeightsError: the weights are damaged, not finite, or of a space that does not contain the recipe's.
    """
    if start is None:
        return None
    place, is_folder = Path(start.path), os.path.isdir(start.path)
    file = place / WEIGHTS if is_folder else place
    if not os.path.isfile(file):
        what = "has no weights; let its training end first" if is_folder else "is not there; check the path"
        raise FileError(f"a start must be a run that has ended, or a file of a supernet's weights, but '{start.path}' {what}")
    found = sha256_of(file, most=LARGEST_TENSORS)
    if start.sha256 not in ("", found):
        raise FileError(
            f"a run must start from the weights that it was begun with, but '{file}' has another checksum than the recipe's start.sha256; "
            "put the file back, or begin another run"
        )
    supernet = Supernet.load(file)
    check_finite(supernet.named_tensors(), f"'{file}'")
    _check_fit(supernet.space, space, f"'{start.path}'")
    return StartWeights(replace(start, sha256=found), supernet, _class_names(place) if is_folder else None)


def _class_names(folder: Path) -> tuple[str, ...] | None:
    """The class names of a run; None if it does not know them."""
    record, adoption = DataRecord.load(folder), AdoptionRecord.load(folder)
    return record.facts.class_names if record is not None else None if adoption is None else adoption.class_names


def settings_of_start(path: object) -> dict[str, Any]:
    """Settings that a recipe takes from the run that it starts from: the file of its space, and ``mean`` and ``std`` if it has them.

    Raises:
        RecipeError: there is no start, or it has no file of its space.
    """
    if not isinstance(path, str) or not path:
        raise RecipeError(
            "a recipe with space = 'start' must have a start, but this one has none; add --from RUN, or name a space", key="space"
        )
    file = Path(path, SPACE).absolute()
    if not file.is_file():
        raise RecipeError(
            f"the start of a recipe with space = 'start' must be a run with a space file, but '{path}' has no {SPACE}; name the space: "
            "space=NAME",
            key="space",
        )
    config = Path(path, CONFIG)
    said = parse_toml(read_text(config, most=LARGEST_TOML, what="recipe"), what="a recipe", error=RecipeError) if config.is_file() else {}
    return {"space": str(file), **{key: said[key] for key in ("mean", "std") if key in said}}


def _as_shaped(stored: StoredTensor, tensors: Mapping[str, Tensor], wanted: StoredTensor) -> Tensor:
    """A stored tensor in the shape that another supernet stores: leading channels, with kernel transforms applied."""
    matrices = [nn.Parameter(tensors[matrix]) for _, matrix in stored.steps(wanted.shape[-1])]
    view = stored.view(tensors[stored.name], wanted.shape, wanted.lengths)
    transform = stored.transform(wanted.shape, wanted.lengths, matrices)
    return view if transform is None else transform(view)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}"


# -- does it fit? -----------------------------------------------------------------------------------------------------


def _classifier_of(space: Space) -> frozenset[str]:
    """The names of the tensors that depend on the number of classes."""
    shapes = {tensor.name: tensor.shape for tensor in layout(space)}
    return frozenset(
        tensor.name for tensor in layout(replace(space, num_classes=space.num_classes + 1)) if tensor.shape != shapes[tensor.name]
    )


def _check_fit(source: Space, space: Space, label: str) -> None:
    """Raise WeightsError, naming the first misfit, unless ``source`` contains all networks of ``space``."""
    space = replace(space, num_classes=source.num_classes)
    stored = {tensor.name: tensor for tensor in layout(source)}
    missing = [tensor for tensor in layout(space) if tensor.name not in stored]
    wrong = [tensor for tensor in layout(space) if tensor.name in stored and not _is_within(tensor, stored[tensor.name])]
    total, remedy = len(layout(space)), f"start from weights of {space.name}, or train in a space that is a part of {source.name}"
    if missing or wrong:
        parts = [f"{len(missing)} are missing (first {missing[0].name})"] * bool(missing)
        if wrong:
            first, other = wrong[0], stored[wrong[0].name]
            parts += [f"{len(wrong)} are of other shapes (first {first.name}, {list(other.shape)} in place of {list(first.shape)})"]
        raise WeightsError(
            f"a start must have the {total} tensors of {space.name}, but of these {' and '.join(parts)} in {label}, which is of "
            f"{source.name}; {remedy}"
        )
    difference = _difference(source, space)
    if difference:
        raise WeightsError(
            f"a start must contain all networks of {space.name}, but {label}, which is of {source.name}, {difference}; {remedy}"
        )


def _is_within(tensor: StoredTensor, other: StoredTensor) -> bool:
    """Whether a tensor is a part of another: leading channels, and a kernel size that the other has too."""
    if (tensor.role, tensor.axes, tensor.is_transform) != (other.role, other.axes, other.is_transform):
        return False
    free = 2 if other.kernels and tensor.shape[-1] in other.kernels else 0
    sizes = zip(tensor.shape, other.shape, tensor.axes, strict=True)
    return all(
        own == whole or (own < whole and (axis is not None or number >= len(tensor.shape) - free))
        for number, (own, whole, axis) in enumerate(sizes)
    )


def _difference(source: Space, space: Space) -> str:
    """How networks of ``space`` differ from networks of ``source`` whose tensors fit; empty if they do not differ."""
    for name, arch in (("smallest", space.smallest()), ("largest", space.largest())):
        resolution = arch.resolution if arch.resolution in source.resolutions else source.resolutions[-1]
        twin = replace(arch, space=source.name, resolution=resolution)
        if twin not in source:
            return f"does not have the choices of its {name}"
        others = {placed.name: placed.block for placed in lower(source, twin)}
        places = [placed.name for placed in lower(space, arch) if others.get(placed.name) != placed.block]
        if places:
            return f"computes something else in {len(places)} blocks (first {places[0]})"
    return ""
