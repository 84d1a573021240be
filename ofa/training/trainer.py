"""The trainer: a run that can stop at any step, be captured as a state, and resume as if it had never stopped.

All randomness of a step is derived from the recipe's seed and the step's number, never from earlier draws. So weights, optimizer state
and a few counters are the full state of a run, whatever the number of loader workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ofa.arch import Arch
from ofa.data import Images, default_workers, load_batches
from ofa.errors import DataError, WeightsError
from ofa.progress import Progress
from ofa.randomness import borrowed_randomness
from ofa.resolution import Resolution
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.distributed import World
from ofa.training.evaluation import device_of
from ofa.training.frozen import frozen_tensors
from ofa.training.guard import Setback, too_many_setbacks
from ofa.training.metrics import EpochMetrics
from ofa.training.ordering import order_channels
from ofa.training.phase import Phase
from ofa.training.phase_state import PhaseState, begin_phase
from ofa.training.plans import ARCHS, DROPOUT, epoch_plans
from ofa.training.recipe import Recipe
from ofa.training.recorded import CudaGraphs, Recorder
from ofa.training.sampling import Sampler
from ofa.training.schedule import Place, Schedule
from ofa.training.state import StatePace, Totals, TrainingState, part_of
from ofa.training.step import StepResult, training_step
from ofa.training.teaching import Teaching

__all__ = ["Trainer"]

_STEPS_BETWEEN_READINGS_ON_GPU = 10
_MOST_SETBACKS = 8
_FACTOR_OF_A_SETBACK = 0.5


class _GoneWrongError(Exception):
    """The guard detected divergence; caught by the trainer."""


def _never() -> bool:
    return False


@dataclass(eq=False)
class Trainer:
    """Trains a supernet by a recipe, epoch after epoch.

    Args:
        supernet: a supernet of the recipe's space, in training mode.
        recipe: the recipe.
        data: the images to train on.
        world: the processes that train together.
        progress: told of every step.
        on_state: called with good states to save; their tensors are not changed afterwards.
        on_setback: called when training diverged and is rolled back.
        own_sampler: draws the subnets instead of the samplers of the phases.
        own_teacher: the teacher that the recipe names, on the supernet's device.
        on_note: called with a sentence when images are read in another way than was asked for.
        stop: asked at each reading of losses; once it returns true, ``on_state`` is called and training stops.
        clock: returns seconds; states are at most ``SECONDS_BETWEEN_STATES`` apart.
        steps_between_readings: number of steps whose losses are read at once. 0 means 1 on a CPU and 10 on a GPU, because each reading
            synchronizes with the GPU.
    """

    supernet: Supernet
    recipe: Recipe
    data: Images
    world: World
    progress: Progress
    on_state: Callable[[TrainingState], None] | None = None
    on_setback: Callable[[Setback], None] | None = None
    own_sampler: Sampler | None = None
    on_note: Callable[[str], None] | None = None
    own_teacher: nn.Module | None = None
    stop: Callable[[], bool] = _never
    clock: Callable[[], float] = time.monotonic
    steps_between_readings: int = 0
    step: int = 0
    rate_factor: float = 1.0
    setbacks: int = 0
    note: str = ""
    """A short text that progress shows beside the loss."""
    stopped: bool = False
    pending: EpochMetrics | None = None
    """Metrics of an ended epoch that are not yet written; part of the state, so that they are not lost."""
    _phase: PhaseState | None = None
    _totals: Totals = field(default_factory=Totals)
    _unread: list[tuple[Place, tuple[Arch, ...], StepResult]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # ``batch_indices`` drops a short last batch unless it is the only one.
        self.schedule = Schedule(self.recipe.phases, max(1, len(self.data) // self.recipe.batch_size), self.recipe.cosine)
        self.device = device_of(self.supernet)
        self.supernet.freeze(frozen_tensors(self.supernet.space, self.recipe.frozen))
        self._teaching = Teaching(self.recipe, self.supernet, self.own_teacher)
        self.workers = default_workers(self.data) if self.recipe.workers is None else self.recipe.workers
        if not self.steps_between_readings:
            self.steps_between_readings = 1 if self.device.type == "cpu" else _STEPS_BETWEEN_READINGS_ON_GPU
        self._good: TrainingState | None = None
        self._pace, self._is_late = StatePace(self.clock), False
        # Several processes exchange sums within batch norms, which graphs do not record.
        records = self.recipe.cuda_graphs and self.device.type == "cuda" and self.world.size == 1
        self._recorder = Recorder(CudaGraphs()) if records else None

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.schedule.total

    def begin(self) -> PhaseState:
        """Prepare the next step; at the beginning of a phase this may reorder channels."""
        place = self.schedule.place(self.step)
        if self._good is None:
            self._keep()
        if self._phase is None or self._phase.number != place.number:
            self._phase = self._enter(place, fresh=place.step_in_phase == 0)
        return self._phase

    def epoch(self, until: int | None = None) -> EpochMetrics | None:
        """Train to the end of the epoch, or to step ``until`` if that is earlier.

        Returns:
            The epoch's metrics; None if the epoch has not ended or training was rolled back.

        Raises:
            RecipeError: training diverged too often.
        """
        place, phase = self.schedule.place(self.step), self.begin()
        try:
            self._steps(place, phase, until)
            self._wait_for_steps()
            if self.stopped and self.step != place.epoch_start + self.schedule.steps_per_epoch:
                self._keep()
        except _GoneWrongError as error:
            self._go_back(place, str(error))
            return None
        if self.step != place.epoch_start + self.schedule.steps_per_epoch:
            return None
        return self._end_of_epoch(place)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _steps(self, place: Place, phase: PhaseState, until: int | None) -> None:
        plans = epoch_plans(self.recipe, len(self.data), place, list(phase.spaces), self.world)
        if until is not None:
            plans = plans[: until - place.epoch_start]
        rest = plans[place.offset :]
        loader = load_batches(
            self.data, rest, augmentation=self.recipe.augmentation, device=self.device, workers=self.workers, on_note=self.on_note
        )
        try:
            for plan in rest:
                started = time.perf_counter()
                batch = self._next(loader)
                if batch is None:
                    break
                loaded = time.perf_counter()
                self._one_step(phase, plan.resolution, batch)
                self._totals.waiting_s += loaded - started
                self._totals.duration_s += time.perf_counter() - started
                if self.step == place.epoch_start + self.schedule.steps_per_epoch:
                    break  # the state at the end of an epoch is saved with its metrics, never without
                if self.step % self.recipe.checkpoint_steps == 0:
                    self._wait_for_steps()
                    self._keep()
                elif self._is_late:  # set only by ``_read``, after which no step is unread
                    self._tell(self.capture())
                if self.stopped:
                    break
        finally:
            loader.close()

    def _next(self, loader: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        """The next batch; None if the workers ended, because a signal that is to stop this process reached them too."""
        try:
            return next(loader)
        except (RuntimeError, DataError):
            if self.world.size > 1 or not self.stop():
                raise
            self.stopped = True
            return None

    def _wait_for_steps(self) -> None:
        """Read all unread results. This waits for the GPU's steps, so its time counts as theirs."""
        started = time.perf_counter()
        self._read()
        self._totals.duration_s += time.perf_counter() - started

    def _one_step(self, phase: PhaseState, resolution: Resolution, batch: tuple[Tensor, Tensor]) -> None:
        place = self.schedule.place(self.step)
        for group in phase.optimizer.param_groups:
            group["lr"] = self.rate(place) * group.get("rate_factor", 1.0)
        archs = self._draw(place.phase, phase.sampler, phase.spaces[resolution])
        with self._dropout():
            result = training_step(
                self.supernet,
                archs,
                batch,
                phase.optimizer,
                phase.objective,
                precision=self.recipe.precision,
                scaler=phase.scaler,
                clip_norm=self.recipe.clip_norm,
                world=self.world,
                recorder=self._recorder,
            )
        if phase.average is not None:
            phase.average.update()
        self.step += 1
        self._unread.append((place, archs, result))
        if self.step % self.steps_between_readings == 0:
            self._read()

    def rate(self, place: Place) -> float:
        """The learning rate of a step."""
        return self.rate_factor * self.schedule.rate(place)

    def _draw(self, phase: Phase, sampler: Sampler, space: Space) -> tuple[Arch, ...]:
        ends = (space.largest(), space.smallest()) if phase.sandwich else ()
        rng = self.recipe.rng("training", ARCHS, self.step)
        return ends + tuple(sampler.draw(space, phase.subnets_per_step - len(ends), rng))

    def _dropout(self) -> Any:
        if not self.supernet.dropout:
            return nullcontext()
        return borrowed_randomness(self.recipe.generator("training", DROPOUT, self.step, self.world.rank), self.device)

    def _read(self) -> None:
        """Fetch the results of the latest steps, averaged over processes."""
        phase = self._phase
        if not self._unread or phase is None:
            return
        results = [
            part for _, _, result in self._unread for part in (result.losses.float(), result.accuracy[None], result.cross_entropy[None])
        ]
        # All processes must stop, and capture a state, after the same step, so their wishes are averaged along with the results.
        told = torch.cat([*results, torch.tensor([float(self.stop()), float(self._pace.would_be_late())], device=self.device)])
        self.world.average_(told)
        *numbers, asked, late = told.tolist()
        values, self.stopped, self._is_late = iter(numbers), asked > 0, late > 0
        unread, self._unread = self._unread, []
        for place, archs, _ in unread:
            losses = [next(values) for _ in archs]
            accuracy, cross_entropy, loss = next(values), next(values), sum(losses) / len(losses)
            wrong = phase.guard.check(loss, accuracy)
            if wrong is not None:
                raise _GoneWrongError(wrong)
            # The loss of an in-place teacher is not comparable with the losses of its students.
            first = int(place.phase.distils_in_place)
            phase.sampler.observe(archs[first:], losses[first:])
            self._totals.add(loss, cross_entropy, accuracy)
        speed = f", {self._images_per_s(place):,.0f} images/s" if self._totals.duration_s else ""
        task = phase.objective.task
        shown = f"{task.loss_name} {cross_entropy:.3f} (chance {task.chance_loss(self.data.num_classes):.3f})"
        text = f"{place.phase.name} {place.epoch + 1}/{place.phase.epochs}, {shown}{self.note}{speed}"
        self.progress(self.step, self.schedule.total, text)

    def _images_per_s(self, place: Place) -> float:
        """Training images per second over this epoch's steps before the current one, whose time is not counted yet."""
        return place.offset * min(self.recipe.batch_size, len(self.data)) / self._totals.duration_s

    # -- phases and epochs --------------------------------------------------------------------------------------------

    def _enter(self, place: Place, *, fresh: bool) -> PhaseState:
        """Prepare a phase; ``fresh`` if it begins, rather than resumes from a state."""
        phase = place.phase
        if fresh and phase.reorder_channels:
            tell = partial(self.progress, self.step, self.schedule.total)
            order_channels(self.supernet, self.recipe, self.data, place, world=self.world, workers=self.workers, tell=tell)
        if fresh:
            self._teaching.begin(phase)
        objective = self._teaching.objective(phase)
        return begin_phase(place.number, phase, self.recipe, self.supernet, objective=objective, sampler=self.own_sampler)

    def _end_of_epoch(self, place: Place) -> EpochMetrics:
        totals, self._totals = self._totals, Totals()
        steps = self.schedule.steps_per_epoch
        if place.epoch + 1 == place.phase.epochs:
            if self._phase is not None and self._phase.average is not None:
                self._phase.average.write()
            self._phase = None
        self.pending = EpochMetrics(
            phase=place.phase.name,
            epoch=place.epoch + 1,
            epochs=place.phase.epochs,
            loss=totals.loss / steps,
            accuracy=totals.accuracy / steps,
            learning_rate=self.rate(self.schedule.place(self.step - 1)),
            images_per_s=steps * min(self.recipe.batch_size, len(self.data)) / totals.duration_s,
            duration_s=totals.duration_s,
            step=self.step,
            waiting_s=totals.waiting_s,
            rate_factor=self.rate_factor,
            cross_entropy=None if math.isnan(totals.cross_entropy) else totals.cross_entropy / steps,
        )
        self._keep()
        return self.pending

    def stops_here(self) -> bool:
        """Whether training is to stop between two epochs. Several processes stop only after a step, to stop at the same one."""
        if not self.stopped and self.world.size == 1 and self.stop():
            self.stopped = True
            if self.on_state is not None and self._good is not None:
                self.on_state(self._good)
        return self.stopped

    def averaged(self) -> Any:
        """Context in which the supernet has the averaged weights, if the phase averages weights."""
        return self._phase.average.in_place() if self._phase is not None and self._phase.average is not None else nullcontext()

    # -- states -------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Keep the present state as the last good one."""
        self._good = self.capture()
        self._tell(self._good)

    def _tell(self, state: TrainingState) -> None:
        """Hand a state to ``on_state``."""
        if self.on_state is not None:
            self.on_state(state)
        self._pace.told()
        self._is_late = False

    def capture(self) -> TrainingState:
        """A copy of the run's state."""
        taught, known = self._teaching.capture()
        tensors = {**{f"store.{name}": tensor for name, tensor in self.supernet.state_dict().items()}, **taught}
        values: dict[str, Any] = {"rate_factor": self.rate_factor, "setbacks": self.setbacks, "totals": asdict(self._totals), **known}
        if self.pending is not None:
            values["pending"] = asdict(self.pending)
        if self._phase is not None:
            found, counters = self._phase.capture()
            tensors, values = tensors | found, values | counters
        return TrainingState(self.step, {name: tensor.detach().clone() for name, tensor in tensors.items()}, values)

    def restore(self, state: TrainingState) -> None:
        """Restore a state that ``capture`` returned in a run of the same recipe.

        Raises:
            WeightsError: the state is of another space or recipe.
        """
        if not 0 <= state.step <= self.schedule.total:
            raise WeightsError(
                f"a checkpoint must lie within its recipe's {self.schedule.total} steps, but this one is of step {state.step}; resume with "
                "the recipe and data that it was made with"
            )
        try:
            self.supernet.load_state_dict(part_of(state.tensors, "store"))
            self._restore_values(state)
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise WeightsError(
                f"a checkpoint must be of its run's space and recipe, but {' '.join(str(error).split())}; resume the run that made it"
            ) from error
        self._good = state

    def _restore_values(self, state: TrainingState) -> None:
        values = state.values
        self.step, self.rate_factor, self.setbacks = state.step, values["rate_factor"], values["setbacks"]
        # States of versions that did not sum the cross entropy lack it.
        self._totals = Totals(**{"cross_entropy": math.nan, **values["totals"]})
        self._unread, self._phase = [], None
        self.pending = EpochMetrics(**values["pending"]) if "pending" in values else None
        self._teaching.restore(state)
        if "guard" in values:
            self._phase = self._enter(self.schedule.place(self.step), fresh=False)
            self._phase.restore(state.tensors, values)

    def _go_back(self, place: Place, reason: str) -> None:
        """Roll back to the last good state with a lower learning rate."""
        assert self._good is not None
        at, factor, count = self.step, self.rate_factor * _FACTOR_OF_A_SETBACK, self.setbacks + 1
        now = self.schedule.place(at - 1)
        self.restore(self._good)
        self.pending = None  # its line was written before the diverged steps
        if count > _MOST_SETBACKS:
            raise too_many_setbacks(_MOST_SETBACKS, reason, place.phase.name, now.epoch + 1, self.rate(now))
        self.rate_factor, self.setbacks = factor, count
        # The good state gets the lower rate, so that a second setback lowers it further and a resumed run keeps it.
        self._good = TrainingState(self._good.step, self._good.tensors, {**self._good.values, "rate_factor": factor, "setbacks": count})
        if self.on_setback is not None:
            self.on_setback(
                Setback(phase=now.phase.name, epoch=now.epoch + 1, step=at, back_to=self._good.step, reason=reason, rate_factor=factor)
            )
