"""Channels that a model's own code cuts, joins, repeats or folds stay elastic, however that is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.adopting.adoption import adopt_model
from ofa.errors import SpaceError
from tests.ofa.adopting.contract import Contract, randomized
from tests.ofa.adopting.models import SIDE

CHANNELS = 24


class Cut(nn.Module):
    """A convolution, something that is done with its channels, and another one."""

    def __init__(self, part: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.norm, self.part = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), part
        self.middle, self.head = nn.Conv2d(part(torch.zeros(1, CHANNELS, 2, 2)).shape[1], 12, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.part(self.norm(self.stem(x)).relu())
        return self.head(self.middle(x).relu().mean((2, 3)))


def _gated(one: Tensor, other: Tensor) -> Tensor:
    return one.sigmoid() * other


class _Norm(nn.Module):
    """The norm of newer transformers, with the channels moved behind the pixels and back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).swapaxes(1, 3).swapdims(2, 3)


def _half(x: Tensor) -> int:
    return x.shape[1] // 2


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "chunk": lambda x: _gated(*x.chunk(2, 1)),
    "chunk and join": lambda x: torch.cat([x.chunk(2, 1)[0].sigmoid(), x.chunk(2, 1)[1]], 1),
    "chunk of four": lambda x: torch.stack(x.chunk(4, 1)).sum(0),
    "tensor_split": lambda x: _gated(*x.tensor_split(2, 1)),
    "split by a size": lambda x: _gated(*x.split(_half(x), 1)),
    "split by sizes": lambda x: _gated(*x.split([_half(x), _half(x)], 1)),
    "slices": lambda x: _gated(x[:, : _half(x)], x[:, _half(x) :]),
    "slices with a step": lambda x: _gated(x[:, ::2], x[:, 1::2]),
    "slices of a quarter": lambda x: torch.cat([x[:, : x.shape[1] // 4].sigmoid(), x[:, x.shape[1] // 4 :]], 1),
    "narrow": lambda x: _gated(x.narrow(1, 0, _half(x)), x.narrow(1, _half(x), _half(x))),
    "glu": lambda x: F.glu(x, 1),
    "unflatten": lambda x: _gated(*x.unflatten(1, (2, -1)).unbind(1)),
    "unflatten inside": lambda x: x.unflatten(1, (-1, 2)).amax(2),
    "view": lambda x: _gated(*x.view(x.shape[0], 2, -1, *x.shape[2:]).unbind(1)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "tile": lambda x: x.tile(1, 2, 1, 1),
    "norm of moved channels": _Norm(),
    "others": lambda x: F.selu(x).square().clip(0.1, 2).type_as(x) + F.mish(x).std(1, keepdim=True).broadcast_to(x.shape),
    "stack": lambda x: torch.stack([x, -x], 1).flatten(1, 2),
    "stack inside": lambda x: torch.stack([x, -x], 2).flatten(1, 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_channels_that_are_cut_are_elastic(way: str) -> None:
    contract = Contract(randomized(Cut(WAYS[way])), (3, SIDE, SIDE))
    contract.check()
    contract.exported_networks_are_the_subnets()
    elastic = {(member.tensor, member.dim) for group in contract.adoption.groups.values() for member in group.members}
    assert {("stem.weight", 0), ("norm.weight", 0), ("middle.weight", 1), ("middle.weight", 0)} <= elastic


@pytest.mark.parametrize("way", [lambda x: x.roll(1, 1), lambda x: x.flip(1), lambda x: F.pad(x, (0, 0, 0, 0, 0, 3))])
def test_channels_whose_places_matter_stay_and_are_named(way: Callable[[Tensor], Tensor]) -> None:
    contract = Contract(randomized(Cut(way)), (3, SIDE, SIDE))
    contract.check()
    elastic = {(member.tensor, member.dim) for group in contract.adoption.groups.values() for member in group.members}
    assert ("middle.weight", 0) in elastic
    assert ("stem.weight", 0) not in elastic
    assert any(fixed.tensor == "stem.weight" and fixed.dim == 0 for fixed in contract.adoption.fixed)


def test_numbers_of_channels_in_the_code_are_named_with_their_line() -> None:
    class Numbers(Cut):
        def forward(self, x: Tensor) -> Tensor:
            one, other = self.norm(self.stem(x)).split([8, 16], 1)
            return self.head(torch.cat([one, other.relu()], 1)[:, :12].mean((2, 3)))

    with pytest.raises(SpaceError, match=r"dimension 0 of stem.weight must be 24 \(test_parts.py:\d+: one, other"):
        adopt_model(Numbers(WAYS["glu"]), (3, SIDE, SIDE))


def test_a_size_that_is_cut_and_then_a_number_has_the_reason_of_the_number() -> None:
    class Both(Cut):
        def forward(self, x: Tensor) -> Tensor:
            one, other = self.norm(self.stem(x)).chunk(2, 1)
            return self.head(_gated(one, other).view(-1, 12, SIDE, SIDE).mean((2, 3)))

    with pytest.raises(SpaceError, match=r"nothing is elastic: dimension 0 of stem.weight must be .*test_parts.py:\d+: return self.head"):
        adopt_model(Both(WAYS["glu"]), (3, SIDE, SIDE))


class Joined(nn.Module):
    """Two convolutions, one after the other in the channels of a norm that was made before them."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(one + other), nn.Linear(one + other, 5)
        self.stem, self.one, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(8, one, 3, padding=1), nn.Conv2d(8, other, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.norm(torch.cat([self.one(x), self.other(x)], 1)).relu().mean((2, 3)))


@pytest.mark.parametrize(("one", "other"), [(12, 12), (6, 18), (18, 6)])
def test_a_layer_of_joined_channels_may_be_made_before_its_parts(one: int, other: int) -> None:
    contract = Contract(randomized(Joined(one, other)), (3, SIDE, SIDE))
    contract.check()
    assert {group.units for group in contract.adoption.groups.values()} >= {one, other}
    assert contract.adoption.elastic_share > 0.99
