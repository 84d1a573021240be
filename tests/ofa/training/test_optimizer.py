"""What holds for every optimizer: those that come along, and one of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ofa.data import ImageData
from ofa.errors import RecipeError, TrustError
from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training import OPTIMIZERS, SGD, AdamW, Optimizer, Recipe, TrainingState, train
from ofa.training.differences import changed_keys
from ofa.training.optimizer import check_trusted
from ofa.training.single import train_network
from ofa.training.specialization import FineTuning
from tests.ofa.training.optimizer_contract import DECAY, RATE, OptimizerContract, fresh, gradients, stepped

TINY = "ofa-mbv3-tiny"


class Lion(torch.optim.Optimizer):
    """Chen et al., NeurIPS 2023, algorithm 2, with a count in its group."""

    def __init__(self, groups: Any, lr: float, beta: float) -> None:
        super().__init__(groups, {"lr": lr, "beta": beta, "steps": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["steps"] += 1
            for parameter in group["params"]:
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                sign = (0.9 * mean + 0.1 * parameter.grad).sign() * min(1.0, group["steps"] / 4)
                parameter.sub_(group["lr"] * (sign + group["weight_decay"] * parameter))
                mean.lerp_(parameter.grad, 1 - group["beta"])


@dataclass(frozen=True, kw_only=True)
class OwnLion(Optimizer):
    """One of the user's own, which this file names.

    Attributes:
        name: that of this class.
        weight_decay: of weights.
        beta: decay of the mean.
    """

    beta: float = 0.99

    def make(self, groups: Any, learning_rate: float) -> Lion:
        return Lion(groups, learning_rate, self.beta)


OWN = f"{__name__}:OwnLion"
SETTINGS = [SGD(momentum=0.8), SGD(nesterov=False, weight_decay=DECAY), SGD(momentum=0.0), AdamW(weight_decay=DECAY), OwnLion(beta=0.9)]


@pytest.fixture(params=SETTINGS, ids=lambda made: f"{made.name.rpartition(':')[2]}-{SETTINGS.index(made)}")
def settings(request: pytest.FixtureRequest) -> Optimizer:
    made: Optimizer = request.param
    return made


class TestOptimizers(OptimizerContract):
    @pytest.fixture
    def settings(self, settings: Optimizer) -> Optimizer:
        return settings


@pytest.mark.parametrize(("nesterov", "momentum"), [(True, 0.9), (False, 0.9), (True, 0.0)])
def test_sgd_is_its_formula(nesterov: bool, momentum: float) -> None:
    weight, expected, velocity = fresh(), fresh().detach(), torch.zeros(4, 3)
    groups = [{"params": [weight], "weight_decay": DECAY}]
    stepped(SGD(nesterov=nesterov, momentum=momentum, weight_decay=DECAY).make(groups, RATE), weight, gradients())
    for number, gradient in enumerate(gradients(), start=1):
        slope = gradient + DECAY * expected
        velocity = momentum * velocity + slope
        expected = expected - RATE / number * (slope + momentum * velocity if nesterov else velocity)
    torch.testing.assert_close(weight.detach(), expected)


def test_adamw_is_its_formula() -> None:
    weight, expected = fresh(), fresh().detach()
    mean, square = torch.zeros(4, 3), torch.zeros(4, 3)
    made = AdamW(betas=(0.8, 0.9), eps=1e-6, weight_decay=DECAY)
    stepped(made.make([{"params": [weight], "weight_decay": DECAY}], RATE), weight, gradients())
    for number, gradient in enumerate(gradients(), start=1):
        mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
        step = mean / (1 - 0.8**number) / ((square / (1 - 0.9**number)).sqrt() + 1e-6)
        expected = expected - RATE / number * (step + DECAY * expected)
    torch.testing.assert_close(weight.detach(), expected)


def test_a_network_alone_goes_on_as_if_it_had_never_stopped(settings: Optimizer, pictures: ImageData) -> None:
    tuning = FineTuning(optimizer=settings, learning_rate=0.01, batch_size=32)
    states: list[TrainingState] = []

    def trained(state: TrainingState | None) -> list[Tensor]:
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 10))
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        generator = torch.Generator().manual_seed(0)
        train_network(network, pictures, resolution=8, epochs=3, generator=generator, settings=tuning, state=state, on_state=states.append)
        return list(network.state_dict().values())

    whole = trained(None)
    assert all(torch.equal(a, b) for a, b in zip(whole, trained(states[0]), strict=True))


def test_steps_of_the_largest_network_change_what_others_share_with_it(
    settings: Optimizer, recipe_of: Callable[..., Recipe], pictures: ImageData
) -> None:
    recipe = recipe_of(TINY, optimizer=settings)
    supernet, untrained = recipe.build_supernet(10), recipe.build_supernet(10)
    train(supernet, recipe, pictures)
    for arch in (supernet.space.smallest(16), supernet.space.largest(16)):
        now, before = (dict(each.extract(arch).named_parameters()) for each in (supernet, untrained))
        assert any(not torch.equal(now[name], before[name]) for name in now)


def text(*lines: str) -> str:
    return "\n".join((f'space = "{TINY}"', 'data = "digits"', *lines, "[single_stage]", "epochs = 2"))


@pytest.mark.parametrize(
    ("lines", "changes", "expected"),
    [
        ([], [], SGD()),
        (['optimizer = "adamw"'], [], AdamW()),
        (["optimizer = {momentum = 0.5}"], [], SGD(momentum=0.5)),
        (['optimizer = "adamw"'], ["optimizer.eps=1e-6"], AdamW(eps=1e-6)),
        ([], ["optimizer=adamw", "optimizer.betas=[0.9, 0.95]"], AdamW(betas=(0.9, 0.95))),
        (["momentum = 0.5", "weight_decay = 1"], [], SGD(momentum=0.5, weight_decay=1.0)),  # as version 0.1 wrote them
        ([f'optimizer = {{name = "{OWN}", beta = 0.5}}'], [], OwnLion(beta=0.5)),
    ],
)
def test_a_recipe_names_its_optimizer(lines: list[str], changes: list[str], expected: Optimizer) -> None:
    assert Recipe.from_toml(text(*lines), changes, trust=True).optimizer == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('optimizer = "adam"', "there is no optimizer 'adam'; did you mean 'adamw'"),
        ("optimizer = 3", "optimizer must be a table"),
        ('optimizer = {name = "adamw", momentum = 0.9}', "line 3: optimizer has no key 'momentum'"),
        ('optimizer = {name = "adamw", betas = [0.9, 1.0]}', r"line 3: optimizer\.betas must be in 0"),
        ("optimizer = {weight_decay = -1}", r"line 3: optimizer\.weight_decay must be at least 0"),
        ('optimizer = "no.such.module:Lion"', "optimizer 'no.such.module:Lion' must be importable as module:attribute.*check both names"),
        ('optimizer = "torch.optim:SGD"', "must be a class that inherits from ofa.training.Optimizer, but 'torch.optim:SGD' is"),
        ('optimizer = "adamw"\nmomentum = 0.9', "no key 'momentum'"),
    ],
)
def test_a_wrong_optimizer_is_told_in_a_sentence(line: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.from_toml(text(line), trust=True)


def test_nothing_is_imported_because_a_file_says_so(tmp_path: Path) -> None:
    line = f'optimizer = {{name = "{OWN}", weight_decay = 0.5, beta = 0.5}}'
    typed, read = (Recipe.from_toml(text(line), folder=tmp_path, trust=trust) for trust in (True, False))
    for asked in (lambda: check_trusted(read.optimizer), lambda: read.optimizer.make([{"params": [fresh()], "weight_decay": 0.0}], RATE)):
        with pytest.raises(TrustError, match=rf"only on the user's request.*type it yourself, --set optimizer\.name={OWN}"):
            asked()
    assert read.to_toml() == typed.to_toml()
    assert changed_keys(read, typed) == ()
    other = Recipe.from_toml(read.to_toml(), ["optimizer.beta=0.1"], folder=tmp_path)
    assert not isinstance(other.optimizer, OwnLion)  # the name was not typed
    again = Recipe.from_toml(read.to_toml(), [f"optimizer.name={OWN}"], folder=tmp_path)
    assert again == typed


def test_an_optimizer_is_registered_under_a_name_of_its_own(recipe_of: Callable[..., Recipe]) -> None:
    with OPTIMIZERS.registered("lion", OwnLion):
        recipe = replace(recipe_of(TINY), optimizer=OwnLion(beta=0.5))
        assert 'optimizer = {name = "lion", ' in recipe.to_toml()
        assert Recipe.from_toml(recipe.to_toml()).optimizer == OwnLion(beta=0.5)
        with pytest.raises(RecipeError, match="must have a name of its own, but 'lion' is already registered"):
            OPTIMIZERS.register("lion", SGD)


def test_momentum_of_earlier_checkpoints_is_read(recipe_of: Callable[..., Recipe], pictures: ImageData) -> None:
    recipe = recipe_of(TINY, checkpoint_steps=2)
    whole, states = recipe.build_supernet(10), list[TrainingState]()
    train(whole, recipe, pictures, on_state=states.append)
    state = next(state for state in states if state.step == 2)
    renamed = {
        f"momentum.{name.split('.')[1]}" if name.startswith("optimizer.") else name: tensor for name, tensor in state.tensors.items()
    }
    old = TrainingState(2, renamed, {key: value for key, value in state.values.items() if key != "optimizer"})
    assert {"momentum.0", "momentum.1"} <= renamed.keys()
    resumed = Supernet(get_space(TINY, 10), generator=torch.Generator().manual_seed(9))
    train(resumed, recipe, pictures, state=old)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
