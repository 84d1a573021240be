"""Any model: the program is the model, its groups are what can shrink, and smaller sizes run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from ofa.adopting.groups import find_groups
from ofa.adopting.tracing import Trace, trace
from ofa.groups import Group
from tests.ofa.adopting.contract import sliced
from tests.ofa.adopting.models import MODELS, SIDE, Fixed


@dataclass(frozen=True)
class Adopted:
    model: nn.Module
    images: Tensor
    trace: Trace
    groups: tuple[Group, ...]
    given_up: dict[str, str]

    @property
    def full(self) -> dict[str, int]:
        return {group.name: group.units for group in self.groups}

    def small(self, kept: dict[str, int]) -> dict[str, Tensor]:
        return sliced(self.trace.tensors, self.groups, kept)


def adopted(model: nn.Module) -> Adopted:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    traced = trace(model, (3, SIDE, SIDE))
    groups, given_up = find_groups(traced, images)
    return Adopted(model.eval(), images, traced, tuple(groups), given_up)


@lru_cache
def known(name: str) -> Adopted:
    return adopted(MODELS[name]())


each_model = pytest.mark.parametrize("name", MODELS)


@each_model
def test_the_program_equals_the_model_bit_for_bit(name: str) -> None:
    found = known(name)
    for images in (found.images, found.images[:1]):
        assert torch.equal(found.trace(images, found.trace.tensors), found.model(images))


@each_model
def test_nearly_all_parameters_are_in_groups(name: str) -> None:
    found = known(name)
    elastic = {member.tensor for group in found.groups for member in group.members}
    sizes = {name: parameter.numel() for name, parameter in found.model.named_parameters()}
    assert sum(size for name, size in sizes.items() if name in elastic) >= 0.95 * sum(sizes.values())


@each_model
def test_a_group_alone_and_all_together_can_shrink_to_one_unit(name: str) -> None:
    found = known(name)
    with torch.no_grad():
        for kept in ({group: 1} for group in found.full):
            assert found.trace(found.images, found.small(kept)).shape == found.model(found.images).shape
        smallest = found.small(dict.fromkeys(found.full, 1))
        assert found.trace(found.images, smallest).isfinite().all()


@each_model
def test_a_unit_of_zeros_is_worth_as_much_as_none(name: str) -> None:
    """The unit that a smaller network leaves out is the one that is zero: else a layout has taken another."""
    if name in ("group norm", "fused attention", "separate attention", "windows"):
        return  # a norm over channels counts those that are zero
    found = known(name)
    for group in found.groups:
        tensors = {name: tensor.detach().clone() for name, tensor in found.trace.tensors.items()}
        kept = {group.name: group.units - 1}
        for member in group.members:
            if len(member.runs) == 1 and member.runs[0].outer == 1:
                tensors[member.tensor].narrow(member.dim, -member.runs[0].inner, member.runs[0].inner).zero_()
        if all(len(member.runs) == 1 and member.runs[0].outer == 1 for member in group.members):
            with torch.no_grad():
                expected, got = found.trace(found.images, tensors), found.trace(found.images, found.small(kept))
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_heads_are_groups_of_their_values() -> None:
    fused, separate = known("fused attention"), known("separate attention")
    (run,) = next(m.runs for g in fused.groups for m in g.members if m.tensor == "attention.qkv.weight" and m.dim == 0)
    assert (run.outer, run.inner, fused.full[run.axis]) == (3, 6, 4)
    (run,) = next(m.runs for g in separate.groups for m in g.members if m.tensor == "attention.query.weight" and m.dim == 0)
    assert (run.outer, run.inner, separate.full[run.axis]) == (1, 6, 4)


def test_classes_and_tables_of_positions_stay() -> None:
    for name in MODELS:
        kept = {member.tensor for group in known(name).groups for member in group.members if member.dim == 0}
        assert not any(tensor.endswith("classifier.weight") for tensor in kept), name
    assert any("table" in name for name in known("windows").given_up)


def test_finding_groups_says_how_many_are_decided_on() -> None:
    found, told = known("windows"), list[tuple[int, int]]()
    find_groups(found.trace, found.images, lambda done, total, text="": told.append((done, total)))
    assert len(told) > 2
    assert told == sorted(told)
    total = len(found.groups) + len(found.given_up) - 1  # classes are not tried
    assert {total for _, total in told} == {total}
    assert told[-1] == (total, total)


def test_a_size_that_is_a_number_in_the_code_is_named_with_its_line() -> None:
    found = adopted(Fixed())
    reason = found.trace.reasons["stem.weight", 0]
    assert reason.file.endswith("models.py")
    assert "view(-1, 8, SIDE, SIDE)" in reason.code
    assert not found.groups


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = MODELS["fused attention"]().train()
    kinds = {name: type(module) for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, (3, SIDE, SIDE))
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert model.training
    assert model.get_submodule("attention").num_heads == 4
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class _Bilinear(nn.Module):
    """Each channel of one layer times each of another: a dimension that is the product of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 6, 3), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.one(x).mean((2, 3)), self.other(x).mean((2, 3))
        return self.head((one.unsqueeze(2) * other.unsqueeze(1)).flatten(1))


def test_sizes_that_are_multiplied_with_each_other_stay() -> None:
    found = adopted(_Bilinear())
    assert not found.groups
    assert {"one.weight[0]", "other.weight[0]"} <= set(found.given_up)
