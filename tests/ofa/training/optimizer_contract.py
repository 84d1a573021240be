"""What every optimizer must do; a class of tests that derives from this one gives the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ofa.data import ImageData
from ofa.supernet import Supernet
from ofa.training import Optimizer, Phase, Recipe, TrainingState, begin_run, continue_run, save_state, train
from ofa.training.optimizer import optimizer_state, restore_optimizer

__all__ = ["DECAY", "RATE", "OptimizerContract", "fresh", "gradients", "photos", "stepped"]

RATE, DECAY = 0.05, 0.1


def gradients(count: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, generator=generator) for _ in range(count)]


def stepped(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, steps: list[Tensor]) -> None:
    for number, gradient in enumerate(steps, start=1):
        for group in optimizer.param_groups:
            group["lr"] = RATE / number
        weight.grad = gradient.clone()
        optimizer.step()


def fresh() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3))


def photos() -> ImageData:
    """Ninety-six pictures of ten classes, each class a little brighter than the one before."""
    labels = torch.arange(96) % 10
    noise = torch.randint(0, 30, (96, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    return ImageData(images=(20 * labels[:, None, None, None] + noise).to(torch.uint8), labels=labels, class_names=tuple("abcdefghij"))


class OptimizerContract:
    @pytest.fixture
    def settings(self) -> Optimizer:
        raise NotImplementedError

    @pytest.fixture
    def recipe(self, settings: Optimizer) -> Recipe:
        full = Phase(name="full", epochs=2, learning_rate=RATE, resolutions=(16,))
        return Recipe(space="ofa-mbv3-tiny", data="digits", phases=(full,), batch_size=32, optimizer=settings, checkpoint_steps=2)

    def test_a_rate_of_zero_changes_nothing(self, settings: Optimizer) -> None:
        weight = fresh()
        made = settings.make([{"params": [weight], "weight_decay": DECAY}], RATE)
        for group in made.param_groups:
            group["lr"] = 0.0
        weight.grad = gradients(1)[0]
        made.step()
        assert torch.equal(weight, fresh())

    def test_a_state_is_all_that_decides_the_next_steps(self, settings: Optimizer) -> None:
        first, other = fresh(), fresh()
        begun, resumed = (settings.make([{"params": [weight], "weight_decay": DECAY}], RATE) for weight in (first, other))
        stepped(begun, first, gradients()[:3])
        tensors, values = optimizer_state(begun)
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        other.data.copy_(first.data)
        restore_optimizer(resumed, kept, values)
        unchanged = {name: tensor.clone() for name, tensor in kept.items()}
        for optimizer, weight in ((begun, first), (resumed, other)):
            stepped(optimizer, weight, gradients()[3:])
        assert torch.equal(first, other)
        assert all(torch.equal(kept[name], tensor) for name, tensor in unchanged.items())  # what was restored is not written to

    def test_killed_and_resumed_equals_uninterrupted(self, recipe: Recipe, tmp_path: Path) -> None:
        whole, states = recipe.build_supernet(10), list[TrainingState]()
        train(whole, recipe, photos(), on_state=states.append)
        begin_run(tmp_path, recipe)
        save_state(tmp_path, recipe, next(state for state in states if state.step == 2))
        read, _ = continue_run(tmp_path, recipe)
        resumed = Supernet(whole.space, generator=torch.Generator().manual_seed(9))
        train(resumed, recipe, photos(), state=read)
        assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))

    def test_a_recipe_keeps_its_settings(self, recipe: Recipe) -> None:
        assert Recipe.from_toml(recipe.to_toml(), trust=True) == recipe
        assert hash(Recipe.from_toml(recipe.to_toml(), trust=True)) == hash(recipe)
