from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ofa.arch import Arch
from ofa.calibrate import calibrate
from ofa.data import ImageData, make_batch
from ofa.errors import DataError, RecipeError
from ofa.families import get_space
from ofa.space import Gene, Space
from ofa.supernet import Supernet
from ofa.training import EpochMetrics, Phase, Recipe, demo_recipe, evaluate, progressive_shrinking, train
from ofa.training.sampling import Uniform, free
from ofa.training.schedule import Schedule, scheduled_rate
from ofa.training.step import Objective, training_step
from tests.ofa.strategies import TINY_SPACES

MakeRecipe = Callable[..., Recipe]
FAMILIES = TINY_SPACES


def fit(recipe: Recipe, data: ImageData, **more: Any) -> tuple[Supernet, list[EpochMetrics]]:
    supernet = recipe.build_supernet(data.num_classes)
    metrics = train(supernet, recipe, data, **more)
    return supernet, metrics


def weights(supernet: Supernet) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in supernet.state_dict().values()]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_trained_through_all_phases(name: str, pictures: ImageData, recipe_of: MakeRecipe) -> None:
    space = get_space(name)
    phases = progressive_shrinking(space, epochs=6, subnets_per_step=2, resolutions=space.resolutions[:1])
    supernet, metrics = fit(recipe_of(name, *phases), pictures)
    assert [(epoch.phase, epoch.epoch) for epoch in metrics] == [(phase.name, e + 1) for phase in phases for e in range(phase.epochs)]
    assert all(np.isfinite(value) for epoch in metrics for value in asdict(epoch).values() if isinstance(value, float))
    assert all(torch.isfinite(tensor).all() for tensor in weights(supernet))


def test_the_same_seeds_give_the_same_weights_bit_for_bit(pictures: ImageData, recipe_of: MakeRecipe) -> None:
    recipe = recipe_of("ofa-mbv3-tiny", *progressive_shrinking(get_space("ofa-mbv3-tiny"), epochs=5, resolutions=(16,)))
    first, again = (fit(recipe, pictures)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))


def test_training_learns(recipe_of: MakeRecipe) -> None:
    recipe = recipe_of("ofa-mbv3-tiny", Phase(name="full", epochs=3, learning_rate=0.1, resolutions=(16,)))
    splits = recipe.load_splits()
    supernet, metrics = fit(recipe, splits.train)
    network = supernet.extract(supernet.space.largest(16))
    calibrate(network, splits.train, resolution=16, images=256)
    assert metrics[-1].loss < metrics[0].loss
    assert evaluate(network, splits.test, resolution=16) > 0.8


def test_progress_counts_every_step_and_metrics_come_with_each_epoch(pictures: ImageData, recipe_of: MakeRecipe) -> None:
    calls: list[tuple[int, int, str]] = []
    seen: list[EpochMetrics] = []
    _, metrics = fit(
        recipe_of("ofa-mbv3-tiny"),
        pictures,
        progress=lambda done, total, text="": calls.append((done, total, text)),
        on_metrics=seen.append,
    )
    assert [(done, total) for done, total, _ in calls] == [(step, 6) for step in range(1, 7)]
    assert "full 2/2" in calls[-1][2]
    assert seen == metrics


def test_training_leaves_the_mode_as_it_was(pictures: ImageData, recipe_of: MakeRecipe) -> None:
    recipe = recipe_of("ofa-mbv3-tiny")
    supernet = recipe.build_supernet(10).eval()
    train(supernet, recipe, pictures)
    assert not supernet.training


def test_what_a_phase_does_not_free_is_not_trained(pictures: ImageData, recipe_of: MakeRecipe) -> None:
    sampled: list[Arch] = []

    class Spy(Uniform):
        def draw(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
            sampled.extend(super().draw(space, count, rng))
            return tuple(sampled[-count:])

    kernel = Phase(name="kernel", epochs=2, learning_rate=0.01, free=(Gene("kernel", (3, 5)),), resolutions=(16,), subnets_per_step=3)
    fit(recipe_of("ofa-mbv3-tiny", kernel), pictures, sampler=Spy(free))
    assert len(sampled) == 2 * 3 * 3
    assert {arch.resolution for arch in sampled} == {16}
    assert {len(stage) for arch in sampled for stage in arch.stages} == {2}
    assert {block["kernel"] for arch in sampled for stage in arch.stages for block in stage} == {3, 5}


def test_the_teacher_pulls_the_students_towards_it(pictures: ImageData) -> None:
    """With soft targets alone that contradict the labels, the network learns the teacher's answers."""
    supernet = Supernet(get_space("ofa-mbv3-tiny"), generator=torch.Generator().manual_seed(0)).train()
    arch = supernet.space.smallest(16)
    batch = make_batch(pictures, torch.arange(40), resolution=16)
    said = (batch[1] + 1) % 10
    teacher = torch.nn.Sequential(_Says(said))
    optimizer = torch.optim.SGD(supernet.parameter_groups(0), lr=0.05, momentum=0.9)
    for _ in range(40):
        training_step(supernet, [arch], batch, optimizer, Objective(teacher=teacher, distillation_weight=100))
    agreed = supernet.subnet(arch)(batch[0]).argmax(1) == said
    assert agreed.float().mean() > 0.8


class _Says(torch.nn.Module):
    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, x: Tensor) -> Tensor:
        return 10 * torch.nn.functional.one_hot(self.labels, 10).float()


