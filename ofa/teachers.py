"""Teachers of one's own: networks that a recipe names and that tell the classes of its images apart.

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
"""Images that a teacher is tried on."""
_NAMED = 5
"""How many classes an error names."""

TEACHERS = ModuleRegistry("teacher", error=RecipeError, group="ofa.teachers")
"""The teachers that have a name: modules, or functions without arguments that make one."""


class Teacher(nn.Module):
    """A network that takes the batches of a run and gives logits in the order of its classes.

    Args:
        network: maps [B, C, H, W] to [B, K].
        factor: [C], what each channel is multiplied by before; None changes no channel.
        shift: [C], what is added then.
        resolution: height and width in pixels that images are resized to; None takes them as they are.
        order: int64 [K], of each class of the run the number that the network has for it; None where it is the same.
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
    """A teacher as it was found, before the images are known that it is to judge.

    Attributes:
        name: what the user calls it.
        network: maps images to logits.
        class_names: in the order of its logits; None if they are not known.
        normalization: mean and deviation of each channel that its images had; None if it takes them as those of the run are.
        resolution: height and width in pixels that images are resized to; None takes them as they are.
        calibrates: whether its batch norms need statistics of their own, as those of a supernet's networks do.
    """

    name: str
    network: nn.Module
    class_names: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    resolution: Resolution | None = None
    calibrates: bool = False

    def prepared(self, data: Images, resolutions: Sequence[Resolution], device: torch.device) -> Teacher:
        """The teacher for a run, in evaluation mode, tried on some images.

        Args:
            data: the images to train on.
            resolutions: height and width in pixels that batches may have.
            device: where the networks are trained.

        Raises:
            RecipeError: it tells other classes apart, raises, changes its input, or gives no finite logits [B, K].
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
        """By channel the factor and the shift from the normalization of the run's images to its own; None where they are the same."""
        if self.normalization in (None, data.normalization):
            return None, None
        assert self.normalization is not None
        mean_C, std_C, own_mean_C, own_std_C = (torch.tensor(each) for each in (*data.normalization, *self.normalization))
        if len(mean_C) != len(own_mean_C):
            raise RecipeError(
                f"a teacher must take images of the channels that the data has, but '{self.name}' takes {len(own_mean_C)} and the data has "
                f"{len(mean_C)}; take another teacher"
            )
        return std_C / own_std_C, (mean_C - own_mean_C) / own_std_C

    def _order(self, class_names: Sequence[str]) -> Tensor | None:
        if self.class_names is None or self.class_names == tuple(class_names):
            return None
        if sorted(self.class_names) != sorted(class_names):
            raise RecipeError(
                f"a teacher must tell the classes of the data apart, but '{self.name}' knows {_listed(self.class_names)} and the data has "
                f"{_listed(class_names)}; take a teacher of these classes"
            )
        return torch.tensor([self.class_names.index(name) for name in class_names])

    def _check(self, made: Teacher, data: Images, resolution: Resolution, device: torch.device) -> None:
        x_BCHW, _ = make_batch(data, torch.arange(min(_TRIED, len(data))), resolution=resolution, device=device)
        before_BCHW, wanted = x_BCHW.clone(), [len(x_BCHW), data.num_classes]
        try:
            with torch.no_grad():
                found = made(x_BCHW)
        except Exception as error:  # a network of the user's own may fail in any way
            raise RecipeError(
                f"a teacher must take a batch of {list(x_BCHW.shape)}, but '{self.name}' does not: {reason_of(error)}; set "
                "teacher_resolution to the size that it takes, or put it into a module that takes this one"
            ) from error
        wrong = _wrong(found, wanted) or ("" if torch.equal(x_BCHW, before_BCHW) else "changes its input")
        if wrong:
            raise RecipeError(
                f"a teacher must give finite logits {wanted} for a batch of {wanted[0]} images of {pixels(resolution)}, but '{self.name}' "
                f"{wrong}; take a teacher of these classes, or put it into a module that gives such"
            )


def find_teacher(text: str, resolution: Resolution | None = None) -> FoundTeacher | None:
    """The teacher of one's own that somebody names; None for an empty text, or ``start``.

    Args:
        text: the folder of a run that has ended, whose largest network teaches, or of a bundle; a registered name (``TEACHERS``); or
            ``module:attribute``, which is imported unless it is a ``FromFile``. A module takes batches as the networks get them: float32
            [B, C, H, W] with the mean and deviation of the run's images taken out; it is put into evaluation mode. ``start``, which is
            the network that a run starts from, is none of one's own.
        resolution: height and width in pixels that images are resized to; None leaves a bundle its own, and all others those of the batch.

    Raises:
        RecipeError: there is none, it cannot be imported or made, or is no module.
        TrustError: a file says ``module:attribute``.
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
            f"a run that teaches must know its classes and its normalization, but '{text}' has no record of its data; train it anew, or "
            "name a module that makes its network"
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
    return "" if bool(torch.isfinite(found).all()) else "gives others that are not finite"


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''})"
