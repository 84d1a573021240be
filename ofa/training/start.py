"""Weights of another supernet that a run starts from: whether they fit, what is taken of them, and what is new."""

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
"""The file in the folder of a run that carries its space, where that is none of ofa's."""
CONFIG = "config.toml"
"""The recipe in the folder of a run."""
START = "start"
"""How a recipe names the space, and the largest network as a teacher, of the weights that it starts from."""
_NAMED = 5
"""How many classes an error names."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights of another supernet, in whose space all networks of the recipe's space are, but for their resolution and classes.

    Attributes:
        path: the folder of a run that has ended or was imported, or a file of a supernet's weights; ``ofa train --from`` says it.
        classifier: ``keep`` the start's, or draw a ``new`` one from the recipe's seed; ``auto`` draws one where the classes are others, by
            their names where the start is a run that knows them, and otherwise by their number.
        classifier_rate: what the learning rate of a new classifier is multiplied by.
        sha256: of the file of weights, filled in when a run begins; a file with another one is refused.
        tensors: how many were taken, filled in when a run begins.
        new: names of those that were not, filled in when a run begins.

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
        """By name of a new tensor: what its learning rate is multiplied by, if not by 1."""
        return {} if self.classifier_rate == 1 else dict.fromkeys(self.new, self.classifier_rate)

    @property
    def sentence(self) -> str:
        """What was taken and what is new."""
        total = self.tensors + len(self.new)
        if not self.new:
            return f"all {total} tensors are taken from '{self.path}'"
        rate = "the recipe's learning rate" if self.classifier_rate == 1 else f"{self.classifier_rate:g} times the recipe's learning rate"
        return f"{self.tensors} of {total} tensors are taken from '{self.path}'; the classifier is new, and learns at {rate}"


@dataclass(frozen=True, eq=False)
class StartWeights:
    """A start that was read, and fits a space but perhaps for its classes.

    Attributes:
        start: as the recipe says it, with its checksum.
        supernet: its weights.
        class_names: what it tells apart, in the order of the logits; None if that is not known.
    """

    start: Start
    supernet: Supernet
    class_names: tuple[str, ...] | None

    @torch.no_grad()
    def copy_to(self, supernet: Supernet, class_names: Sequence[str]) -> Start:
        """Give a supernet all that the start has for it; what the start has not stays as it is.

        Args:
            supernet: untrained, of the space that the start was opened for.
            class_names: of its data, in the order of the logits.

        Returns:
            The start, with what was taken filled in.

        Raises:
            WeightsError: its classifier is to be kept and is of other classes.
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
                f"a classifier can be kept only for the classes that it knows, but that of '{start.path}' has {count}{shown} and the data "
                f'{len(class_names)} ({_listed(class_names)}); set start.classifier = "new"'
            )
        return start.classifier == "new" or not same


def open_start(start: Start | None, space: Space) -> StartWeights | None:
    """Read the weights that a recipe starts from, and see that they fit its space; None if it starts from none.

    Args:
        start: what the recipe says.
        space: of the recipe, for any number of classes.

    Raises:
        FileError: there are none, or others than those with which the run began.
        WeightsError: they are damaged, not finite, or of a space that does not contain the recipe's.
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
    """Of a run, as far as it knows them."""
    record, adoption = DataRecord.load(folder), AdoptionRecord.load(folder)
    return record.facts.class_names if record is not None else None if adoption is None else adoption.class_names


def settings_of_start(path: object) -> dict[str, Any]:
    """What a recipe takes of the run that it starts from: the file of its space, and what its images are normalized by, if it says that.

    Raises:
        RecipeError: there is no start, or no such file.
    """
    if not isinstance(path, str) or not path:
        raise RecipeError(
            "a recipe whose space is that of its start must have one, but this one has none; add --from RUN, or name a space", key="space"
        )
    file = Path(path, SPACE).absolute()
    if not file.is_file():
        raise RecipeError(
            f"the start of such a recipe must be a run that carries its space, but '{path}' has no {SPACE}; name the space: space=NAME",
            key="space",
        )
    config = Path(path, CONFIG)
    said = parse_toml(read_text(config, most=LARGEST_TOML, what="recipe"), what="a recipe", error=RecipeError) if config.is_file() else {}
    return {"space": str(file), **{key: said[key] for key in ("mean", "std") if key in said}}


def _as_shaped(stored: StoredTensor, tensors: Mapping[str, Tensor], wanted: StoredTensor) -> Tensor:
    """What another supernet stores of a tensor: leading channels, kernel transforms applied."""
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
    """Raise WeightsError, naming what is first that does not fit, unless the networks of ``space`` are among those of ``source``."""
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
    """Whether a tensor is a part of another: leading channels, a kernel that the other has too."""
    if (tensor.role, tensor.axes, tensor.is_transform) != (other.role, other.axes, other.is_transform):
        return False
    free = 2 if other.kernels and tensor.shape[-1] in other.kernels else 0
    sizes = zip(tensor.shape, other.shape, tensor.axes, strict=True)
    return all(
        own == whole or (own < whole and (axis is not None or number >= len(tensor.shape) - free))
        for number, (own, whole, axis) in enumerate(sizes)
    )


def _difference(source: Space, space: Space) -> str:
    """What tells the networks of ``space`` from those of ``source``, though their tensors fit; nothing if nothing does."""
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
