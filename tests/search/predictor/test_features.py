from __future__ import annotations

import numpy as np
import pytest

from ofa.cost import macs
from ofa.families import derive, get_space, lower, space_names
from search.predictor.features import Feature, feature_map, features, log_macs
from tests.search.fakes import SPACE

TINY = [name for name in space_names() if name.endswith("tiny")]


@pytest.mark.parametrize("name", TINY)
def test_each_active_gene_is_hot_once_and_skipped_ones_never(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(20)]
    x_NF = features(space, archs)
    for arch, row in zip(archs, x_NF, strict=True):
        active = 1 + len(arch.network) + len(arch.stages) + sum(len(block) for stage in arch.stages for block in stage)
        assert row[:-1].sum() == active
    assert np.array_equal(x_NF[:, -1], log_macs(space, space.encode_all(archs)))


def test_logarithms_are_of_the_macs() -> None:
    archs = [SPACE.sample(np.random.default_rng(seed)) for seed in range(5)]
    assert log_macs(SPACE, SPACE.encode_all(archs)) == pytest.approx([np.log(macs(lower(SPACE, arch))) for arch in archs])


@pytest.mark.parametrize("name", [*TINY, "ofa-mbv3-w1.0", "ofa-resnet50"])
def test_features_of_rows_know_genes_stages_and_the_network(name: str) -> None:
    space = get_space(name)
    of_space = feature_map(space)
    rows_NC = space.sample_rows(200, np.random.default_rng(0))
    x_NF = of_space(rows_NC)
    hot_F = np.array([feature.hot for feature in of_space.features])
    assert x_NF.shape == (200, len(hot_F))
    assert set(np.unique(x_NF[:, hot_F])) == {0.0, 2.0}
    # Whatever has a choice is there, and what has none is not.
    choices = {gene.name.rpartition(".")[2] for gene in space.columns if len(gene.values) > 1}
    assert {feature.kind for feature in of_space.features} == choices | {"macs"}
    # Numbers reach from -2 for the smallest network to 2 for the largest.
    ends_2F = of_space(space.encode_all([space.smallest(), space.largest()]))[:, ~hot_F]
    assert ends_2F[0] == pytest.approx(-2)
    assert ends_2F[1] == pytest.approx(2)
    assert (np.abs(x_NF[:, ~hot_F]) < 2 + 1e-9).all()


def test_a_sum_over_a_stage_counts_blocks_that_are_there() -> None:
    of_space = feature_map(SPACE)
    kernels = of_space.features.index(Feature("kernel", 1, hot=False))
    depth = next(c for c, gene in enumerate(SPACE.columns) if gene.name == "stages.1.depth")
    row_C = np.array(SPACE.encode(SPACE.largest()))
    shallow_C = row_C.copy()
    shallow_C[depth] = 0
    deep, shallow = of_space(np.stack([row_C, shallow_C]))[:, kernels]
    # 5/5 + 5/5 and 5/5, where 3/5 is the least.
    assert (deep, shallow) == pytest.approx((2.0, -2 + 4 * (1 - 0.6) / (2 - 0.6)))


def test_what_rows_hold_for_skipped_blocks_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    rows_NC = rng.integers(SPACE.cardinalities, size=(300, len(SPACE.columns)), dtype=np.int8)
    assert np.array_equal(feature_map(SPACE)(rows_NC), feature_map(SPACE)(SPACE.canonical(rows_NC)))


def test_different_networks_have_different_features() -> None:
    rows_NC = np.unique(SPACE.sample_rows(300, np.random.default_rng(1)), axis=0)
    assert len(np.unique(feature_map(SPACE)(rows_NC), axis=0)) == len(rows_NC)
    assert len(np.unique(features(SPACE, [SPACE.decode(row) for row in rows_NC.tolist()])[:, :-1], axis=0)) == len(rows_NC)


def test_inputs_of_one_area_differ_by_their_aspect_ratio() -> None:
    space = derive(SPACE, "wide", resolutions=[(16, 36), 24, (36, 16)])
    of_space = feature_map(space)
    (column,) = (number for number, feature in enumerate(of_space.features) if feature.kind == "aspect")
    assert "resolution" not in {feature.kind for feature in of_space.features}
    wide, square, tall = of_space(space.encode_all([space.largest(resolution) for resolution in space.resolutions]))
    assert (wide[column], square[column], tall[column]) == pytest.approx((-2, 0, 2))
    assert "aspect" not in {feature.kind for feature in feature_map(SPACE).features}
