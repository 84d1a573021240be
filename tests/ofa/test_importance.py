"""Importance of channels, heads and blocks: what holds for every criterion and every family, and each criterion by its definition."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ofa.blocks.runs import Run
from ofa.errors import DataError, RecipeError
from ofa.groups import Group, Member
from ofa.importance import IMPORTANCES, Examples, Importance, Observation, block_importance, observe, score_groups
from ofa.progress import silent
from ofa.sharing import channel_groups
from ofa.supernet import Supernet
from tests.ofa import test_own_parts as transformer
from tests.ofa.importance_contract import ImportanceContract, fresh, scores_of
from tests.ofa.strategies import images, shared_supernet

CRITERIA = IMPORTANCES.own
PREDICTABLE = tuple(name for name in CRITERIA if name != "random")


class TestCriteria(ImportanceContract):
    @pytest.fixture
    def criteria(self) -> Sequence[str]:
        return CRITERIA


def test_groups_without_a_batch_norm_keep_their_order() -> None:
    supernet = fresh("ofa-mbv3-tiny")
    scores = scores_of(supernet, "batch_norm")
    groups = channel_groups(supernet.space)
    assert {axis for group, found in zip(groups, scores, strict=True) if found is None for _, axis in group.axes} == {"squeeze"}


def test_a_criterion_that_needs_images_says_so() -> None:
    supernet = shared_supernet("ofa-mbv3-tiny")
    for criterion in CRITERIA:
        importance = IMPORTANCES.get(criterion)
        if importance.needs_images:
            for none in (None, Examples([], 0, F.cross_entropy)):
                with pytest.raises(DataError, match="at least one batch of images, but there is none"):
                    supernet.channel_scores(importance, none)
        else:
            assert len(list(supernet.channel_scores(importance))) == len(channel_groups(supernet.space))


def test_unknown_criteria_are_refused_and_ones_own_are_known() -> None:
    with pytest.raises(RecipeError, match="there is no importance 'tailor'; did you mean 'taylor'"):
        IMPORTANCES.get("tailor")
    with pytest.raises(RecipeError, match=r"must be an ofa\.importance\.Importance"):
        IMPORTANCES.register("mine", max)  # type: ignore[arg-type]


# -- criteria by their definitions ------------------------------------------------------------------------------------


class Hidden(nn.Module):
    """A network of one hidden layer of eight channels, each times its share of ``mask``."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)
        # Channels that matter by very different amounts.
        self.linear.weight.data.mul_(torch.logspace(-3, 0.5, 8))
        self.mask = torch.ones(8, dtype=torch.float64, requires_grad=True)
        self.double()

    def hidden(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        values_BC: torch.Tensor = self.norm(self.conv(x_BCHW)).relu().mean((2, 3))
        return values_BC

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(self.hidden(x_BCHW) * self.mask)
        return logits


ALL = (Run("hidden"),)
GROUP = Group(
    "hidden", 8, (Member("linear.weight", 1, ALL, "reads"), Member("norm.weight", 0, ALL, "scales"), Member("conv.weight", 0, ALL))
)


def hidden_scores(network: Hidden, name: str, batches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    seen = observe(network, [GROUP], Examples(batches, len(batches), F.cross_entropy))
    (scores_U,) = score_groups([GROUP], IMPORTANCES.get(name), seen)
    assert scores_U is not None
    return scores_U


@pytest.fixture
def network() -> Hidden:
    return Hidden(torch.Generator().manual_seed(0))


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(10, 3, 6, 6, generator=generator).double(), torch.arange(10) % 5) for _ in range(3)]


