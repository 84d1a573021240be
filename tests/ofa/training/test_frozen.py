"""Layers that a recipe freezes stay as they are, bit for bit, whatever else happens to the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ofa.data import ImageData
from ofa.errors import RecipeError
from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training import SGD, AdamW, Recipe, TrainingState, progressive_shrinking, train
from ofa.training.frozen import frozen_tensors
from ofa.training.start import Start
from ofa.training.step import _update

TINY = "ofa-mbv3-tiny"
PATTERNS = ("stem*", "stages.1", "*.norm")
MakeRecipe = Callable[..., Recipe]
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": SGD(weight_decay=0.1), "weight_averaging": 0.9, "clip_norm": 1.0},
    "adamw": {"optimizer": AdamW(weight_decay=0.1)},
    "float16": {"precision": "float16", "clip_norm": 1.0},
}


def shrinking(recipe_of: MakeRecipe, **settings: Any) -> Recipe:
    """Channels are re-ordered on the way."""
    return recipe_of(TINY, *progressive_shrinking(get_space(TINY), epochs=5, subnets_per_step=2, resolutions=(16,)), **settings)


@pytest.mark.parametrize("name", ["sgd", "adamw", pytest.param("float16", marks=pytest.mark.slow)])
def test_frozen_layers_do_not_change(name: str, recipe_of: MakeRecipe, pictures: ImageData) -> None:
    recipe = shrinking(recipe_of, frozen=PATTERNS, **SETTINGS[name])
    supernet, untrained = recipe.build_supernet(10), recipe.build_supernet(10)
    train(supernet, recipe, pictures)
    frozen, now, before = frozen_tensors(supernet.space, PATTERNS), supernet.named_tensors(), untrained.named_tensors()
    assert {"stem.conv.conv.conv.weight", "stem.conv.conv.norm.running_mean", "stages.1.0.depthwise.conv.weight_5to3"} <= frozen
    assert all(torch.equal(now[name], before[name]) for name in frozen)
    learning = [name for name in now if name not in frozen]
    assert not any(torch.equal(now[name], before[name]) for name in learning if "conv.weight" in name and "to3" not in name)
    assert len(supernet.parameter_groups(0.1)) == 2  # all is let go of


def test_resumed_equals_uninterrupted(recipe_of: MakeRecipe, pictures: ImageData) -> None:
    start = Start(path="unread", classifier_rate=3, new=("classifier.linear.weight", "classifier.linear.bias"))
    recipe, states = recipe_of(TINY, frozen=PATTERNS, start=start, checkpoint_steps=2), list[TrainingState]()
    whole = recipe.build_supernet(10)
    train(whole, recipe, pictures, on_state=states.append)
    resumed = Supernet(whole.space, generator=torch.Generator().manual_seed(9))
    train(resumed, recipe, pictures, state=next(state for state in states if state.step == 4))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_gradients_of_frozen_layers_are_not_clipped_with_the_others() -> None:
    supernet = Supernet(get_space(TINY)).freeze(frozen_tensors(get_space(TINY), ("stem",)))
    optimizer = torch.optim.SGD(supernet.parameter_groups(0), lr=1.0)
    supernet.flat_gradient.fill_(1.0)
    slot = supernet.named_tensors()["stem.conv.conv.conv.weight"]
    start = slot.storage_offset()
    supernet.flat_gradient[start : start + slot.numel()] = 1e6
    before = supernet.decayed.detach().clone(), supernet.undecayed.detach().clone()
    _update(optimizer, None, 1.0)
    moved = torch.cat([supernet.decayed.detach() - before[0], supernet.undecayed.detach() - before[1]])
    assert float(moved.norm()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (("stem", "stmes.0"), "'stmes.0' matches none; near are 'stages.0', .*; all layers are in 'classifier', 'head', 'stages', 'stem'"),
        (("*",), "must leave a layer that learns, but '.' is all of ofa-mbv3-tiny"),
        (("stages", "stem", "head", "classifier"), "but 'stages', 'stem', 'head', 'classifier' are all"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(patterns: tuple[str, ...], words: str, recipe_of: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe_of(TINY, frozen=patterns)
