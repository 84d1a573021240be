from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import Device
from devices.timing import Timing
from latency_tables import Estimator, LatencyTable, blocks_of_space
from latency_tables.correction import Correction
from latency_tables.info import TableInfo
from latency_tables.table import COLUMNS, row_of, rows_frame
from ofa.cost import macs, params
from ofa.errors import ArchError, TableError
from ofa.families import get_space, lower
from ofa.inventory import inventory_of
from ofa.lookup import AdditiveTable
from ofa.space import Space
from tests.ofa.strategies import ALL_SPACES, TINY_SPACES, archs

CORRECTION = Correction(
    intercept_ms=0.5, slope=1.1, ms_per_weight_mib=0.02, ms_per_weight_mib2=0.003, half_width=0.1, coverage=0.9, nets=20
)


def random_table(space: Space, rng: np.random.Generator) -> LatencyTable:
    """A table of random times: nothing is measured, as only sums are looked at."""
    rows = []
    for placed in blocks_of_space(space):
        ms = float(rng.uniform(0.01, 5))
        timing = Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=2)
        rows.append(row_of(placed, timing, batch=1, precision="fp32"))
    device = Device(name="fake", runtime="fake").to_json()
    return LatencyTable(rows_frame(rows), TableInfo(device=device, runtime_version=None, spaces={space.name: space.resolutions}))


