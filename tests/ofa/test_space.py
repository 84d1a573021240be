"""Spaces and archs as values: encoding, canonical form, sampling, neighbours, smaller spaces, and their errors."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from ofa.arch import Arch, Genes
from ofa.errors import ArchError, FileError, SpaceError
from ofa.families import get_space, lower, mobilenet_v3, space_names
from ofa.space import Gene, Space, Stage
from tests.ofa.strategies import ALL_SPACES, OTHER_INPUTS, archs_of

PUBLISHED_STAGE_CHOICES = 9**2 + 9**3 + 9**4  # three kernels times three ratios, two to four blocks


@given(archs_of((*ALL_SPACES, *OTHER_INPUTS)))
def test_decoding_an_encoded_arch_gives_the_arch(case: tuple[Space, Arch]) -> None:
    space, arch = case
    row = space.encode(arch)
    assert len(row) == len(space.columns)
    assert space.decode(row) == arch
    assert hash(space.decode(row)) == hash(arch)


@given(archs_of((*ALL_SPACES, *OTHER_INPUTS)))
def test_json_and_pickle_give_the_arch_back(case: tuple[Space, Arch]) -> None:
    _, arch = case
    assert Arch.from_json(json.loads(json.dumps(arch.to_json()))) == arch
    copy = pickle.loads(pickle.dumps(arch))
    assert copy == arch
    assert hash(copy) == hash(arch)


@given(archs_of((*ALL_SPACES, *OTHER_INPUTS)))
def test_different_archs_are_different_networks(case: tuple[Space, Arch]) -> None:
    space, arch = case
    built = [lower(space, neighbour) for neighbour in (arch, *space.neighbours(arch))]
    assert len(set(built)) == len(built)


@pytest.mark.parametrize("name", ALL_SPACES)
def test_genes_of_skipped_blocks_do_not_matter(name: str) -> None:
    space = get_space(name)
    smallest = space.encode(space.smallest())
    depth_columns = [i for i, gene in enumerate(space.columns) if gene.name.endswith(".depth")]
    other = list(smallest)
    for i, gene in enumerate(space.columns):
        stage_genes = gene.name.startswith("stages.") and i not in depth_columns
        if stage_genes and int(gene.name.split(".")[2]) >= space.stages[int(gene.name.split(".")[1])].depths[0]:
            other[i] = len(gene.values) - 1
    assert tuple(other) != smallest
    assert space.decode(other) == space.smallest()


def test_size_counts_the_networks_of_a_space_small_enough_to_enumerate() -> None:
    space = get_space("ofa-resnet50-tiny").restrict(resolution=[24], stem_inner_width=[0.65], stem_width=[0.65, 1.0])
    rows = product(*(range(len(gene.values)) for gene in space.columns))
    assert space.size == len({space.decode(row) for row in rows})


@pytest.mark.parametrize(
    ("name", "size"), [("ofa-mbv3-w1.0", 25 * PUBLISHED_STAGE_CHOICES**5), ("ofa-resnet50", 25 * 2 * 2 * 3**5 * 117**3 * 1053)]
)
def test_sizes_of_the_published_spaces(name: str, size: int) -> None:
    assert get_space(name).size == size


@pytest.mark.parametrize("name", ALL_SPACES)
def test_samples_are_points_and_follow_the_generator(name: str) -> None:
    space = get_space(name)
    first, again = ([space.sample(rng) for _ in range(20)] for rng in (np.random.default_rng(3), np.random.default_rng(3)))
    assert first == again
    assert all(arch in space for arch in first)
    assert len(set(first)) > 15


@given(archs_of((*ALL_SPACES, *OTHER_INPUTS)))
def test_neighbours_differ_in_one_choice(case: tuple[Space, Arch]) -> None:
    space, arch = case
    neighbours = list(space.neighbours(arch))
    assert len(set(neighbours)) == len(neighbours)
    assert arch not in neighbours
    for neighbour in neighbours:
        assert neighbour in space
        assert _choices_apart(arch, neighbour) == 1


@given(archs_of((*ALL_SPACES, *OTHER_INPUTS)))
def test_no_neighbour_is_missing(case: tuple[Space, Arch]) -> None:
    space, arch = case
    row = space.encode(arch)
    filled = [
        value if on else len(gene.values) - 1 for value, on, gene in zip(row, space.active(np.array([row]))[0], space.columns, strict=True)
    ]
    changed = [
        space.decode([*base[:column], index, *base[column + 1 :]])
        for base in (list(row), filled)
        for column, gene in enumerate(space.columns)
        for index in range(len(gene.values))
        if index != base[column]
    ]
    assert set(space.neighbours(arch)) == set(changed) - {arch}


def _choices_apart(one: Arch, other: Arch) -> int:
    apart = (one.resolution != other.resolution) + sum(one.network[name] != other.network[name] for name in one.network)
    for blocks, others in zip(one.stages, other.stages, strict=True):
        apart += len(blocks) != len(others)
        apart += sum(block[name] != new[name] for block, new in zip(blocks, others, strict=False) for name in block)
    return apart


@pytest.mark.parametrize("name", ALL_SPACES)
def test_largest_and_smallest_bound_the_costs(name: str) -> None:
    space, rng = get_space(name), np.random.default_rng(0)

    def macs(arch: Arch) -> int:
        return sum(placed.block.macs(placed.input) for placed in lower(space, arch))

    for arch in (space.sample(rng) for _ in range(10)):
        assert macs(space.smallest()) <= macs(arch) <= macs(space.largest())


def test_a_restricted_space_has_the_same_name_and_fewer_archs() -> None:
    space = get_space("ofa-mbv3-w1.0")
    phase = space.restrict(kernel=[7], expand=[4, 6], depth=[1, 2], resolution=[128, 224])
    assert phase.name == space.name
    assert phase.largest() == space.largest()
    rng = np.random.default_rng(0)
    for arch in (phase.sample(rng) for _ in range(20)):
        assert arch in space
        assert {block["kernel"] for stage in arch.stages for block in stage} == {7}
        assert {len(stage) for stage in arch.stages} <= {3, 4}


def test_a_stage_of_one_depth_keeps_it() -> None:
    space = get_space("ofa-proxyless-w1.3").restrict(depth=[2])
    assert [stage.depths for stage in space.stages] == [(4,)] * 5 + [(1,)]


def test_a_depth_beyond_those_of_a_stage_is_its_deepest() -> None:
    whole = get_space("ofa-mbv3-w1.0")
    space = replace(whole, name="uneven", stages=(replace(whole.stages[0], depths=(2, 3)), *whole.stages[1:]))
    assert space.restrict(depth=[0, 1, 2]) == space
    assert [stage.depths for stage in space.restrict(depth=[2]).stages] == [(3,), (4,), (4,), (4,), (4,)]
    assert [stage.depths for stage in space.restrict(depth=[0]).stages] == [(2,)] * 5
    with pytest.raises(SpaceError, match=r"depth must keep some of \[0, 1, 2\]"):
        space.restrict(depth=[3])


def test_equal_choices_make_equal_spaces() -> None:
    space = get_space("ofa-mbv3-tiny")
    assert space.restrict() == space
    assert hash(space.restrict()) == hash(space)
    assert get_space("ofa-mbv3-tiny", num_classes=3) != space


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"resolution": 130}, ["resolution", "[128, 132", "130"]),
        ({"space": "ofa-mbv3-w1.2"}, ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2"]),
        ({"stages": ((Genes(kernel=3, expand=3),),) * 5}, ["depth of stages.0", "[2, 3, 4]", "got 1"]),
        ({"stages": ((Genes(kernel=4, expand=3),) * 2,) * 5}, ["stages.0.0.kernel", "[3, 5, 7]", "got 4"]),
        ({"stages": ((Genes(kernel=3),) * 2,) * 5}, ["stages.0.0", "['kernel', 'expand']"]),
        ({"stages": ()}, ["5 stages", "has 0"]),
        ({"network": Genes(width=1)}, ["network", "width"]),
    ],
)
def test_an_arch_outside_its_space_is_named_with_rule_and_values(change: dict[str, object], parts: list[str]) -> None:
    space = get_space("ofa-mbv3-w1.0")
    good = space.smallest()
    fields = {"space": good.space, "resolution": good.resolution, "stages": good.stages, "network": good.network} | change
    arch = Arch(**fields)  # type: ignore[arg-type]
    assert arch not in space
    with pytest.raises(ArchError) as error:
        lower(space, arch)
    assert all(part in str(error.value) for part in parts)


def test_a_mistyped_space_suggests_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"did you mean 'ofa-mbv3-w1\.0'"):
        get_space("ofa-mbv3-w10")
    with pytest.raises(SpaceError, match="known: ofa-mbv3-32px"):
        get_space("zebra")


@pytest.mark.parametrize(
    "restriction", [{"kernel": [4]}, {"kernel": []}, {"kernels": [3]}, {"depth": [3]}, {"depth": [-1]}, {"resolution": [129]}]
)
def test_impossible_restrictions_are_refused(restriction: dict[str, list[int]]) -> None:
    with pytest.raises(SpaceError):
        get_space("ofa-mbv3-w1.0").restrict(**restriction)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [(), (3, 3), (5, 3)])
def test_a_gene_needs_ascending_values(values: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match="ascend"):
        Gene("kernel", values)
    with pytest.raises(SpaceError, match="ascend"):
        Stage(values, ())


def test_a_space_needs_two_classes() -> None:
    with pytest.raises(SpaceError, match="at least 2 classes"):
        get_space("ofa-mbv3-tiny", num_classes=1)


@pytest.mark.parametrize("row", [[0], [9] * 100])
def test_rows_of_another_shape_are_refused(row: list[int]) -> None:
    with pytest.raises(ArchError, match="indices"):
        get_space("ofa-mbv3-tiny").decode(row)


@pytest.mark.parametrize(
    "value", [{}, [], 3, None, {"space": "a", "resolution": "x", "stages": []}, {"space": "a", "resolution": 1, "stages": [[{"k": True}]]}]
)
def test_json_that_is_no_arch_is_refused(value: object) -> None:
    with pytest.raises(ArchError, match="an arch must be an object"):
        Arch.from_json(value)


def test_an_arch_file_round_trips_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    arch = get_space("ofa-resnet50").largest()
    arch.save(tmp_path / "arch.json")
    assert Arch.load(tmp_path / "arch.json") == arch
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FileError, match="must be JSON"):
        Arch.load(tmp_path / "bad.json")
    with pytest.raises(FileError, match="no such file"):
        Arch.load(tmp_path / "none.json")
    with pytest.raises(FileError, match="must be writable"):
        arch.save(tmp_path / "no-folder" / "arch.json")


def test_every_family_has_a_tiny_member() -> None:
    assert {"ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny"} <= set(space_names())


def test_the_32_pixel_space_spans_5_to_30_million_macs() -> None:
    space = get_space("ofa-mbv3-32px")
    low, high = (
        sum(placed.block.macs(placed.input) for placed in lower(space, arch)) / 1e6 for arch in (space.smallest(), space.largest())
    )
    assert 5 <= low < 6
    assert 29 < high < 31


@pytest.mark.parametrize("name", space_names())
def test_rows_of_many_archs_are_those_of_single_ones(name: str) -> None:
    space = get_space(name)
    rows_NC = space.sample_rows(20, np.random.default_rng(0))
    archs = [space.decode(row) for row in rows_NC.tolist()]
    assert (space.encode_all(archs) == rows_NC).all()
    untidy_NC = np.where(space.active(rows_NC), rows_NC, space.cardinalities - 1)
    assert (space.canonical(untidy_NC) == rows_NC).all()
    assert len(set(archs)) > 10


def test_rows_translate_between_a_space_and_a_part_of_it() -> None:
    space = get_space("ofa-mbv3-w1.0")
    part = space.restrict(resolution=[160, 224], depth=[0, 1], kernel=[3, 7])
    rows_NC = part.sample_rows(20, np.random.default_rng(0))
    translated_NC = part.rows_in(space, rows_NC)
    assert list(map(space.decode, translated_NC.tolist())) == list(map(part.decode, rows_NC.tolist()))
    assert (space.rows_in(part, translated_NC) == rows_NC).all()
    with pytest.raises(ArchError, match="must be one of"):
        space.rows_in(part, space.encode_all([space.largest()]))


def test_a_mobilenet_v3_without_gates_and_with_relu_alone() -> None:
    space = mobilenet_v3.make_space("plain", 1.0, (32,), squeeze_excite=False, activation="relu")
    blocks = [placed.block for placed in lower(space, space.largest())]
    assert {getattr(block, "activation", "relu") for block in blocks} == {"relu"}
    assert not any(getattr(block, "squeeze_excite", False) for block in blocks)
    by_stage = mobilenet_v3.make_space(
        "by-stage", 1.0, (32,), widths=(24, 40), squeeze_excite=(True, False), activation=("relu", "h_swish")
    )
    assert [(plan.squeeze_excite, plan.activation) for plan in by_stage.plans] == [(True, "relu"), (False, "h_swish")]
    with pytest.raises(SpaceError, match="activation must have a value for each of 5 stages, but has 1"):
        mobilenet_v3.make_space("short", 1.0, (32,), activation=("relu",))