def test_a_step_takes_the_mean_gradient_of_its_subnets(pictures: ImageData) -> None:
    supernet = Supernet(get_space("ofa-resnet50-tiny"), generator=torch.Generator().manual_seed(0)).train()
    batch = make_batch(pictures, torch.arange(16), resolution=24)
    archs = [supernet.space.smallest(24), supernet.space.largest(24)]
    still = torch.optim.SGD(supernet.parameters(), lr=0)

    def gradient(*chosen: Any) -> Tensor:
        training_step(supernet, chosen, batch, still, Objective(label_smoothing=0.1))
        return torch.cat([parameter.grad.flatten() for parameter in supernet.parameters() if parameter.grad is not None]).clone()

    torch.testing.assert_close(gradient(*archs), (gradient(archs[0]) + gradient(archs[1])) / 2, rtol=1e-4, atol=1e-5)


def test_a_step_tells_the_mean_loss_and_the_share_that_was_right(pictures: ImageData) -> None:
    supernet = Supernet(get_space("ofa-mbv3-tiny"), generator=torch.Generator().manual_seed(0)).train()
    batch = make_batch(pictures, torch.arange(16), resolution=16)
    still = torch.optim.SGD(supernet.parameters(), lr=0)
    archs = [supernet.space.smallest(16), supernet.space.largest(16)]
    both, *single = (training_step(supernet, chosen, batch, still, Objective()) for chosen in (archs, archs[:1], archs[1:]))
    assert float(both.loss) == pytest.approx(sum(float(one.loss) for one in single) / 2, rel=1e-4)
    assert float(both.accuracy) == pytest.approx(sum(float(one.accuracy) for one in single) / 2)


def test_a_loss_that_is_not_finite_ends_training_with_the_place_and_the_rate(pictures: ImageData, recipe_of: MakeRecipe) -> None:
    wild = Phase(name="full", epochs=3, learning_rate=1e30, resolutions=(16,))
    with pytest.raises(RecipeError, match=r"go wrong more than 8 times.* phase full, epoch \d.* lower phases\.full\.learning_rate"):
        fit(recipe_of("ofa-mbv3-tiny", wild), pictures)


def test_the_data_must_have_the_supernets_classes(recipe_of: MakeRecipe, pictures: ImageData) -> None:
    recipe = recipe_of("ofa-mbv3-tiny")
    with pytest.raises(DataError, match="has 7 and the data has 10 classes"):
        train(recipe.build_supernet(7), recipe, pictures)


def test_the_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    phase = Phase(name="full", epochs=5, learning_rate=0.4, warmup_epochs=1)
    rates = [scheduled_rate(phase, step, 10) for step in range(50)]
    assert rates[:10] == pytest.approx([0.4 * (step + 1) / 11 for step in range(10)])
    assert rates[10] == pytest.approx(0.4)
    assert rates[30] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_the_cosine_may_span_the_whole_run() -> None:
    phases = (Phase(name="a", epochs=2, learning_rate=0.4, warmup_epochs=0.5), Phase(name="b", epochs=6, learning_rate=0.4))
    schedule = Schedule(phases, 10, "run")
    rates = [schedule.rate(schedule.place(step)) for step in range(schedule.total)]
    assert rates[0] == pytest.approx(0.4 / 6)
    assert rates[40] == pytest.approx(0.2)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[19] - rates[20] < 0.01
    assert 0 < rates[-1] < 0.001


def test_evaluation_is_the_share_that_is_right_and_leaves_the_mode(pictures: ImageData) -> None:
    class Brightness(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mean, std = (values[0] for values in pictures.normalization)
            level = ((x * std + mean).mean((1, 2, 3)) * 255 - 15) / 20
            return -(level[:, None] - torch.arange(10)).abs()

    network = torch.nn.Sequential(Brightness(), torch.nn.Dropout(1.0)).train()
    assert evaluate(network[:1], pictures, resolution=8, batch_size=17) == 1.0
    assert evaluate(network, pictures, resolution=8) == 1.0  # dropout is off meanwhile
    assert network.training
    assert network[1].training


@pytest.mark.slow
def test_the_demo_recipe_trains_large_and_small_networks() -> None:
    recipe = demo_recipe()
    splits = recipe.load_splits()
    supernet, _ = fit(recipe, splits.train)
    accuracies = {}
    for name, arch in (("largest", supernet.space.largest()), ("small", supernet.space.smallest(24))):
        network = supernet.extract(arch)
        calibrate(network, splits.train, resolution=arch.resolution)
        accuracies[name] = evaluate(network, splits.test, resolution=arch.resolution)
    assert accuracies["largest"] >= 0.97
    assert accuracies["small"] >= 0.94
