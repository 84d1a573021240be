"""Subnets of a step that share blocks, and steps that are recorded, learn what separate passes would teach them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa.adopting.adoption import adopt_model
from ofa.arch import Arch
from ofa.families import get_space
from ofa.pieces import Piece
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.prefixes import Finish, Node, run_together, tree
from ofa.training.recorded import Recorder
from ofa.training.step import Objective, training_step
from tests.ofa.adopting.models import MODELS, SIDE
from tests.ofa.strategies import TINY_SPACES

STEPS, CLASSES = 6, 10


class Reruns:
    """Records functions and runs them again, as CUDA graphs would their kernels; counts both."""

    def __init__(self) -> None:
        self.recorded, self.replayed = 0, 0

    def pool(self) -> object:
        return object()

    def aside(self) -> nullcontext[None]:
        return nullcontext()

    def record(self, compute: Callable[[], None], pool: Any) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            compute()

        return replay


def order_of(node: Node) -> Iterator[int]:
    """The order in which networks are run: those together that share blocks."""
    for number, child in node.branches():
        if child is None:
            yield number
        else:
            yield from order_of(child)


def separately(networks: Sequence[Sequence[Piece]], x_BCHW: Tensor, finish: Finish) -> None:
    for number in order_of(tree(networks)):
        y = x_BCHW
        for piece in networks[number][:-1]:
            y = piece.module(y)
        finish(number, networks[number][-1].module, y).backward()


def draws(space: Space) -> Iterator[list[Arch]]:
    """The subnets of some steps: two alike among them, the first of a step and others."""
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        of_step = space.restrict(resolution=(space.resolutions[step % len(space.resolutions)],))
        drawn = [of_step.largest(), of_step.smallest(), *(of_step.sample(rng) for _ in range(2))]
        yield [drawn[0], drawn[0], drawn[2], drawn[1]] if step % 2 else drawn


def train(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    run: Any,
    *,
    in_place: bool,
    recorder: Recorder | None = None,
    features_weight: float = 0.0,
) -> tuple[Any, ...]:
    """The store after some steps, and all their losses."""
    monkeypatch.setattr("ofa.training.step.run_together", run)
    space = get_space(name, num_classes=CLASSES)
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).double().train()
    teacher = None if in_place else supernet.extract(space.largest()).eval().requires_grad_(False)
    objective = Objective(
        in_place=in_place,
        teacher=teacher,
        distillation_weight=1.0,
        label_smoothing=0.1,
        features_weight=features_weight,
        last_block=supernet.pieces(space.largest())[-1].name,
    )
    optimizer = torch.optim.SGD(supernet.parameter_groups(1e-4), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for archs in draws(space):
        x_BCHW = torch.randn(4, 3, archs[0].resolution, archs[0].resolution, dtype=torch.float64, generator=generator)
        y_B = torch.randint(0, CLASSES, (4,), generator=generator)
        losses.append(training_step(supernet, archs, (x_BCHW, y_B), optimizer, objective, recorder=recorder).losses)
    return supernet.state_dict(), torch.stack(losses)


CASES = [*((name, True, 0.0) for name in TINY_SPACES), *((TINY_SPACES[0], *case) for case in ((False, 0.0), (True, 0.5), (False, 0.5)))]


@pytest.mark.parametrize(("name", "in_place", "features"), CASES)
def test_shared_and_recorded_blocks_learn_what_separate_passes_teach(
    name: str, in_place: bool, features: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, losses = train(name, monkeypatch, separately, in_place=in_place, features_weight=features)
    for recorder in (None, Recorder(Reruns())):
        store, found = train(name, monkeypatch, run_together, in_place=in_place, recorder=recorder, features_weight=features)
        torch.testing.assert_close(found, losses, rtol=1e-12, atol=1e-12)
        for key, tensor in store.items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-10, atol=1e-12)


def test_features_are_drawn_to_the_teachers_where_they_have_one_shape() -> None:
    torch.manual_seed(0)
    supernet = adopt_model(MODELS["plain"](), (3, SIDE, SIDE), resolutions=()).supernet.double().train()
    space, other = supernet.space, torch.Generator().manual_seed(1)
    last = supernet.pieces(space.largest())[-1].name
    teacher = supernet.extract(space.largest()).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=other, dtype=torch.float64)
    batch = torch.randn(4, 3, SIDE, SIDE, generator=other, dtype=torch.float64), torch.arange(4)
    archs = [space.largest(), space.smallest()]

    def losses(weight: float) -> Tensor:
        objective = Objective(teacher=teacher, distillation_weight=1.0, features_weight=weight, last_block=last)
        return training_step(supernet, archs, batch, torch.optim.SGD(supernet.parameters(), lr=0.0), objective).losses

    features = [_features(network, last, batch[0]) for network in (supernet.subnet(archs[0]), teacher)]
    distance = (features[0] - features[1]).square().mean() / features[1].square().mean()
    same_shape, narrower = losses(0.5) - losses(0.0)
    torch.testing.assert_close(same_shape, 0.5 * distance, check_dtype=False, rtol=1e-5, atol=1e-7)
    assert narrower == 0


def _features(network: nn.Module, last: str, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    network.get_submodule(last).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    network(images)
    return seen[0]


def test_a_block_is_run_once_for_all_networks_that_begin_with_it() -> None:
    space = get_space("ofa-mbv3-tiny")
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).train()
    largest = space.largest()
    networks = [supernet.pieces(largest), supernet.pieces(space.smallest(resolution=largest.resolution)), supernet.pieces(largest)]
    calls: dict[str, int] = {}
    for piece in {piece.module: piece for pieces in networks for piece in pieces}.values():
        place = piece.name

        def count(*_: object, place: str = place) -> None:
            calls[place] = calls.get(place, 0) + 1

        piece.module.register_forward_hook(count)
    x_BCHW = torch.randn(2, 3, largest.resolution, largest.resolution)
    run_together(networks, x_BCHW, lambda number, last, features: last(features).sum())
    first, second, *_ = (piece.name for piece in networks[0])
    assert calls[first] == 1  # the stem
    assert calls[second] <= 2  # the largest twice in one, and the smallest
    assert calls[networks[0][-1].name] == 3  # classifiers with their dropout are never shared


def test_blocks_are_computed_once_then_recorded_and_then_replayed() -> None:
    graphs = Reruns()
    recorder = Recorder(graphs)
    space = get_space("ofa-mbv3-tiny")
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).train()
    arch = space.largest()
    blocks = len(supernet.pieces(arch)) - 1
    x_BCHW = torch.randn(2, 3, arch.resolution, arch.resolution)
    for recorded, replayed in ((0, 0), (2 * blocks, 2 * blocks), (2 * blocks, 4 * blocks)):
        recorder.run_together([supernet.pieces(arch)], x_BCHW, lambda number, last, features: last(features).sum())
        assert (graphs.recorded, graphs.replayed) == (recorded, replayed)


def test_recorded_blocks_see_new_images_and_new_weights() -> None:
    recorder = Recorder(Reruns())
    space = get_space("ofa-mbv3-tiny")
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).train()
    arch = space.smallest()
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        x_BCHW = torch.randn(3, 3, arch.resolution, arch.resolution, generator=generator)
        logits = []

        def finish(number: int, last: torch.nn.Module, features: Tensor, logits: list[Tensor] = logits) -> Tensor:
            logits.append(last(features))
            return logits[-1].sum()

        recorder.run_together([supernet.pieces(arch)], x_BCHW, finish)
        with torch.no_grad():
            expected = supernet.subnet(arch)(x_BCHW)
            torch.testing.assert_close(logits[0], expected)
            for parameter in supernet.parameters():
                parameter.mul_(1.01)
