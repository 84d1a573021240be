"""External teachers for knowledge distillation: networks that a recipe names and that classify its images.

Shapes: B images of a batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.calibrate import calibrate
from ofa.data import Images, make_batch
from ofa.data.images import Normalization
from ofa.errors import RecipeError
from ofa.exporting.bundle import load_bundle
from ofa.own_modules import ModuleRegistry
from ofa.reasons import reason_of
from ofa.resolution import Resolution, ascending, pixels, sides
from ofa.training import DataRecord, load_run
from ofa.training.checkpoint import CONFIG
from ofa.training.start import START

__all__ = ["TEACHERS", "FoundTeacher", "Teacher", "find_teacher"]

_TRIED = 4
"""Number of images on which a teacher is checked."""
_NAMED = 5
"""Number of classes that an error message lists."""

TEACHERS = ModuleRegistry("teacher", error=RecipeError, group="ofa.teachers")
"""Registered teachers: modules, or functions without arguments that return one."""


class Teacher(nn.Module):
    """Adapts a network to the batches of a run: normalization, resolution, and order of classes.

    Args:
        network: maps [B, C, H, W] to logits [B, K].
        factor: multiplier of each channel [C], to convert the run's normalization to the network's; None for no change.
        shift: added to each channel [C] after the multiplication; None for no change.
        resolution: height and width in pixels that images are resized to; None for no resizing.
        order: int64 [K], for each class of the run its index in the network's logits; None if the order is the same.
    """

    factor: Tensor | None
    shift: Tensor | None
    order: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        factor: Tensor | None = None,
        shift: Tensor | None = None,
        resolution: Resolution | None = None,
        order: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network, self.resolution = network, resolution
        for name, value in (("factor", factor), ("shift", shift), ("order", order)):
            self.register_buffer(name, value)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map a normalized batch [B, C, H, W] to logits [B, K]."""
        if self.factor is not None and self.shift is not None:
            x_BCHW = torch.addcmul(self.shift[:, None, None], x_BCHW, self.factor[:, None, None])
        if self.resolution is not None and tuple(x_BCHW.shape[2:]) != sides(self.resolution):
            x_BCHW = F.interpolate(x_BCHW, size=sides(self.resolution), mode="bilinear", antialias=True)
        logits: Tensor = self.network(x_BCHW)
        return logits if self.order is None else logits[:, self.order]


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundTeacher:
    """A teacher before it is prepared for the images of a run.

    Attributes:
        name: as the user typed it.
        network: maps images to logits.
        class_names: in the order of the logits; None if unknown.
        normalization: mean and standard deviation per channel of the images that it was trained on; None for the run's normalization.
        resolution: height and width in pixels that images are resized to; None for no resizing.
        calibrates: whether its batch norms must be calibrated, as for networks extracted from a supernet.
    """

    name: str
    network: nn.Module
    class_names: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    resolution: Resolution | None = None
    calibrates: bool = False

    def prepared(self, data: Images, resolutions: Sequence[Resolution], device: torch.device) -> Teacher:
        """The teacher for a run, in evaluation mode, checked on a few images.

        Args:
            data: the images to train on.
            resolutions: of the run's batches, in pixels.
            device: where the networks are trained.

        Raises:
            RecipeError: it has other classes or channels, raises, changes its input, or does not return finite logits [B, K].
        """
        factor, shift = self._renormalization(data)
        order = self._order(data.class_names)
        made = Teacher(self.network, factor=factor, shift=shift, resolution=self.resolution, order=order).to(device).eval()
        made.requires_grad_(False)
        tried = ascending(resolutions)
        for resolution in dict.fromkeys((tried[0], tried[-1])):
            self._check(made, data, resolution, device)
        if self.calibrates:
            calibrate(made, data, resolution=tried[-1])
        return made

    def _renormalization(self, data: Images) -> tuple[Tensor | None, Tensor | None]:
        """Factor and shift per channel, from the run's normalization to the teacher's; None if they are the same."""
        if self.normalization in (None, data.normalization):
            return None, None
        assert self.normalization is not None
        mean_C, std_C, own_mean_C, own_std_C = (torch.tensor(each) for each in (*data.normalization, *self.normalization))
        if len(mean_C) != len(own_mean_C):
            raise RecipeError(
                f"a teacher must take images with the channels of the data, but '{self.name}' takes {len(own_mean_C)} and the data has "
                f"{len(mean_C)}; take another teacher"
            )
        return std_C / own_std_C, (mean_C - own_mean_C) / own_std_C

    def _order(self, class_names: Sequence[str]) -> Tensor | None:
        if self.class_names is None or self.class_names == tuple(class_names):
            return None
        if sorted(self.class_names) != sorted(class_names):
            raise RecipeError(
                f"a teacher must have the classes of the data, but '{self.name}' has {_listed(self.class_names)} and the data has "
                f"{_listed(class_names)}; take a teacher of these classes"
            )
        return torch.tensor([self.class_names.index(name) for name in class_names])

    def _check(self, made: Teacher, data: Images, resolution: Resolution, device: torch.device) -> None:
        x_BCHW, _ = make_batch(data, torch.arange(min(_TRIED, len(data))), resolution=resolution, device=device)
        before_BCHW, wanted = x_BCHW.clone(), [len(x_BCHW), data.num_classes]
        try:
            with torch.no_grad():
                found = made(x_BCHW)
        except Exception as error:  # user code may fail in any way
            raise RecipeError(
                f"a teacher must take a batch of {list(x_BCHW.shape)}, but '{self.name}' does not: {reason_of(error)}; set "
                "teacher_resolution to the size that it takes, or wrap it in a module that takes this size"
            ) from error
        wrong = _wrong(found, wanted) or ("" if torch.equal(x_BCHW, before_BCHW) else "changes its input")
        if wrong:
            raise RecipeError(
                f"a teacher must give finite logits {wanted} for a batch of {wanted[0]} images of {pixels(resolution)}, but '{self.name}' "
                f"{wrong}; take a teacher of these classes, or wrap it in a module that gives such logits"
            )