def test_criteria_of_weights_are_their_norms(network: Hidden, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    weight_OU = network.linear.weight.detach()
    torch.testing.assert_close(hidden_scores(network, "l1", batches), weight_OU.abs().sum(0))
    torch.testing.assert_close(hidden_scores(network, "l2", batches), weight_OU.norm(dim=0))
    torch.testing.assert_close(hidden_scores(network, "batch_norm", batches), network.norm.weight.detach().abs())


def test_activation_is_the_norm_of_what_is_read(network: Hidden, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    found = hidden_scores(network, "activation", batches)
    network.train()
    expected = torch.stack([network.hidden(x_BCHW).detach().square().mean(0).sqrt() for x_BCHW, _ in batches]).mean(0)
    torch.testing.assert_close(found, expected)


def test_taylor_is_the_derivative_by_the_presence_of_a_channel(network: Hidden, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    found = hidden_scores(network, "taylor", batches)
    network.train()
    slopes = [torch.autograd.grad(F.cross_entropy(network(x_BCHW), y_B), network.mask)[0] for x_BCHW, y_B in batches]
    torch.testing.assert_close(found, torch.stack(slopes).abs().mean(0))


def test_the_loss_changes_less_without_the_last_channel_by_taylor_than_without_the_first(
    network: Hidden, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    @torch.no_grad()
    def loss() -> float:
        return sum(float(F.cross_entropy(network(x_BCHW), y_B)) for x_BCHW, y_B in batches)

    order = hidden_scores(network, "taylor", batches).argsort()
    network.train()
    whole, changes = loss(), []
    for unit in (int(order[0]), int(order[-1])):
        with torch.no_grad():
            network.mask[unit] = 0.0
        changes.append(abs(loss() - whole))
        with torch.no_grad():
            network.mask[unit] = 1.0
    assert changes[0] < changes[1] / 10


def test_a_head_scores_as_a_whole() -> None:
    supernet = transformer.supernet()
    number = next(n for n, each in enumerate(channel_groups(supernet.space)) if each.axes == (("stages.0.0", "heads"),))
    data = [(transformer.images(supernet.space.largest()), torch.arange(2))]
    weight_OC = supernet.named_tensors()["stages.0.0.attention.out.weight"]
    heads_HOC = torch.stack(weight_OC.split(transformer.HEAD, 1))
    for name, expected in (("l1", heads_HOC.abs().sum((1, 2))), ("l2", heads_HOC.flatten(1).norm(dim=1))):
        found = list(supernet.channel_scores(IMPORTANCES.get(name)))[number]
        assert found is not None
        torch.testing.assert_close(found, expected)
    for name in ("taylor", "activation"):
        found = list(supernet.channel_scores(IMPORTANCES.get(name), Examples(data, 1, F.cross_entropy)))[number]
        assert found is not None
        assert found.shape == (3,)
        assert (found > 0).all()


def test_units_may_lie_in_several_ranges_of_a_fused_dimension() -> None:
    # Queries, keys and values of two heads of three channels, behind two that are none of theirs.
    weight = torch.arange(20.0).unsqueeze(1).expand(20, 4)
    member = Member("qkv", 0, (Run("", inner=2), Run("heads", 3, 3)), "reads")
    (found,) = score_groups([Group("heads", 2, (member,))], IMPORTANCES.get("l1"), [Observation({"qkv": weight})])
    expected = [4.0 * sum((*range(a, a + 3), *range(a + 6, a + 9), *range(a + 12, a + 15))) for a in (2, 5)]
    assert found is not None
    assert found.tolist() == expected


def test_a_criterion_of_ones_own_orders_channels() -> None:
    def last_first(group: Group, seen: Observation, generator: torch.Generator | None) -> torch.Tensor:
        return torch.arange(group.units)

    supernet = fresh("ofa-mbv3-tiny")
    before = supernet.named_tensors()["stages.1.0.project.conv.weight"].clone()
    with IMPORTANCES.registered("last-first", Importance(last_first)):
        supernet.reorder_channels(supernet.space.restrict(expand=[6]), supernet.channel_scores(IMPORTANCES.get("last-first")))
    after = supernet.named_tensors()["stages.1.0.project.conv.weight"]
    assert torch.equal(after, before.flip(1))


# -- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ofa-mbv3-tiny", "ofa-resnet50-tiny"])
def test_a_block_that_computes_nothing_can_be_left_out(name: str) -> None:
    supernet = fresh(name).train()
    arch = supernet.space.largest()
    last = {"ofa-mbv3-tiny": "project", "ofa-resnet50-tiny": "expand"}[name]
    with torch.no_grad():
        for key in ("weight", "bias"):
            supernet.named_tensors()[f"stages.1.1.{last}.norm.{key}"].zero_()
    before = supernet.statistics.clone()
    pieces = supernet.pieces(arch)
    batches = [images(arch, batch=4, seed=seed, dtype=torch.float64) for seed in range(2)]
    told: list[int] = []
    scores = block_importance([piece.module for piece in pieces], batches, lambda done, total, text="": told.append(done))
    assert told == [*range(1, 2 * len(pieces) + 1)]
    assert torch.equal(supernet.statistics, before)
    for piece, score in zip(pieces, scores, strict=True):
        block, shape = piece.placed[0].block, piece.placed[0].input
        assert (score is not None) == (block.output(shape) == shape), piece.name
        assert score is None or score >= 0
    by_name = {piece.name: score for piece, score in zip(pieces, scores, strict=True)}
    assert by_name["stages.1.1"] == pytest.approx(0, abs=1e-12)
    other = by_name["stages.0.1"]
    assert other is not None
    assert other > 1e-3
    assert other == pytest.approx(left_out(supernet, [piece.name for piece in pieces].index("stages.0.1"), batches))


def left_out(supernet: Supernet, number: int, batches: Sequence[torch.Tensor]) -> float:
    """The mean change without one block, written out, on an extracted network whose batch norms are in training."""
    shares = []
    for x_BCHW in batches:
        outputs = []
        for skipped in (None, number):
            x = x_BCHW
            for place, piece in enumerate(supernet.pieces(supernet.space.largest())):
                x = x if place == skipped else piece.module.train()(x)
            outputs.append(x.detach())
        shares += [float((b - a).norm() / a.norm()) for a, b in zip(*outputs, strict=True)]
    return sum(shares) / len(shares)


def test_blocks_may_write_over_their_inputs_and_need_images() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    x_BD = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    before = x_BD.clone()
    first, second, third = block_importance(list(network), [x_BD], silent)
    assert torch.equal(x_BD, before)
    assert first is not None
    assert second is not None
    assert third is None
    assert second > 0
    with pytest.raises(DataError, match="at least one batch of images, but there is none"):
        block_importance(list(network), [])
    with pytest.raises(DataError, match="at least 2 images, because of batch norm, but one has 1; give more images"):
        block_importance(list(network), [x_BD, x_BD[:1]])
