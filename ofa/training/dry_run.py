"""Estimates the cost of a run from a few of its steps.

Where whole steps would take minutes (such as 224 px on a CPU), steps of fewer images are timed within the given seconds. The time of a
step is then assumed proportional to its multiply-accumulates.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa.arch import Arch
from ofa.cost import macs
from ofa.data import BatchPlan, Images, default_workers, make_batch, measure_loader
from ofa.families import lower
from ofa.resolution import ascending
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.distributed import ALONE, World
from ofa.training.evaluation import device_of
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import Repeated, Sampler, make_sampler
from ofa.training.trainer import Trainer

__all__ = ["PhaseEstimate", "estimate_phases", "expected_memory", "loader_rate", "peak_memory"]

_UNTIMED = {"cpu": 2, "cuda": 10}
"""Warm-up steps before the timed ones: memory is allocated and kernels are chosen (on a GPU also loaded)."""
_DRAWS_ON_GPU = 3
"""On a GPU a block is slower the first two times, so every draw is repeated this often during warm-up."""
_FEWEST = 4
"""Least number of images of each process in a timed step: with fewer, call overhead outweighs computation."""
_DRAWS = 64
"""Number of random steps whose mean multiply-accumulates stand for a phase."""
_LOADER_BATCH, _LOADER_SECONDS = 16, 2.0


@dataclass(frozen=True, kw_only=True)
class PhaseEstimate:
    """Estimated cost of a phase.

    Attributes:
        phase: the phase.
        steps: number of steps of the phase.
        step_ms: duration of a step in ms: the mean of the timed steps, or extrapolated from them.
        images_per_s: training images per second.
        duration_s: expected wall-clock seconds.
        timed_images: images in each timed step. With fewer than a batch, the time is extrapolated by multiply-accumulates. 0 if no step
            of this phase was timed, only steps of earlier phases.
    """

    phase: Phase
    steps: int
    step_ms: float
    images_per_s: float
    duration_s: float
    timed_images: int


def estimate_phases(
    supernet: Supernet,
    recipe: Recipe,
    data: Images,
    *,
    images: int | None = None,
    steps: int = 6,
    teacher: nn.Module | None = None,
    world: World = ALONE,
    seconds: float = 12.0,
) -> Iterator[PhaseEstimate]:
    """Take a few steps of every phase, on weights that are thrown away.

    Args:
        supernet: an untrained supernet; its weights are changed, so do not use it afterwards.
        recipe: recipe of the run.
        data: training images of the run, or a part of them.
        images: number of all training images; None if ``data`` has all.
        steps: the most steps to time in a phase.
        teacher: the teacher that the recipe names.
        world: the processes that train together.
        seconds: approximate time limit for all phases together. Where it is too short on a CPU, fewer steps with fewer images are timed;
            a GPU takes all steps.

    Yields:
        One estimate for each phase.
    """
    supernet.train().synchronize(world.size > 1)
    timer = _Timer(supernet, recipe, data, images or len(data), steps, world, teacher)
    for number, phase in enumerate(recipe.phases):
        yield timer.estimate(phase, (seconds - timer.spent_s) / (len(recipe.phases) - number))


class _Timer:
    """Times one phase after the other; the speed so far tells how many images the next phase can afford."""

    def __init__(
        self, supernet: Supernet, recipe: Recipe, data: Images, images: int, steps: int, world: World, teacher: nn.Module | None
    ) -> None:
        self._supernet, self._recipe, self._data, self._steps, self._world = supernet, recipe, data, steps, world
        self._teacher = teacher
        self._device = device_of(supernet).type
        self._batch = min(recipe.batch_size, len(data))
        self._steps_per_epoch = max(1, images // recipe.batch_size)
        self._timed_s = self._timed_macs = 0.0
        self.spent_s = 0.0

    def estimate(self, phase: Phase, seconds: float) -> PhaseEstimate:
        """Estimate the cost of a phase within about this many seconds."""
        images, untimed, timed = self._batch, _UNTIMED[self._device], self._steps
        expected = _expected_macs(phase, self._supernet.space)
        if self._device == "cpu":
            images, untimed, timed = self._affordable(phase, expected, seconds)
        if timed:
            step_s, done = self._time(phase, images, untimed, timed, seconds)
            if images < self._batch:
                step_s *= expected * self._batch / done
        else:
            step_s, images = self._speed * expected * self._batch, 0
        steps = phase.epochs * self._steps_per_epoch
        return PhaseEstimate(
            phase=phase,
            steps=steps,
            step_ms=1e3 * step_s,
            images_per_s=self._batch / step_s,
            duration_s=steps * step_s,
            timed_images=images,
        )

    @property
    def _speed(self) -> float:
        """Seconds per multiply-accumulate over the steps so far."""
        return self._timed_s / self._timed_macs

    def _affordable(self, phase: Phase, expected: float, seconds: float) -> tuple[int, int, int]:
        """Images in a step, warm-up steps and timed steps; equal on every process."""
        fewest = min(self._batch, _FEWEST * self._world.size)
        if not self._timed_macs:
            begun = self.spent_s
            # Without a time limit: the first step is dominated by initialization and tells nothing about the second.
            self._time(phase, fewest, 1, 1, math.inf)
            seconds -= self.spent_s - begun
        if seconds < self._speed * expected * fewest:
            return fewest, 0, 0
        images = int(seconds / (self._speed * expected * (1 + 2))) // self._world.size * self._world.size
        images = min(self._batch, max(fewest, images))
        untimed = _UNTIMED["cpu"] if images == self._batch else 1
        timed = math.floor(seconds / (self._speed * expected * images)) - untimed
        return images, untimed, min(self._steps, max(1, timed))

    def _time(self, phase: Phase, images: int, untimed: int, timed: int, seconds: float) -> tuple[float, float]:
        """Mean seconds and multiply-accumulates of a step; on a CPU no second timed step begins after ``seconds``."""
        begun = time.perf_counter()
        noted = _Noted(self._sampler(phase))
        trainer, told = self._trainer(phase, images, noted)
        # A step is known to be complete only when progress is reported, so time is taken between reports.
        trainer.steps_between_readings = 1 if self._device == "cpu" else untimed
        trainer.stop = lambda: self._device == "cpu" and trainer.step > untimed and time.perf_counter() - begun > seconds
        while trainer.step < untimed + timed and not trainer.stopped:
            trainer.epoch(until=untimed + timed)
        (first, since), (last, until) = next(each for each in told if each[0] >= untimed), told[-1]
        done = [images * _macs_of(phase, space, archs, self._supernet.space) for space, archs in noted.drawn[first:last]]
        took = torch.tensor([until - since, time.perf_counter() - begun], dtype=torch.float64)
        self._world.average_(took)
        self._timed_s += float(took[0])
        self._timed_macs += sum(done)
        self.spent_s += float(took[1])
        return float(took[0]) / len(done), sum(done) / len(done)

    def _sampler(self, phase: Phase) -> Sampler:
        sampler = make_sampler(phase.sampling, self._supernet.space, coupled_genes=phase.coupled)
        return Repeated(sampler, _DRAWS_ON_GPU) if self._device == "cuda" else sampler

    def _trainer(self, phase: Phase, images: int, sampler: Sampler) -> tuple[Trainer, list[tuple[int, float]]]:
        """A trainer, and the list of (step, time) that it appends to."""
        # As the only phase, it begins from the largest network. At so low a rate training cannot diverge, whatever the batch.
        alone = replace(phase, reorder_channels=False, epochs=10**6, warmup_epochs=0.0, learning_rate=1e-9)
        if self._device == "cuda":
            resolutions = phase.restrict(self._supernet.space).resolutions
            alone = replace(alone, resolutions=resolutions[len(resolutions) // 2 :][:1])
        recipe = replace(self._recipe, phases=(alone,), batch_size=images)
        told: list[tuple[int, float]] = []
        tell = lambda done, *_: told.append((done, time.perf_counter()))  # noqa: E731
        return Trainer(self._supernet, recipe, self._data, self._world, tell, own_sampler=sampler, own_teacher=self._teacher), told


class _Noted:
    """Wraps a sampler and records its draws."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.drawn: list[tuple[Space, tuple[Arch, ...]]] = []

    def draw(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
        archs = self._sampler.draw(space, count, rng)
        self.drawn.append((space, archs))
        return archs

    def observe(self, archs: Sequence[Arch], losses: Sequence[float]) -> None:
        self._sampler.observe(archs, losses)

    def state(self) -> dict[str, NDArray[Any]]:
        return self._sampler.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._sampler.restore(state)


def _expected_macs(phase: Phase, whole: Space) -> float:
    """Multiply-accumulates of a phase's step per image: the mean over random steps."""
    space, rng = phase.restrict(whole), np.random.default_rng(0)
    sampler = make_sampler(phase.sampling, whole, coupled_genes=phase.coupled)
    count = phase.subnets_per_step - 2 * phase.sandwich
    total = 0.0
    for number in range(_DRAWS):
        cut = space.restrict(resolution=(space.resolutions[number % len(space.resolutions)],))
        total += _macs_of(phase, cut, sampler.draw(cut, count, rng), whole)
    return total / _DRAWS


def _macs_of(phase: Phase, space: Space, archs: Sequence[Arch], whole: Space) -> float:
    """Forward multiply-accumulates of a step per image. Backward takes twice as many; a teacher has no backward, hence its third."""
    ends = (space.largest(), space.smallest()) if phase.sandwich else ()
    total = float(sum(macs(lower(whole, arch)) for arch in (*ends, *archs)))
    return total + (macs(lower(whole, whole.largest(space.resolutions[0]))) / 3 if phase.needs_copy else 0.0)


def peak_memory(device: torch.device) -> int:
    """Peak memory so far in bytes: of this process (on a CPU), or of its tensors (on a GPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def expected_memory(supernet: Supernet, recipe: Recipe, data: Images, *, timed_images: int, world: World = ALONE) -> int:
    """Expected peak memory of a process: its peak in steps of fewer images, plus the activations of the missing images.

    The activations of an image are counted in the largest network.

    Args:
        supernet: the supernet whose steps were timed.
        recipe: recipe of the run.
        data: training images of the run.
        timed_images: the most images in a step so far.
        world: the processes that train together.

    Returns:
        Bytes.
    """
    missing = (min(recipe.batch_size, len(data)) - timed_images) // world.size
    if missing <= 0:
        return peak_memory(world.device)
    resolution = ascending(phase.restrict(supernet.space).resolutions[-1] for phase in recipe.phases)[-1]
    index = torch.arange(3) % len(data)
    x_BCHW, _ = make_batch(data, index, resolution=resolution, device=world.device)
    network = supernet.subnet(supernet.space.largest(resolution))
    return peak_memory(world.device) + missing * (_kept_bytes(network, x_BCHW) - _kept_bytes(network, x_BCHW[:2]))


def _kept_bytes(network: nn.Module, x_BCHW: Tensor) -> int:
    """Bytes that autograd saves for the backward pass of a network."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(x_BCHW)
    return sum(kept.values())


def loader_rate(recipe: Recipe, data: Images, world: World = ALONE, *, batches: int = 80, seconds: float = _LOADER_SECONDS) -> float:
    """Training images per second that the loader delivers when steps take no time; it should be well above the steps' own rate.

    Args:
        recipe: recipe of the run.
        data: training images of the run.
        world: the processes that train together.
        batches: the most batches to load, each of at most 16 images.
        seconds: no further batch is begun after these seconds.
    """
    resolution = recipe.get_space(data.num_classes).resolutions[-1]
    index = torch.arange(min(recipe.batch_size, len(data), _LOADER_BATCH * world.size))
    plans = [BatchPlan(world.share((index + number * len(index)) % len(data)), resolution, number) for number in range(batches)]
    workers = default_workers(data) if recipe.workers is None else recipe.workers
    return measure_loader(data, plans, augmentation=recipe.augmentation, device=world.device, workers=workers, seconds=seconds)
