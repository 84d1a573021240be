"""What a dry run tells, also where losses are read for several steps at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ofa.data import ImageData
from ofa.errors import RecipeError
from ofa.training import Phase, Recipe, estimate, train
from ofa.training.distributed import ALONE
from ofa.training.trainer import Trainer

TINY = "ofa-mbv3-tiny"


@pytest.mark.parametrize(("batch_size", "untimed"), [(32, 2), (32, 10), (8, 2), (8, 10)])
def test_steps_are_timed_however_many_go_before(
    batch_size: int, untimed: int, recipe_of: Callable[..., Recipe], pictures: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(estimate._UNTIMED, "cpu", untimed)
    recipe = replace(recipe_of(TINY), batch_size=batch_size)
    (phase,) = estimate.estimate_phases(recipe.build_supernet(10), recipe, pictures)
    assert phase.steps == 2 * (96 // batch_size)
    assert phase.step_ms > 0
    assert phase.duration_s == pytest.approx(1e-3 * phase.step_ms * phase.steps)
    assert phase.images_per_s == pytest.approx(1e3 * batch_size / phase.step_ms)


def test_an_epoch_too_short_to_be_timed_is_refused(recipe_of: Callable[..., Recipe], pictures: ImageData) -> None:
    recipe = replace(recipe_of(TINY), batch_size=48)
    with pytest.raises(RecipeError, match=r"at least 3 steps to be timed, but full has 2 of 48 images; lower batch_size"):
        list(estimate.estimate_phases(recipe.build_supernet(10), recipe, pictures))


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
