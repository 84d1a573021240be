"""Phase: one stretch of training, in which some genes are free and all others stand at their largest value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ofa.errors import RecipeError, SpaceError
from ofa.space import Gene, Space
from ofa.training.tables import check_range

__all__ = ["Phase"]

AnySpace = TypeVar("AnySpace", bound=Space)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training.

    Attributes:
        name: what metrics and progress call it; unique in a recipe.
        epochs: passes over the training images.
        learning_rate: at the end of the warm-up; from there it falls to zero along a cosine.
        free: the choices that are sampled, by gene; ``depth`` counts each stage's depths from the shallowest, as
            ``Space.restrict`` does. Genes that are not named stand at their largest value.
        resolutions: sides of the input in pixels, one drawn for each batch; empty for all of the space.
        subnets_per_step: random subnets whose mean gradient makes one step.
        reorder_channels: whether channels are first put in the order of their importance, so that narrow subnets keep the
            important ones.
        distillation_weight: weight of the teacher's soft targets beside the labels' weight of 1; 0 is no teacher.
        warmup_epochs: epochs, or part of one, in which the learning rate rises linearly from zero.

    Raises:
        RecipeError: an impossible value.
    """

    name: str
    epochs: int
    learning_rate: float
    free: tuple[Gene, ...] = ()
    resolutions: tuple[int, ...] = ()
    subnets_per_step: int = 1
    reorder_channels: bool = False
    distillation_weight: float = 0.0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        where = f"phases.{self.name}"
        check_range(f"{where}.epochs", self.epochs, 1)
        check_range(f"{where}.subnets_per_step", self.subnets_per_step, 1)
        check_range(f"{where}.distillation_weight", self.distillation_weight, 0)
        check_range(f"{where}.warmup_epochs", self.warmup_epochs, 0, self.epochs)
        if not 0 < self.learning_rate < float("inf"):
            raise RecipeError(f"{where}.learning_rate must be above 0, but is {self.learning_rate}; 0.1 is common for SGD")
        if "resolution" in (gene.name for gene in self.free):
            raise RecipeError(f"{where}.free must not name the resolution, which each batch has one of; use {where}.resolutions instead")

    def restrict(self, space: AnySpace) -> AnySpace:
        """The part of ``space`` that this phase samples from.

        Raises:
            RecipeError: a gene, value or resolution that the space does not have.
        """
        kept = {gene.name: gene.values for gene in self.free}
        deepest = max(len(stage.depths) for stage in space.stages) - 1
        depth = [int(index) for index in kept.pop("depth", (deepest,))]
        every = [*space.network, *(gene for stage in space.stages for gene in stage.genes)]
        largest = {gene.name: gene.values[-1:] for gene in every}
        try:
            return space.restrict(resolution=self.resolutions or None, depth=depth, **{**largest, **kept})
        except SpaceError as error:
            raise RecipeError(f"phases.{self.name} must keep to its space: {error}") from error