def find_teacher(text: str, resolution: Resolution | None = None) -> FoundTeacher | None:
    """Find the external teacher that a recipe or user names.

    Args:
        text: the folder of a finished run, whose largest network is the teacher, or of a bundle; a registered name (``TEACHERS``); or
            ``module:attribute``, which is imported unless it is a ``FromFile``. A module takes the same batches as the networks: float32
            [B, C, H, W], normalized by the run's mean and standard deviation; it is set to evaluation mode.
        resolution: height and width in pixels that images are resized to. If None, a bundle keeps its own resolution, and other teachers
            take the batch's.

    Returns:
        The teacher; None for an empty text, or for ``start`` (the network that the run starts from).

    Raises:
        RecipeError: the teacher does not exist, cannot be imported or built, or is no module.
        TrustError: ``module:attribute`` comes from a file.
        OfaError: the run or the bundle cannot be read.
    """
    if text in ("", START):
        return None
    folder = Path(text)
    if os.path.isfile(folder / CONFIG):
        return _of_run(text, resolution)
    if os.path.isdir(folder):
        bundle = load_bundle(folder)
        return FoundTeacher(
            name=text,
            network=bundle.network(),
            class_names=bundle.class_names,
            normalization=(bundle.mean, bundle.std),
            resolution=resolution or bundle.arch.resolution,
        )
    if text not in TEACHERS and ":" not in text:
        known = ", ".join(TEACHERS) or "none"
        raise RecipeError(
            f"a teacher must be the folder of a run or a bundle, module:attribute or a registered name (known: {known}), but '{text}' is "
            "none; check the path"
        )
    return FoundTeacher(name=text, network=TEACHERS.make(text), resolution=resolution)


def _of_run(text: str, resolution: Resolution | None) -> FoundTeacher:
    run, record = load_run(text), DataRecord.load(text)
    if record is None:
        raise RecipeError(
            f"a run used as a teacher must record its classes and normalization, but '{text}' has no record of its data; train it again, "
            "or name a module that builds its network"
        )
    return FoundTeacher(
        name=text,
        network=run.supernet.extract(run.supernet.space.largest()),
        class_names=record.facts.class_names,
        normalization=record.facts.normalization,
        resolution=resolution,
        calibrates=True,
    )


def _wrong(found: object, wanted: list[int]) -> str:
    if not isinstance(found, Tensor):
        return f"gives a {type(found).__name__}, which is no tensor"
    if list(found.shape) != wanted or not found.is_floating_point():
        return f"gives {found.dtype} {list(found.shape)}".replace("torch.", "")
    return "" if bool(torch.isfinite(found).all()) else "gives logits that are not finite"


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''})"
