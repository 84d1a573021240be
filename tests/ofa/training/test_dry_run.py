"""What a dry run tells, also where losses are read for several steps at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from ofa.cost import macs
from ofa.data import ImageData
from ofa.families import get_space, lower
from ofa.training import Phase, Recipe, dry_run, progressive_shrinking, train
from ofa.training.distributed import ALONE
from ofa.training.trainer import Trainer

TINY = "ofa-mbv3-tiny"


@pytest.mark.parametrize(("batch_size", "untimed"), [(32, 2), (32, 10), (8, 2), (8, 10)])
def test_steps_are_timed_however_many_go_before(
    batch_size: int, untimed: int, recipe_of: Callable[..., Recipe], pictures: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dry_run._UNTIMED, "cpu", untimed)
    recipe = replace(recipe_of(TINY), batch_size=batch_size)
    (phase,) = dry_run.estimate_phases(recipe.build_supernet(10), recipe, pictures, seconds=1000)
    assert phase.steps == 2 * (96 // batch_size)
    assert phase.step_ms > 0
    assert phase.duration_s == pytest.approx(1e-3 * phase.step_ms * phase.steps)
    assert phase.images_per_s == pytest.approx(1e3 * batch_size / phase.step_ms)
    assert phase.timed_images == batch_size


def test_epochs_of_a_single_step_are_timed_over_several(recipe_of: Callable[..., Recipe], pictures: ImageData) -> None:
    recipe = replace(recipe_of(TINY), batch_size=200)
    (phase,) = dry_run.estimate_phases(recipe.build_supernet(10), recipe, pictures, seconds=1000)
    assert (phase.steps, phase.timed_images) == (2, 96)
    assert phase.images_per_s == pytest.approx(1e3 * 96 / phase.step_ms)


def test_what_there_is_no_time_for_is_extrapolated(recipe_of: Callable[..., Recipe], pictures: ImageData) -> None:
    """No step is timed but one of four images; the others are as much longer as they have more multiply-accumulates."""
    full = Phase(name="full", epochs=1, learning_rate=0.1, resolutions=(16,))
    phases = (full, replace(full, name="larger", resolutions=(32,)), replace(full, name="thrice", subnets_per_step=3))
    recipe = recipe_of(TINY, *phases)
    found = list(dry_run.estimate_phases(recipe.build_supernet(10), recipe, pictures, seconds=1e-6))
    assert [phase.timed_images for phase in found] == [0, 0, 0]
    first, larger, thrice = (phase.step_ms for phase in found)
    space = get_space(TINY)
    small, large = (macs(lower(space, space.largest(side))) for side in (16, 32))
    assert larger / first == pytest.approx(large / small)
    assert thrice / first == pytest.approx(3)


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_a_dry_run_keeps_to_its_time_on_a_space_of_the_middle(
    seconds: float, recipe_of: Callable[..., Recipe], pictures: ImageData
) -> None:
    space = get_space("ofa-mbv3-32px")
    phases = [replace(phase, reorder_channels=False) for phase in progressive_shrinking(space, epochs=6)]
    recipe = recipe_of("ofa-mbv3-32px", *phases)
    started = time.perf_counter()
    found = list(dry_run.estimate_phases(recipe.build_supernet(10), recipe, pictures, seconds=seconds))
    # A step that was begun is ended, and building the networks takes its time too.
    assert time.perf_counter() - started < seconds + 30
    assert len(found) == len(phases)
    assert all(phase.step_ms > 0 and phase.timed_images <= 32 for phase in found)


def test_memory_grows_with_the_images_that_were_not_timed(
    recipe_of: Callable[..., Recipe], pictures: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = dry_run.peak_memory(ALONE.device)  # which the process may raise between two calls
    monkeypatch.setattr(dry_run, "peak_memory", lambda device: held)
    recipe = recipe_of(TINY)
    supernet = recipe.build_supernet(10).train()
    few, more, all_ = (dry_run.expected_memory(supernet, recipe, pictures, timed_images=images) for images in (4, 18, 32))
    assert few > more > all_ == held
    assert few - all_ == pytest.approx(2 * (more - all_), rel=0.01)


def test_losses_that_are_read_late_are_the_same(recipe_of: Callable[..., Recipe], pictures: ImageData) -> None:
    recipe = recipe_of(TINY, Phase(name="full", epochs=2, learning_rate=0.05, resolutions=(16,)))
    told: list[int] = []
    metrics = {}
    for steps in (1, 2, 10):
        trainer = Trainer(recipe.build_supernet(10).train(), recipe, pictures, ALONE, lambda done, *_: told.append(done))
        trainer.steps_between_readings = steps
        epochs = [trainer.epoch(), trainer.epoch()]
        metrics[steps] = [(epoch.loss, epoch.accuracy) for epoch in epochs if epoch is not None]
    assert told == [1, 2, 3, 4, 5, 6, 2, 3, 4, 6, 3, 6]
    whole = train(recipe.build_supernet(10), recipe, pictures)
    assert all(found == [(epoch.loss, epoch.accuracy) for epoch in whole] for found in metrics.values())
