from __future__ import annotations

from typing import Any

import pytest

from ofa.space import Gene
from ofa.training import Phase, Recipe
from ofa.training.advice import recipe_warnings
from ofa.training.presets import load_recipe, preset_names

KERNELS = (Gene("kernel", (3, 5)),)


def recipe(phase: dict[str, Any], **settings: Any) -> Recipe:
    return Recipe(
        space="ofa-mbv3-tiny", data="digits", phases=(Phase(**{"name": "a", "epochs": 10, "learning_rate": 0.1} | phase),), **settings
    )


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"free": KERNELS, "sandwich": True, "subnets_per_step": 2}, "subnets_per_step should be at least 3 with sandwich, but is 2"),
        ({"subnets_per_step": 4}, "subnets_per_step should be 1 where nothing is free, but is 4"),
        ({"free": (Gene("kernel", (5,)), Gene("depth", (0, 1)))}, "free.kernel should open a choice, but has only the largest value"),
        ({"distillation_weight": 1.0}, "distillation_weight should be 0 in the first phase, but is 1"),
        ({"warmup_epochs": 8.0}, "warmup_epochs should be at most half of its epochs, but is 8 of 10"),
    ],
)
def test_a_phase_that_will_hardly_be_meant_is_told_with_the_next_step(phase: dict[str, Any], words: str) -> None:
    (sentence,) = recipe_warnings(recipe(phase), 1000)
    assert words in sentence
    assert sentence.startswith("phases.a.")
    assert "; " in sentence


def test_a_gene_that_stands_at_a_smaller_value_is_no_mistake() -> None:
    assert recipe_warnings(recipe({"free": (Gene("kernel", (3,)),)}), 1000) == ()


@pytest.mark.parametrize("name", preset_names())
def test_the_recipes_that_come_along_deserve_no_warning(name: str) -> None:
    assert recipe_warnings(load_recipe(name, ["space=ofa-mbv3-32px"] if name == "adopt" else []), 10_000) == ()


def test_a_method_with_two_subnets_under_the_sandwich_is_told() -> None:
    (sentence,) = recipe_warnings(load_recipe("single-stage", ["single_stage.subnets_per_step=2"]))
    assert "only the smallest and the largest network are trained" in sentence


def test_too_few_images_and_steps_are_told() -> None:
    few, step = recipe_warnings(recipe({}, batch_size=64), 40)
    assert "batch_size should be at most the number of training images, but is 64 for 40" in few
    assert "has 10 (40 images, batch_size 64)" in step


@pytest.mark.parametrize(("decay", "images", "advice"), [(0.9999, 6400, "lower it to 0.99"), (0.99, 64 * 5, "lower it to 0")])
def test_an_average_that_looks_back_beyond_its_phase_is_told(decay: float, images: int, advice: str) -> None:
    sentence = recipe_warnings(recipe({}, weight_averaging=decay), images)[-1]
    assert f"weight_averaging should look back over fewer steps than a phase has, but {decay:g} looks back over" in sentence
    assert sentence.endswith(advice)
    assert recipe_warnings(recipe({}, weight_averaging=decay), 64 * 2000) == ()