@lru_cache
def estimator_of(name: str) -> Estimator:
    """Of the space with a few of its resolutions, which is enough to be exact."""
    space = get_space(name)
    space = space.restrict(resolution=space.resolutions[:: max(1, len(space.resolutions) // 3)])
    return Estimator(space, random_table(space, np.random.default_rng(0)))


@lru_cache
def corrected_estimator_of(name: str) -> Estimator:
    plain = estimator_of(name)
    return Estimator(plain.space, plain.table.with_info(calibration=CORRECTION))


def random_rows(space: Space, count: int, rng: np.random.Generator) -> np.ndarray:
    """Encoded archs [count, C], the columns of skipped blocks at random too."""
    return np.stack([rng.integers(len(gene.values), size=count) for gene in space.columns], axis=1)


@pytest.mark.parametrize("name", ALL_SPACES)
@given(data=st.data())
@settings(max_examples=20)
def test_arrays_give_the_sum_over_the_lowered_blocks(name: str, data: st.DataObject) -> None:
    space = estimator_of(name).space
    few = [space.smallest(), space.largest(), *data.draw(st.lists(archs(space), min_size=1, max_size=5))]
    rows = np.array([space.encode(arch) for arch in few])
    networks = [lower(space, arch) for arch in few]
    for estimator in (estimator_of(name), corrected_estimator_of(name)):
        expected = [estimator.table.estimate(space, network) for network in networks]
        latency, low, high = estimator.estimates_of_rows(rows)
        np.testing.assert_allclose(latency, [each.latency_ms for each in expected], rtol=1e-9)
        np.testing.assert_allclose(low, [each.latency_low_ms for each in expected], rtol=1e-9)
        np.testing.assert_allclose(high, [each.latency_high_ms for each in expected], rtol=1e-9)
        sum_ms, weight_bytes = estimator.sums_of_rows(rows)
        expected_ms, expected_bytes = zip(*map(estimator.sums, few), strict=True)
        np.testing.assert_allclose(sum_ms, expected_ms, rtol=1e-9)
        assert weight_bytes.tolist() == list(expected_bytes)


@pytest.mark.parametrize("name", TINY_SPACES)
def test_a_space_with_fewer_choices_is_compiled_to_its_own_columns(name: str) -> None:
    whole = get_space(name)
    table = random_table(whole, np.random.default_rng(0))
    gene = next(gene for gene in whole.stages[0].genes if len(gene.values) > 1)
    for space in (
        whole.restrict(resolution=whole.resolutions[:1]),
        whole.restrict(depth=[0]),
        whole.restrict(**{gene.name: gene.values[:1]}),
    ):
        rows = random_rows(space, 200, np.random.default_rng(1))
        expected = [table.estimate(space, lower(space, space.decode(row.tolist()))).latency_ms for row in rows]
        np.testing.assert_allclose(Estimator(space, table).latencies_of_rows(rows), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ALL_SPACES)
def test_equal_networks_have_equal_estimates_whatever_skipped_columns_hold(name: str) -> None:
    estimator = estimator_of(name)
    space = estimator.space
    rows = random_rows(space, 200, np.random.default_rng(0))
    canonical = np.array([space.encode(space.decode(row.tolist())) for row in rows])
    assert (rows != canonical).any()
    np.testing.assert_array_equal(estimator.latencies_of_rows(rows), estimator.latencies_of_rows(canonical))


@pytest.mark.parametrize("name", TINY_SPACES)
def test_any_value_that_adds_up_over_blocks_can_be_compiled(name: str) -> None:
    space = get_space(name)
    inventory = inventory_of(space)
    rows = random_rows(space, 100, np.random.default_rng(0))
    networks = [lower(space, space.decode(row.tolist())) for row in rows]
    for cost in (macs, params):
        table = AdditiveTable(space, inventory, np.array([cost([placed]) for placed in inventory.blocks], dtype=np.float64))
        assert table(rows).tolist() == [cost(network) for network in networks]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("value", [100, -1])
def test_rows_of_no_network_are_refused_wherever_they_are(dtype: type[np.integer], value: int) -> None:
    estimator = estimator_of("ofa-resnet50-tiny")
    space = estimator.space
    good = np.tile(np.array(space.encode(space.largest()), dtype=dtype), (300, 1))
    assert len(set(estimator.latencies_of_rows(good).tolist())) == 1
    for place in (0, 130, 299):
        rows = good.copy()
        rows[place, 3] = np.array(value).astype(dtype)
        with pytest.raises(ArchError, match=r"must have \d+ indices below"):
            estimator.latencies_of_rows(rows)
        with pytest.raises(ArchError, match=r"must have \d+ indices below"):
            estimator.sums_of_rows(rows)


def test_what_is_no_matrix_of_integers_is_refused() -> None:
    estimator = estimator_of("ofa-mbv3-tiny")
    row = np.array(estimator.space.encode(estimator.space.largest()))
    with pytest.raises(ArchError, match="matrix of integers"):
        estimator.latencies_of_rows(row)
    with pytest.raises(ArchError, match="matrix of integers"):
        estimator.latencies_of_rows(row[None] + 0.5)
    with pytest.raises(ArchError, match=r"must have \d+ indices below"):
        estimator.latencies_of_rows(row[None, :-1])


def test_rows_may_lie_in_memory_as_they_like() -> None:
    estimator = estimator_of("ofa-mbv3-tiny")
    rows = random_rows(estimator.space, 500, np.random.default_rng(0))
    expected = estimator.latencies_of_rows(rows)
    np.testing.assert_array_equal(estimator.latencies_of_rows(np.asfortranarray(rows)), expected)
    np.testing.assert_array_equal(estimator.latencies_of_rows(rows[::-3]), expected[::-3])


def test_more_archs_than_a_chunk_and_none(space: Space, table: LatencyTable) -> None:
    estimator = Estimator(space, table)
    row = space.encode(space.largest())
    many = estimator.latencies_of_rows(np.tile(row, (20_000, 1)).astype(np.int8))
    assert many.shape == (20_000,)
    assert len(set(many.tolist())) == 1
    assert many[0] == pytest.approx(estimator(space.largest()).latency_ms, rel=1e-12)
    assert estimator.latencies_of_rows(np.empty((0, len(row)), dtype=int)).shape == (0,)


def test_missing_blocks_are_an_error_only_for_those_who_need_them(space: Space, table: LatencyTable) -> None:
    one = LatencyTable(table.rows[table.rows["input_height_px"] <= 24], table.info)
    estimator = Estimator(space, one)
    small_row, large_row = space.encode(space.largest(space.resolutions[0])), space.encode(space.largest())
    assert estimator.latencies_of_rows([small_row])[0] > 0
    message = r"lacks \d+ of \d+, first .*; measure them with: ofa table build --space ofa-mbv3-tiny .*--resolutions 32 "
    with pytest.raises(TableError, match=message):
        estimator.latencies_of_rows([small_row, large_row])
    with pytest.raises(TableError, match=message):
        estimator.sums_of_rows([small_row, large_row])


def test_a_table_read_from_a_file_has_the_columns(table: LatencyTable) -> None:
    assert isinstance(table.rows, pd.DataFrame)
    assert tuple(table.rows.columns) == COLUMNS
