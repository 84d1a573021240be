"""A run that stops and goes on ends bit for bit as one that never stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ofa.data import ImageData
from ofa.errors import RecipeError, WeightsError
from ofa.families import get_space
from ofa.space import Gene
from ofa.supernet import Supernet
from ofa.training import (
    EpochMetrics,
    Phase,
    Recipe,
    Setback,
    TrainingState,
    begin_run,
    continue_run,
    extend_run,
    has_ended,
    progressive_shrinking,
    save_run,
    save_state,
    single_stage,
    train,
)
from ofa.training.differences import extended
from ofa.training.state import SECONDS_BETWEEN_STATES

MakeRecipe = Callable[..., Recipe]
Uninterrupted = Callable[[str], tuple[Supernet, Sequence[EpochMetrics]]]
TINY = "ofa-mbv3-tiny"


class KilledError(Exception):
    """What ends a run in the middle."""


def weights(supernet: Supernet) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in supernet.state_dict().values()]


def recipes(recipe_of: MakeRecipe) -> dict[str, Recipe]:
    space = get_space(TINY)
    shrinking = progressive_shrinking(space, epochs=5, subnets_per_step=2, resolutions=(16,))
    staged = single_stage(space, epochs=3, subnets_per_step=3, sampling="best-up", resolutions=(16,))
    half = Phase(name="half", epochs=2, learning_rate=0.01, resolutions=(16,))
    kernels = (Gene("kernel", (3, 5)),)
    best_up = Phase(name="a", epochs=7, learning_rate=0.02, free=kernels, resolutions=(16,), subnets_per_step=4, sampling="best-up")
    return {
        "shrinking": recipe_of(TINY, *shrinking, checkpoint_steps=2),
        "averaged, dropout, clipped": recipe_of(
            TINY, *staged, checkpoint_steps=2, weight_averaging=0.9, dropout=0.2, clip_norm=1.0, precision="bfloat16"
        ),
        "float16": recipe_of(TINY, half, checkpoint_steps=2, precision="float16"),
        "best-up": recipe_of(TINY, best_up, checkpoint_steps=5),
    }


def killed_at(step: int, recipe: Recipe, data: ImageData, **more: Any) -> tuple[TrainingState, list[float]]:
    """The last state of a run that dies at a step."""
    states: list[TrainingState] = []
    losses: list[float] = []

    def progress(done: int, total: int, text: str = "") -> None:
        if done == step:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe.build_supernet(10), recipe, data, progress=progress, on_state=states.append, **more)
    return states[-1], losses


@pytest.fixture(scope="module")
def uninterrupted(recipe_of: MakeRecipe, pictures: ImageData) -> Uninterrupted:
    @cache
    def run(name: str) -> tuple[Supernet, Sequence[EpochMetrics]]:
        recipe = recipes(recipe_of)[name]
        supernet = recipe.build_supernet(10)
        return supernet, train(supernet, recipe, pictures)

    return run


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *(("shrinking", step) for step in (1, 3, 4, 6, 7, 14)),
        *(("averaged, dropout, clipped", step) for step in (1, 5, 6, 7)),
        ("float16", 5),
        ("best-up", 19),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    name: str, step: int, uninterrupted: Uninterrupted, recipe_of: MakeRecipe, pictures: ImageData, tmp_path: Path
) -> None:
    recipe = recipes(recipe_of)[name]
    whole, metrics = uninterrupted(name)
    state, _ = killed_at(step, recipe, pictures)
    begin_run(tmp_path, recipe)
    save_state(tmp_path, recipe, state)
    read, _ = continue_run(tmp_path, recipe)
    assert read is not None
    assert read.step == state.step < step
    resumed = Supernet(whole.space, generator=torch.Generator().manual_seed(9), dropout=recipe.dropout)
    later = train(resumed, recipe, pictures, state=read)

    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
    same = [replace(epoch, duration_s=0, images_per_s=0, waiting_s=0) for epoch in metrics[-len(later) :]]
    assert [replace(epoch, duration_s=0, images_per_s=0, waiting_s=0) for epoch in later] == same


def test_a_run_leaves_the_global_randomness_alone(recipe_of: MakeRecipe, pictures: ImageData) -> None:
    recipe = recipe_of(TINY, dropout=0.3)
    before = torch.get_rng_state()
    train(recipe.build_supernet(10), recipe, pictures)
    assert torch.equal(torch.get_rng_state(), before)


def test_metrics_later_than_the_state_are_dropped(recipe_of: MakeRecipe, pictures: ImageData, tmp_path: Path) -> None:
    from ofa.training import append_metrics

    recipe = recipe_of(TINY, checkpoint_steps=1000)
    begin_run(tmp_path, recipe)
    states: list[TrainingState] = []
    train(recipe.build_supernet(10), recipe, pictures, on_state=states.append, on_metrics=lambda epoch: append_metrics(tmp_path, epoch))
    at_first_epoch = next(state for state in states if state.step == 3)
    save_state(tmp_path, recipe, at_first_epoch)
    state, metrics = continue_run(tmp_path, recipe)
    # The state ends with an epoch whose line may not have been written: it is made again, and stands there once.
    assert metrics == ()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    later = train(recipe.build_supernet(10), recipe, pictures, state=state)
    assert [epoch.step for epoch in later] == [3, 6]


def test_a_state_at_the_end_of_an_epoch_has_its_metrics(recipe_of: MakeRecipe, pictures: ImageData) -> None:
    """Whoever is killed when the last step is made goes on from there, and evaluates what was trained."""
    states: list[TrainingState] = []
    recipe = recipe_of(TINY, checkpoint_steps=1)
    metrics = train(recipe.build_supernet(10), recipe, pictures, on_state=states.append)
    assert [state.step for state in states if "pending" in state.values] == [epoch.step for epoch in metrics]
    assert len({state.step for state in states}) == len(states)


def test_only_the_last_two_states_are_kept(recipe_of: MakeRecipe, pictures: ImageData, tmp_path: Path) -> None:
    recipe = recipe_of(TINY, checkpoint_steps=1)
    begin_run(tmp_path, recipe)
    train(recipe.build_supernet(10), recipe, pictures, on_state=lambda state: save_state(tmp_path, recipe, state))
    assert [path.stem for path in sorted((tmp_path / "checkpoints").iterdir())] == ["000000005", "000000006"]


@pytest.mark.parametrize("step_s", [1.0, 100.0, 1000.0])
def test_a_state_is_told_every_four_minutes_whatever_the_recipe_says(step_s: float, recipe_of: MakeRecipe, pictures: ImageData) -> None:
    once = Phase(name="full", epochs=1, learning_rate=0.05, resolutions=(16,))
    recipe = replace(recipe_of(TINY, once, checkpoint_steps=10**6), batch_size=8)
    whole, now, told = recipe.build_supernet(10), 0.0, list[TrainingState]()

    def after_a_step() -> bool:
        nonlocal now
        now += step_s
        return False

    train(whole, recipe, pictures, on_state=told.append, stop=after_a_step, clock=lambda: now)
    times = [step_s * state.step for state in told]
    assert max(after - before for before, after in pairwise(times)) <= max(step_s, SECONDS_BETWEEN_STATES)
    assert len(told) >= times[-1] / max(step_s, SECONDS_BETWEEN_STATES)
    resumed = recipe.build_supernet(10)
    train(resumed, recipe, pictures, state=told[len(told) // 2])
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))


def test_another_recipe_or_space_is_refused(recipe_of: MakeRecipe, pictures: ImageData, tmp_path: Path) -> None:
    recipe = recipe_of(TINY)
    state, _ = killed_at(2, recipe, pictures)
    begin_run(tmp_path, recipe)
    save_state(tmp_path, recipe, state)
    with pytest.raises(RecipeError, match=r"differs from '.*config\.toml' in seed 0 -> 5; resume it without the change"):
        continue_run(tmp_path, replace(recipe, seed=5))
    continue_run(tmp_path, replace(recipe, workers=2, evaluate_every=3))
    assert Recipe.load(tmp_path / "config.toml").workers == 2
    other = recipe_of("ofa-resnet50-tiny")
    with pytest.raises(WeightsError, match="must be of its run's space"):
        train(other.build_supernet(10), other, pictures, state=state)
    begin_run(tmp_path, other)
    save_state(tmp_path, recipe, state)
    with pytest.raises(WeightsError, match="is of ofa-mbv3-tiny and the recipe of ofa-resnet50-tiny"):
        continue_run(tmp_path, other)


# -- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 3, 6])
def test_stopped_and_resumed_equals_uninterrupted(step: int, recipe_of: MakeRecipe, pictures: ImageData) -> None:
    recipe = recipe_of(TINY, *single_stage(get_space(TINY), epochs=2, subnets_per_step=3, resolutions=(16,)), weight_averaging=0.9)
    whole, stopped, done = recipe.build_supernet(10), recipe.build_supernet(10), 0
    metrics = train(whole, recipe, pictures, selection=pictures)
    states: list[TrainingState] = []

    def progress(now: int, total: int, text: str = "") -> None:
        nonlocal done
        done = now

    before = train(stopped, recipe, pictures, selection=pictures, progress=progress, on_state=states.append, stop=lambda: done >= step - 1)
    assert states[-1].step == step
    resumed = recipe.build_supernet(10)
    later = train(resumed, recipe, pictures, selection=pictures, state=states[-1])
    assert [epoch.step for epoch in [*before, *later]] == [3, 6]
    assert [epoch.largest_accuracy for epoch in [*before, *later]] == [epoch.largest_accuracy for epoch in metrics]
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))


def test_an_evaluation_that_is_cut_off_is_made_when_the_run_goes_on(recipe_of: MakeRecipe, pictures: ImageData) -> None:
    recipe = recipe_of(TINY, Phase(name="full", epochs=1, learning_rate=0.05, resolutions=(16,)), weight_averaging=0.9)
    whole, evaluating = recipe.build_supernet(10), False
    (expected,) = train(whole, recipe, pictures, selection=pictures)
    states: list[TrainingState] = []

    def progress(now: int, total: int, text: str = "") -> None:
        nonlocal evaluating
        evaluating = "middle" in text

    cut_off = train(
        recipe.build_supernet(10), recipe, pictures, selection=pictures, progress=progress, on_state=states.append, stop=lambda: evaluating
    )
    assert cut_off == []
    resumed = recipe.build_supernet(10)
    (epoch,) = train(resumed, recipe, pictures, selection=pictures, state=states[-1])
    assert epoch.middle_accuracy == expected.middle_accuracy
    assert epoch.cross_entropy == expected.cross_entropy
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))


# -- going on after the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", ["phase", "run"])
def test_a_run_that_is_extended_equals_one_by_the_extended_recipe(
    cosine: str, recipe_of: MakeRecipe, pictures: ImageData, tmp_path: Path
) -> None:
    """Also where a copy of the largest network teaches, which the files of a run that has ended do not hold."""
    kernels, own = (Gene("kernel", (3, 5)),), {"learning_rate": 0.02, "resolutions": (16,)}
    full, kernel = Phase(name="full", epochs=1, **own), Phase(name="kernel", epochs=1, free=kernels, distillation_weight=1.0, **own)
    recipe = recipe_of(TINY, full, kernel, cosine=cosine, weight_averaging=0.9)
    supernet = recipe.build_supernet(10)
    begin_run(tmp_path, recipe)
    save_run(tmp_path, supernet, recipe, train(supernet, recipe, pictures))
    assert has_ended(tmp_path)

    longer = extended(recipe, 2)
    extend_run(tmp_path, longer)
    assert not has_ended(tmp_path)
    state, before = continue_run(tmp_path, longer)
    resumed = recipe.build_supernet(10)
    later = train(resumed, longer, pictures, state=state)
    assert [(epoch.phase, epoch.epoch) for epoch in later] == [("kernel-more-1", 1), ("kernel-more-1", 2)]

    whole = longer.build_supernet(10)
    metrics = train(whole, longer, pictures)
    assert [epoch.loss for epoch in metrics] == [epoch.loss for epoch in [*before, *later]]
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))


def test_a_run_that_had_a_setback_goes_on_with_its_lower_rate(recipe_of: MakeRecipe, pictures: ImageData, tmp_path: Path) -> None:
    recipe = recipe_of(TINY)
    supernet = recipe.build_supernet(10)
    metrics = train(supernet, recipe, pictures, progress=poisoned(supernet, {1, 2}, float("inf")))
    save_run(tmp_path, supernet, recipe, metrics)
    extend_run(tmp_path, extended(recipe, 1))
    state, _ = continue_run(tmp_path, extended(recipe, 1))
    assert state is not None
    assert (state.values["rate_factor"], state.values["setbacks"]) == (0.25, 2)


# -- the guard --------------------------------------------------------------------------------------------------------


def poisoned(supernet: Supernet, at: set[int], value: float) -> Callable[..., None]:
    """Progress that spoils the weights once at each of some steps."""

    def progress(done: int, total: int, text: str = "") -> None:
        if done in at:
            at.discard(done)
            with torch.no_grad():
                supernet.decayed.mul_(value)

    return progress


def test_a_loss_that_is_not_finite_takes_training_back_with_half_the_rate(recipe_of: MakeRecipe, pictures: ImageData) -> None:
    recipe = recipe_of(TINY, Phase(name="full", epochs=3, learning_rate=0.05, resolutions=(16,)))
    supernet = recipe.build_supernet(10)
    setbacks: list[Setback] = []
    metrics = train(supernet, recipe, pictures, progress=poisoned(supernet, {4}, float("nan")), on_setback=setbacks.append)
    assert [(setback.phase, setback.epoch, setback.back_to, setback.rate_factor) for setback in setbacks] == [("full", 2, 3, 0.5)]
    assert "nan" in setbacks[0].reason
    assert [epoch.rate_factor for epoch in metrics] == [1, 0.5, 0.5]
    assert all(torch.isfinite(tensor).all() for tensor in weights(supernet))


def test_each_setback_lowers_the_rate_further(recipe_of: MakeRecipe, pictures: ImageData) -> None:
    recipe = recipe_of(TINY, Phase(name="full", epochs=3, learning_rate=0.05, resolutions=(16,)))
    supernet = recipe.build_supernet(10)
    setbacks: list[Setback] = []
    train(supernet, recipe, pictures, progress=poisoned(supernet, {1, 2}, float("inf")), on_setback=setbacks.append)
    assert [setback.rate_factor for setback in setbacks] == [0.5, 0.25]
