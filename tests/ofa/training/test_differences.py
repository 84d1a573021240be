from __future__ import annotations

from dataclasses import replace

import pytest

from ofa.data import Augmentation
from ofa.errors import RecipeError
from ofa.training import Phase, Recipe
from ofa.training.differences import changed_keys, extended
from ofa.training.schedule import Schedule

FULL, LATER = Phase(name="full", epochs=2, learning_rate=0.2), Phase(name="later", epochs=1, learning_rate=0.1)
RECIPE = Recipe(space="ofa-mbv3-tiny", data="digits", phases=(FULL, LATER))


def test_each_key_that_differs_is_named_with_both_values() -> None:
    now = replace(
        RECIPE, batch_size=32, augmentation=Augmentation(flip=True), workers=3, phases=(FULL, replace(LATER, resolutions=(16,), epochs=4))
    )
    assert changed_keys(RECIPE, now) == (
        ("phases.later.epochs", "1", "4"),
        ("phases.later.resolutions", "[]", "[16]"),
        ("batch_size", "64", "32"),
        ("augmentation.flip", "false", "true"),
    )


def test_what_does_not_change_the_weights_may_differ() -> None:
    now = replace(RECIPE, workers=2, cuda_graphs=False, checkpoint_steps=5, evaluate_every=0, evaluation_images=7)
    assert changed_keys(RECIPE, now) == ()


def test_a_phase_that_only_one_recipe_has_is_one_difference() -> None:
    (change,) = changed_keys(RECIPE, replace(RECIPE, phases=(FULL,)))
    assert change == ("phases.later", "present", "absent")


def test_phases_in_another_order_differ() -> None:
    (change,) = changed_keys(RECIPE, replace(RECIPE, phases=(LATER, FULL)))
    assert change == ("the order of phases", "full, later", "later, full")


def test_an_added_phase_is_the_last_one_at_a_tenth_of_its_rate_and_then_at_its_own() -> None:
    once = extended(RECIPE, 3)
    assert once.phases[:2] == RECIPE.phases
    assert once.phases[2] == replace(LATER, name="later-more-1", epochs=3, learning_rate=0.01, restart=True)
    again = extended(once, 5)
    assert (again.phases[3].name, again.phases[3].learning_rate) == ("later-more-2", 0.01)
    assert extended(RECIPE, 3, learning_rate=0.5).phases[2].learning_rate == 0.5
    assert Recipe.from_toml(again.to_toml()) == again


def test_a_run_goes_on_for_at_least_an_epoch() -> None:
    with pytest.raises(RecipeError, match="at least 1 epoch, but epochs is 0"):
        extended(RECIPE, 0)


@pytest.mark.parametrize("span", ["phase", "run"])
def test_an_added_phase_leaves_the_rates_before_it_as_they_were(span: str) -> None:
    before = Schedule(RECIPE.phases, 4, span)  # type: ignore[arg-type]
    after = Schedule(extended(RECIPE, 2).phases, 4, span)  # type: ignore[arg-type]
    rates = [after.rate(after.place(step)) for step in range(after.total)]
    assert rates[:12] == [before.rate(before.place(step)) for step in range(before.total)]
    assert rates[12] == pytest.approx(0.01)
    assert rates[12:] == sorted(rates[12:], reverse=True)
    assert rates[-1] < 0.001
