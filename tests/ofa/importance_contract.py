"""What every criterion of importance must do; a class of tests that derives from this one names the criteria."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional as F

from ofa.choices import Number
from ofa.importance import IMPORTANCES, Examples
from ofa.sharing import channel_groups, order_within
from ofa.space import Space
from ofa.supernet import Supernet
from tests.ofa.strategies import TINY_SPACES, images, randomized, shared_supernet, space_of

__all__ = ["ImportanceContract", "examples", "fresh", "genes_of", "goes_by_something", "scores_of"]


def fresh(name: str) -> Supernet:
    return randomized(Supernet(space_of(name), generator=torch.Generator().manual_seed(0))).double()


def examples(supernet: Supernet, batches: int = 2) -> Examples:
    space = supernet.space
    drawn = [
        (images(space.smallest(), batch=6, seed=seed, dtype=supernet.decayed.dtype), torch.arange(6) % space.num_classes)
        for seed in range(batches)
    ]
    return Examples(drawn, batches, F.cross_entropy)


def scores_of(supernet: Supernet, name: str) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    return list(supernet.channel_scores(IMPORTANCES.get(name), examples(supernet), generator=generator))


def goes_by_something(criterion: str, supernet: Supernet) -> bool:
    """Transformers have no batch norms."""
    return criterion != "batch_norm" or supernet.statistics.numel() > 0


def genes_of(space: Space, kept: int) -> dict[str, Sequence[Number]]:
    """The largest values of each gene about widths."""
    genes = (*space.network, *space.stages[0].genes)
    return {gene.name: gene.values[-kept:] for gene in genes if gene.name not in ("kernel", "stem_depth")}


@pytest.mark.parametrize("name", TINY_SPACES)
class ImportanceContract:
    @pytest.fixture
    def criteria(self) -> Sequence[str]:
        """Names in ``IMPORTANCES``."""
        raise NotImplementedError

    @pytest.fixture
    def predictable(self, criteria: Sequence[str]) -> Sequence[str]:
        """Those that go by the network and not by chance."""
        return [name for name in criteria if name != "random"]

    def test_there_is_a_score_a_unit_and_the_network_stays_what_it_was(self, criteria: Sequence[str], name: str) -> None:
        supernet = shared_supernet(name).train()
        supernet.flat_gradient.fill_(1.0)
        before = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
        groups = [each.group for each in channel_groups(supernet.space)]
        for criterion in criteria:
            scores = scores_of(supernet, criterion)
            assert any(scores_U is not None for scores_U in scores) == goes_by_something(criterion, supernet)
            for group, scores_U in zip(groups, scores, strict=True):
                if scores_U is not None:
                    assert scores_U.shape == (group.units,)
                    assert torch.isfinite(scores_U).all()
                    assert (scores_U >= 0).all()
        assert all(torch.equal(before[key], tensor) for key, tensor in supernet.state_dict().items())
        assert supernet.flat_gradient.eq(1.0).all()
        assert all(module.training for module in supernet.subnet(supernet.space.largest()).modules())

    def test_channels_that_change_places_keep_their_scores(self, predictable: Sequence[str], name: str) -> None:
        supernet = fresh(name)
        before, keys = {criterion: scores_of(supernet, criterion) for criterion in predictable}, scores_of(supernet, "random")
        supernet.reorder_channels(supernet.space.restrict(**genes_of(supernet.space, 1)), keys)
        for criterion in predictable:
            for one, other, keys_U in zip(before[criterion], scores_of(supernet, criterion), keys, strict=True):
                assert (one is None) == (other is None)
                if one is not None and other is not None and keys_U is not None:
                    torch.testing.assert_close(other, one[order_within(keys_U, [])])

    def test_no_order_changes_what_trained_subnets_compute(self, criteria: Sequence[str], name: str) -> None:
        supernet = fresh(name).eval()
        space = supernet.space
        trained = space.restrict(**genes_of(space, 2))
        archs = [space.largest(), trained.smallest()]
        with torch.no_grad():
            before = [supernet.subnet(arch)(images(arch, dtype=torch.float64)) for arch in archs]
            for criterion in criteria:
                weights = supernet.decayed.clone()
                supernet.reorder_channels(trained, scores_of(supernet, criterion))
                assert torch.equal(supernet.decayed, weights) != goes_by_something(criterion, supernet)
            after = [supernet.subnet(arch)(images(arch, dtype=torch.float64)) for arch in archs]
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)

    def test_a_channel_that_is_nothing_scores_nothing(self, predictable: Sequence[str], name: str) -> None:
        supernet = fresh(name)
        stored = supernet.named_tensors()
        with torch.no_grad():
            for each in channel_groups(supernet.space):
                for member in each.group.members:
                    stored[member.tensor].narrow(member.dim, 0, each.unit).zero_()
        for criterion in predictable:
            known = [scores_U for scores_U in scores_of(supernet, criterion) if scores_U is not None]
            assert all(scores_U[0] == 0 and scores_U.max() > 0 for scores_U in known), criterion
