"""Phase: one part of training, in which some genes are free and all others have their largest value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from ofa.errors import RecipeError, SpaceError
from ofa.resolution import Resolution, parse_resolution
from ofa.space import Gene, Space
from ofa.tasks import Divergence
from ofa.training.toml import MOST_EPOCHS, check_range

__all__ = ["Phase"]

_MOST_SUBNETS = 1000

AnySpace = TypeVar("AnySpace", bound=Space)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of training.

    Attributes:
        name: name of the phase in metrics and progress; unique in a recipe.
        epochs: passes over the training images.
        learning_rate: learning rate at the end of the warm-up; from there it falls to zero (cosine annealing).
        free: the choices that are sampled, by gene. The values of ``depth`` are indices of each stage's depths, 0 the shallowest, as in
            ``Space.restrict``. Genes that are not named have their largest value.
        resolutions: height and width of the input in pixels, such as 224 or "224x160", one drawn for each batch; empty for all of the
            space.
        subnets_per_step: number of subnets whose gradients are averaged in each step.
        sampling: how subnets are chosen: ``uniform``, ``strata`` (small and large networks as often as middling ones) or ``best-up``
            (of several candidates, the most promising one by the losses so far).
        sandwich: whether each step trains the largest and the smallest network of the phase (Yu and Huang, ICCV 2019).
        coupled: whether a stage's depth and width are chosen together (CompOFA, Sahni et al., ICLR 2021).
        reorder_channels: whether channels are first sorted by importance (by the recipe's ``importance``), so that narrow subnets keep
            the important ones.
        distillation_weight: weight of the teacher's soft targets; the labels have weight 1. 0 is no teacher, infinity no labels.
        teacher: ``copy`` is a copy of the largest network, taken when the first phase that distils begins, or the teacher that the recipe
            names. ``in-place`` is the step's largest network, which itself learns from the labels (BigNAS, Yu et al., ECCV 2020). If the
            recipe names a teacher, the largest network also learns from it with the same weight (1 if the weight is infinite).
        features_weight: weight of the squared distance between a subnet's and its teacher's features before the last block, relative to
            the teacher's squared norm, where both have the same shape (Romero et al., ICLR 2015). Teachers of your own provide no features.
        divergence: divergence between teacher and subnet: ``kl`` (Kullback-Leibler) or ``alpha`` (adaptive, AlphaNet).
        dropout: which networks have dropout in the classifier: ``all`` subnets, or only the ``largest`` network.
        warmup_epochs: epochs, or part of one, in which the learning rate rises linearly from zero.
        restart: whether the phase begins like the first phase of a run: a cosine over the whole run ends before it and starts again here,
            and a teacher's copy is taken anew. ``ofa train --resume RUN --epochs N`` adds such a phase.

    Raises:
        RecipeError: an impossible value.
    """

    name: str
    epochs: int
    learning_rate: float
    free: tuple[Gene, ...] = ()
    resolutions: tuple[Resolution, ...] = ()
    subnets_per_step: int = 1
    sampling: Literal["uniform", "strata", "best-up"] = "uniform"
    sandwich: bool = False
    coupled: bool = False
    reorder_channels: bool = False
    distillation_weight: float = 0.0
    teacher: Literal["copy", "in-place"] = "copy"
    features_weight: float = 0.0
    divergence: Divergence = "kl"
    dropout: Literal["all", "largest"] = "all"
    warmup_epochs: float = 0.0
    restart: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolutions", tuple(map(parse_resolution, self.resolutions)))
        where = f"phases.{self.name}"
        check_range(f"{where}.epochs", self.epochs, 1, most=MOST_EPOCHS)
        check_range(f"{where}.subnets_per_step", self.subnets_per_step, 1, most=_MOST_SUBNETS)
        check_range(f"{where}.distillation_weight", self.distillation_weight, 0)
        check_range(f"{where}.features_weight", self.features_weight, 0)
        check_range(f"{where}.warmup_epochs", self.warmup_epochs, 0, self.epochs)
        if not 0 < self.learning_rate < float("inf"):
            raise RecipeError(
                f"{where}.learning_rate must be above 0, but is {self.learning_rate}; 0.1 is common for SGD", key="learning_rate"
            )
        if self.sandwich and self.subnets_per_step < 2:
            raise RecipeError(
                f"{where}.subnets_per_step must be at least 2 with sandwich, but is {self.subnets_per_step}; raise it",
                key="subnets_per_step",
            )
        if self.distils_in_place and not self.sandwich:
            raise RecipeError(
                f"{where}.sandwich must be true for a teacher in-place, which is the step's largest network; set it", key="sandwich"
            )
        for gene in self.free:
            if gene.name == "depth" and any(value != value // 1 for value in gene.values):
                raise RecipeError(f"{where}.free.depth must be whole numbers, but is {list(gene.values)}; 0 is the shallowest", key="free")
        if "resolution" in (gene.name for gene in self.free):
            raise RecipeError(
                f"{where}.free must not name the resolution, which is drawn for each batch; use {where}.resolutions instead", key="free"
            )

    @property
    def distils_in_place(self) -> bool:
        """Whether the step's largest network teaches the others."""
        return self.distillation_weight > 0 and self.teacher == "in-place"

    @property
    def needs_copy(self) -> bool:
        """Whether the phase needs a copy of the largest network as its teacher."""
        return self.distillation_weight > 0 and self.teacher == "copy"

    def restrict(self, space: AnySpace) -> AnySpace:
        """The part of ``space`` that this phase samples from.

        Raises:
            RecipeError: a gene, value or resolution that the space does not have.
        """
        kept = {gene.name: gene.values for gene in self.free}
        deepest = max((len(stage.depths) for stage in space.stages), default=1) - 1
        depth = [int(index) for index in kept.pop("depth", (deepest,))]
        every = [*space.network, *(gene for stage in space.stages for gene in stage.genes)]
        largest = {gene.name: gene.values[-1:] for gene in every}
        try:
            return space.restrict(resolution=self.resolutions or None, depth=depth, **{**largest, **kept})
        except SpaceError as error:
            raise RecipeError(f"phases.{self.name} must keep to its space: {error}") from error
