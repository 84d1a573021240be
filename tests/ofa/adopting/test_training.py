"""Adopted networks learn, are put in order, and teach, as all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa import train
from ofa.adopting.adoption import adopt_model
from ofa.adopting.ranking import rank_blocks
from ofa.blocks.runs import Run, kept_ranges, permuted
from ofa.errors import OfaError, RecipeError
from ofa.families import SPACES, lower
from ofa.sharing import channel_groups
from ofa.supernet import Supernet
from ofa.training import SGD, AdamW, Optimizer, Recipe, begin_run, save_run
from ofa.training.presets import load_recipe
from ofa.training.step import Objective, training_step
from tests.ofa.adopting.models import MODELS, SIDE

IMAGE = (3, SIDE, SIDE)


class Chain(nn.Module):
    """Residual blocks of which the second does nothing, before a classifier of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1)) for _ in range(3))
        nn.init.zeros_(self.blocks[1][2].weight)  # type: ignore[index]
        nn.init.zeros_(self.blocks[1][2].bias)  # type: ignore[index]
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def adopted() -> Supernet:
    torch.manual_seed(0)
    return adopt_model(Chain(), IMAGE, name="chain", resolutions=()).supernet


@pytest.fixture(scope="module")
def start(adopted: Supernet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adopted") / "chain.run"
    with SPACES.registered("chain", adopted.space):
        recipe = Recipe.from_toml('space = "chain"\ndata = "digits"\n[single_stage]\nepochs = 1')
        begin_run(folder, recipe)
        save_run(folder, adopted, recipe, ())
    return folder


def test_the_recipe_for_adopted_networks_trains_in_the_space_of_its_start_and_the_start_teaches(start: Path, tmp_path: Path) -> None:
    run = train("adopt", tmp_path / "run", start=start, changes=["data=digits", "adopt.epochs=1", "adopt.warmup_epochs=0", "workers=0"])
    assert run.supernet.space.name == "chain"
    assert run.recipe.teacher == "start"
    assert run.metrics[-1].largest_accuracy is not None


def test_images_are_normalized_as_the_start_says(adopted: Supernet, tmp_path: Path) -> None:
    with SPACES.registered("chain", adopted.space):
        text = 'space = "chain"\ndata = "digits"\nmean = [0.1, 0.2, 0.3]\nstd = [0.5, 0.6, 0.7]\n[single_stage]\nepochs = 1'
        begin_run(tmp_path / "start", Recipe.from_toml(text))
        save_run(tmp_path / "start", adopted, Recipe.from_toml(text), ())
    changes = [f"start.path={tmp_path / 'start'}", "data=digits"]
    splits = load_recipe("adopt", changes).load_splits()
    assert [part.normalization for part in splits] == [((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))] * 3
    with pytest.raises(RecipeError, match="mean and std must have a number for each of the 3 channels"):
        load_recipe("adopt", [*changes, "mean=[0.5]"])


def test_norms_and_biases_alone_leave_all_matrices_as_they_came(start: Path, adopted: Supernet, tmp_path: Path) -> None:
    changes = ["data=digits", "adopt.epochs=1", "adopt.warmup_epochs=0", "workers=0", 'frozen=["matrices"]']
    run = train("adopt", tmp_path / "run", start=start, changes=changes)
    assert torch.equal(run.supernet.decayed, adopted.decayed)
    assert not torch.equal(run.supernet.undecayed, adopted.undecayed)


def test_a_start_with_other_classes_cannot_teach(start: Path, tmp_path: Path) -> None:
    with pytest.raises(OfaError, match="a start that teaches must know the classes of the data"):
        train("adopt", tmp_path / "run", start=start, changes=["data=digits", 'start.classifier="new"', "workers=0"])


def test_the_recipe_needs_a_start_that_carries_its_space(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"must have a start, but this one has none; add --from RUN"):
        train("adopt", tmp_path / "run", changes=["data=digits"])
    with pytest.raises(RecipeError, match=r"has no space\.json; name the space"):
        train("adopt", tmp_path / "run", start=tmp_path, changes=["data=digits"])


@pytest.mark.parametrize("name", ["fused attention", "dense", "residual", "windows"])
def test_the_order_of_channels_changes_no_output_of_the_largest_network(name: str) -> None:
    torch.manual_seed(0)
    supernet = adopt_model(MODELS[name](), IMAGE, resolutions=()).supernet.eval()
    space, images = supernet.space, torch.randn(2, *IMAGE)
    with torch.no_grad():
        before = supernet.subnet(space.largest())(images)
        order = [torch.rand(each.group.units, generator=torch.Generator().manual_seed(1)) for each in channel_groups(space)]
        supernet.reorder_channels(space.restrict(**dict.fromkeys(space.gene_names, (1.0,))), order)
        torch.testing.assert_close(supernet.subnet(space.largest())(images), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["depthwise", "dense", "fused attention"])
def test_parts_train_in_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    supernet = adopt_model(MODELS[name](), IMAGE, resolutions=()).supernet.train()
    images = torch.randn(4, *IMAGE).contiguous(memory_format=torch.channels_last)
    archs = [supernet.space.largest(), supernet.space.smallest()]
    training_step(
        supernet, archs, (images, torch.arange(4)), torch.optim.SGD(supernet.parameters(), 0.01), Objective(), precision="bfloat16"
    )
    assert torch.isfinite(supernet.flat_gradient).all()
    assert supernet.flat_gradient.any()


class _ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _Attention(nn.Module):
    """Of pixels to each other, with a norm of LeViT's kind."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.queries = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        values = self.norm(x).flatten(2)
        weights = (self.queries(x).flatten(2).transpose(1, 2) @ values).softmax(-1)
        return (values @ weights).view(x.shape)


@pytest.mark.parametrize(
    ("norms", "optimizer", "rate"),
    [
        ((nn.BatchNorm2d,), SGD(), 0.1),
        ((partial(nn.GroupNorm, 2),), AdamW(), 0.001),
        ((nn.BatchNorm2d, _ChannelNorm), AdamW(), 0.001),
        ((_Attention,), AdamW(), 0.001),
    ],
)
def test_networks_of_batch_norms_alone_are_trained_by_sgd(
    norms: Sequence[Callable[[int], nn.Module]], optimizer: Optimizer, rate: float
) -> None:
    layers = (layer for norm in norms for layer in (norm(8), nn.ReLU()))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    made = adopt_model(model, IMAGE, name="normed", resolutions=())
    changes = ["space=normed", "data=digits"]
    with SPACES.registered("normed", made.space):
        recipe = load_recipe("adopt", changes)
        assert (recipe.optimizer, recipe.phases[0].learning_rate) == (optimizer, rate)
        assert load_recipe("adopt", [*changes, "optimizer.weight_decay=0.125"]).optimizer == replace(optimizer, weight_decay=0.125)
        assert load_recipe("adopt", [*changes, "optimizer=adamw"]).optimizer == AdamW()


def test_the_block_that_changes_least_is_skipped_first(adopted: Supernet) -> None:
    images = torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(2))
    space, ranked = rank_blocks(adopted, [images])
    with torch.no_grad():
        largest = adopted.eval().subnet(adopted.space.largest())(images)
        assert torch.equal(ranked.eval().subnet(space.largest())(images), largest)
        shallow = space.uniform(resolution=-1, depth=0, genes={})
        assert len(lower(space, shallow)) == len(lower(space, space.largest())) - 1
        torch.testing.assert_close(ranked.subnet(shallow)(images), largest)  # the second block does nothing
        plain = adopted.subnet(adopted.space.uniform(resolution=-1, depth=0, genes={}))(images)
    assert not torch.allclose(plain, largest)
    rng = np.random.default_rng(0)
    assert all(space.sample(rng) in space for _ in range(5))


def test_ranges_of_runs_are_those_of_a_table_of_positions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        full = {"a": int(rng.integers(1, 5)), "b": int(rng.integers(1, 5))}
        runs = tuple(Run(str(rng.choice(["a", "b", ""])), int(rng.integers(1, 4)), int(rng.integers(1, 4))) for _ in range(3))
        kept = {name: int(rng.integers(1, units + 1)) for name, units in full.items()}
        units = [each for run in runs for each in _units(run, full)]
        wanted = [at for at, (axis, unit) in enumerate(units) if unit < kept.get(axis, 1)]
        assert [at for begin, end in kept_ranges(runs, full, kept) for at in range(begin, end)] == wanted
        order = torch.from_numpy(rng.permutation(full["a"]))
        index = permuted(runs, "a", order, full).tolist()
        moved = [units[at] for at in index]
        assert moved == [(axis, int(order[unit]) if axis == "a" else unit) for axis, unit in units]


def _units(run: Run, full: dict[str, int]) -> list[tuple[str, int]]:
    """By value of a run its axis and unit."""
    return [(run.axis, unit) for _ in range(run.outer) for unit in range(full.get(run.axis, 1)) for _ in range(run.inner)]
