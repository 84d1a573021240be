from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import nn

from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.data import ImageData, Splits
from ofa.errors import ArchError, RecipeError, WeightsError
from ofa.families import lower
from ofa.supernet import Supernet
from ofa.training import AdamW, Phase, Recipe, TrainingState, evaluate, train
from ofa.training.single import train_network
from ofa.training.specialization import FineTuning, Specialized, specialize


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    full = Phase(name="full", epochs=3, learning_rate=0.1, resolutions=(16,))
    return Recipe(space="ofa-mbv3-tiny", data="digits", phases=(full,), batch_size=32)


@pytest.fixture(scope="module")
def splits(recipe: Recipe) -> Splits:
    return recipe.load_splits()


@pytest.fixture(scope="module")
def supernet(recipe: Recipe, splits: Splits) -> Supernet:
    trained = recipe.build_supernet(10)
    train(trained, recipe, splits.train)
    return trained


def make(supernet: Supernet, splits: Splits, arch: Arch, epochs: int, settings: FineTuning | None = None) -> Specialized:
    generator = torch.Generator().manual_seed(0)
    return specialize(supernet, arch, splits.train, splits.test, epochs=epochs, generator=generator, settings=settings)


def test_a_few_epochs_beside_the_teacher_make_a_small_network_better(supernet: Supernet, splits: Splits) -> None:
    arch = supernet.space.smallest(16)  # which this supernet never trained
    before = {name: tensor.clone() for name, tensor in supernet.named_tensors().items()}
    made = make(supernet, splits, arch, 3)
    assert made.metrics.accuracy > made.metrics.accuracy_before + 0.3
    assert made.metrics.teacher_accuracy > 0.8
    assert not made.network.training
    assert evaluate(made.network, splits.test, resolution=16) == made.metrics.accuracy
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.named_tensors().items())


def test_without_epochs_a_network_is_only_calibrated(supernet: Supernet, splits: Splits) -> None:
    arch = supernet.space.largest(16)
    made = make(supernet, splits, arch, 0)
    extracted = supernet.extract(arch)
    assert made.metrics.accuracy == made.metrics.accuracy_before == made.metrics.teacher_accuracy
    assert all(torch.equal(a, b) for a, b in zip(made.network.parameters(), extracted.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(made.network.buffers(), extracted.buffers(), strict=True))


def test_the_network_is_plain(supernet: Supernet, splits: Splits) -> None:
    network = make(supernet, splits, supernet.space.smallest(16), 0).network
    assert type(network) is nn.Sequential
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_same_seed_gives_the_same_network(supernet: Supernet, splits: Splits) -> None:
    few = Splits(splits.train.subset(torch.arange(100)), splits.selection, splits.test)
    first, again = (make(supernet, few, supernet.space.smallest(16), 1).network for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_settings_follow_the_recipe(recipe: Recipe) -> None:
    settings = FineTuning.like(replace(recipe, batch_size=16, optimizer=AdamW(weight_decay=0.1), precision="bfloat16"))
    assert (settings.batch_size, settings.optimizer, settings.precision) == (16, AdamW(weight_decay=0.1), "bfloat16")
    assert settings.augmentation == recipe.augmentation


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_network_learns_in_half_precision_and_keeps_float32_weights(
    supernet: Supernet, splits: Splits, precision: Literal["bfloat16", "float16"]
) -> None:
    arch = supernet.space.smallest(16)
    made = make(supernet, splits, arch, 3, FineTuning(precision=precision))
    whole = make(supernet, splits, arch, 3)
    assert made.metrics.accuracy > made.metrics.accuracy_before + 0.3
    assert all(tensor.dtype == torch.float32 for tensor in made.network.parameters())
    assert not torch.equal(next(made.network.parameters()), next(whole.network.parameters()))  # another arithmetic it is


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_network_goes_on_as_if_it_had_never_stopped(splits: Splits, recipe: Recipe, precision: Literal["float32", "float16"]) -> None:
    few, space = splits.train.subset(torch.arange(100)), recipe.get_space(10)
    settings = FineTuning(batch_size=32, warmup_epochs=0.5, precision=precision)
    states: list[TrainingState] = []

    def trained(state: TrainingState | None, on_state: Callable[[TrainingState], None] | None = None, **more: Any) -> nn.Module:
        network = build_network(lower(space, space.smallest(16)), generator=torch.Generator().manual_seed(1))
        how: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "settings": settings, "state": state, "on_state": on_state}
        ended = train_network(network, few, resolution=16, epochs=3, **how, **more)
        assert ended is ("stop" not in more)
        return network

    whole = trained(None, states.append)
    assert [state.step for state in states] == [3, 6, 9]
    late = itertools.count(step=200)
    trained(states[-2], states.append, clock=lambda: float(next(late)))
    assert [state.step for state in states] == [3, 6, 9, 7, 8, 9]
    for stopped_at in (2, 3):
        asked = itertools.count(1)
        trained(None, states.append, stop=partial(lambda asked, last: next(asked) >= last, asked, stopped_at))
        assert states[-1].step == stopped_at
    assert [state.values["done"] for state in states[-2:]] == [2, 0]
    for state in states[-2:]:  # within an epoch, and at its end
        resumed = trained(state)
        assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
    with pytest.raises(WeightsError, match="a state must be of its network and precision"):
        trained(TrainingState(1, {"network.no": torch.zeros(1)}, {}))


def test_a_rate_that_is_too_high_is_told(supernet: Supernet, splits: Splits) -> None:
    with pytest.raises(RecipeError, match=r"stay finite.*epoch 1 of 1 at learning rate 1e\+30"):
        make(supernet, splits, supernet.space.smallest(16), 1, FineTuning(learning_rate=1e30))


def test_an_arch_of_another_space_is_refused(supernet: Supernet, splits: Splits) -> None:
    with pytest.raises(ArchError):
        make(supernet, splits, replace(supernet.space.smallest(16), space="ofa-mbv3-w1.0"), 0)


def test_impossible_settings_are_refused(splits: Splits) -> None:
    with pytest.raises(RecipeError, match="batch_size must be at least 2"):
        FineTuning(batch_size=1)
    with pytest.raises(RecipeError, match="precision must be a known one, but is 'bfloat'"):
        FineTuning(precision="bfloat")  # type: ignore[arg-type]
    assert isinstance(splits.train, ImageData)
