"""Channels are ordered before a phase by the recipe's criterion, the same for the same seed and on all processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ofa.data import ImageData
from ofa.errors import RecipeError
from ofa.importance import IMPORTANCES, Examples
from ofa.space import Gene
from ofa.supernet import Supernet
from ofa.training import Phase, Recipe, train
from ofa.training.distributed import ALONE
from ofa.training.ordering import order_channels
from ofa.training.plans import importance_plans
from ofa.training.schedule import Schedule
from tests.ofa.training.test_distributed import run_together

MakeRecipe = Callable[..., Recipe]
SPACE = "ofa-mbv3-tiny"


@pytest.fixture
def phases() -> tuple[Phase, ...]:
    full = Phase(name="full", epochs=1, learning_rate=0.05, resolutions=(16,))
    return full, replace(full, name="width", free=(Gene("expand", (3, 4, 6)),), reorder_channels=True)


def ordered(recipe: Recipe, data: ImageData, told: list[str] | None = None) -> Supernet:
    supernet = recipe.build_supernet(data.num_classes).train()
    place = Schedule(recipe.phases, 3).place(3)
    order_channels(supernet, recipe, data, place, world=ALONE, workers=0, tell=(told if told is not None else []).append)
    return supernet


@pytest.mark.parametrize("importance", IMPORTANCES.own)
def test_the_order_follows_from_recipe_and_seed(
    importance: str, pictures: ImageData, recipe_of: MakeRecipe, phases: tuple[Phase, ...]
) -> None:
    told: list[str] = []
    recipe = recipe_of(SPACE, *phases, importance=importance)
    first, again = ordered(recipe, pictures, told), ordered(recipe, pictures)
    assert torch.equal(first.decayed, again.decayed)
    by_default = ordered(recipe_of(SPACE, *phases), pictures)
    assert torch.equal(first.decayed, by_default.decayed) == (importance == "l1")
    batches = [f"width: importance, batch {number} of 3" for number in (1, 2, 3)]
    assert told == (batches if IMPORTANCES.get(importance).needs_images else [])


def test_the_images_are_some_of_those_to_train_on(pictures: ImageData, recipe_of: MakeRecipe, phases: tuple[Phase, ...]) -> None:
    recipe = recipe_of(SPACE, *phases)
    place = Schedule(phases, 3).place(3)
    plans = importance_plans(recipe, 32 * 20 + 7, place, (16, 24), ALONE)
    assert [len(plan.index) for plan in plans] == [32] * 16
    assert len(torch.cat([plan.index for plan in plans]).unique()) == 32 * 16
    assert {plan.resolution for plan in plans} == {16, 24}
    other = importance_plans(replace(recipe, seed=1), 32 * 20 + 7, place, (16, 24), ALONE)
    assert not torch.equal(plans[0].index, other[0].index)


def test_a_run_is_trained_by_the_criterion_of_its_recipe(
    pictures: ImageData, recipe_of: MakeRecipe, phases: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = Supernet.channel_scores

    def watched(supernet: Supernet, importance: object, examples: Examples | None = None, **more: object) -> object:
        seen.append(0 if examples is None else examples.count)
        return plain(supernet, importance, examples, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Supernet, "channel_scores", watched)
    recipe = recipe_of(SPACE, *phases, importance="taylor")
    texts: list[str] = []
    train(recipe.build_supernet(10), recipe, pictures, progress=lambda done, total, text="": texts.append(f"{done}/{total} {text}"))
    assert seen == [3]
    assert "3/6 width: importance, batch 2 of 3" in texts


def test_a_criterion_must_be_known(recipe_of: MakeRecipe, phases: tuple[Phase, ...]) -> None:
    with pytest.raises(RecipeError, match="there is no importance 'l3'"):
        recipe_of(SPACE, *phases, importance="l3")
    recipe = recipe_of(SPACE, *phases, importance="activation")
    assert Recipe.from_toml(recipe.to_toml()) == recipe


ORDER = """
import sys, torch
from ofa.data import load_data
from ofa.training import Recipe
from ofa.training.distributed import joined
from ofa.training.ordering import order_channels
from ofa.training.schedule import Schedule

torch.set_num_threads(1)
recipe = Recipe.from_toml(open(sys.argv[1] + "/recipe.toml").read())
with joined("cpu") as world:
    supernet = recipe.build_supernet(10).train().synchronize(world.size > 1)
    place = Schedule(recipe.phases, 3).place(3)
    order_channels(supernet, recipe, load_data("digits"), place, world=world, workers=0, tell=lambda text: None)
    torch.save({"weights": supernet.decayed.detach()}, f"{sys.argv[1]}/{world.size}-{world.rank}.pt")
"""


@pytest.mark.slow
def test_processes_agree_on_the_order(recipe_of: MakeRecipe, phases: tuple[Phase, ...], tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_of(SPACE, *phases, importance="taylor").to_toml(), encoding="utf-8")
    run_together(ORDER, [str(tmp_path)], 2, tmp_path)
    first, second = (torch.load(tmp_path / f"2-{rank}.pt", weights_only=True)["weights"] for rank in (0, 1))
    assert torch.equal(first, second)
