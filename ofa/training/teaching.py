"""The teacher of a run's subnets: the user's own network, a copy of the largest network, the step's largest network, or none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ofa.blocks.wiring import segments
from ofa.errors import RecipeError, WeightsError
from ofa.families import lower
from ofa.supernet import Supernet
from ofa.training.evaluation import digest_of_tensors
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.start import START
from ofa.training.state import TrainingState, part_of
from ofa.training.step import Objective

__all__ = ["Teaching"]


class Teaching:
    """The teacher of each phase.

    Args:
        recipe: recipe of the run.
        supernet: the supernet whose largest network is copied if the recipe names no teacher.
        own: the teacher that the recipe names; None if it names none.
    """

    def __init__(self, recipe: Recipe, supernet: Supernet, own: nn.Module | None) -> None:
        self._recipe, self._supernet, self._own = recipe, supernet, own
        # Parameters only: batch-norm statistics may come from a calibration, which another GPU rounds differently.
        self._digest = "" if own is None else digest_of_tensors(dict(own.named_parameters()))
        self._copy: nn.Module | None = None

    def begin(self, phase: Phase) -> None:
        """Prepare the teacher for a phase that begins (rather than resumes from a state).

        Raises:
            RecipeError: the recipe's start is the teacher, but it has other classes, or the recipe has no start.
        """
        if self._from_start and self._copy is None and (self._recipe.start is None or self._recipe.start.new):
            found = "the recipe has no start" if self._recipe.start is None else "its classifier is new, because its classes differ"
            raise RecipeError(
                f'a start that teaches must know the classes of the data, but {found}; leave teacher = "{START}" out', key="teacher"
            )
        if self._own is None and (phase.needs_copy or self._from_start) and (self._copy is None or self._is_renewed(phase)):
            self._copy = self._largest()

    def objective(self, phase: Phase) -> Objective:
        """The training objective of a phase."""
        teacher = self._own or (self._copy if phase.needs_copy or self._from_start else None)
        return Objective(
            task=self._recipe.get_task(),
            label_smoothing=self._recipe.label_smoothing,
            teacher=teacher if phase.distillation_weight > 0 else None,
            teacher_is_own=self._own is not None,
            in_place=phase.distils_in_place,
            distillation_weight=phase.distillation_weight,
            divergence=phase.divergence,
            features_weight=phase.features_weight,
            last_block=self._last_block if self._own is None else "",
            dropout_first_only=phase.dropout == "largest",
        )

    @property
    def _from_start(self) -> bool:
        return self._recipe.teacher == START

    def _is_renewed(self, phase: Phase) -> bool:
        return phase.restart and not self._from_start

    def capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors (not copied) of the copy that teaches; for the user's own teacher only its digest, which ``restore`` checks."""
        copied = {} if self._copy is None else self._copy.state_dict()
        return {f"teacher.{name}": tensor for name, tensor in copied.items()}, {"teacher": self._digest} if self._digest else {}

    def restore(self, state: TrainingState) -> None:
        """Restore what ``capture`` returned.

        Raises:
            WeightsError: the user's own teacher has other weights than before.
        """
        # The first state of an extension holds no teacher.
        if state.values.get("teacher", self._digest) != self._digest:
            raise WeightsError(
                f"a run must be resumed with the teacher that it began with, but the weights of '{self._recipe.teacher}' have changed; put "
                "them back, or train anew"
            )
        self._copy, copied = None, part_of(state.tensors, "teacher")
        if copied:
            self._copy = self._largest()
            self._copy.load_state_dict(copied)

    @property
    def _last_block(self) -> str:
        space = self._supernet.space
        return segments(lower(space, space.largest()))[-1][0].name

    def _largest(self) -> nn.Module:
        return self._supernet.extract(self._supernet.space.largest()).eval().requires_grad_(False)
