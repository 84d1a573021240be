from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from devices import Device
from devices.timing import Timing
from latency_tables import Estimator, LatencyTable, blocks_of_space
from latency_tables.correction import Correction
from latency_tables.table import COLUMNS, row_of, rows_frame
from ofa.errors import TableError
from ofa.families import get_space, lower
from ofa.space import Space

CORRECTION = Correction(intercept_ms=0.5, slope=1.1, ms_per_weight_mib=0.02, half_width=0.1, coverage=0.9, nets=20)
FAMILIES = ("ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny", "ofa-mbv3-32px", "ofa-mbv3-w1.0", "ofa-resnet50")


def random_table(space: Space, rng: np.random.Generator) -> LatencyTable:
    """A table of random times: nothing is measured, as only sums are looked at."""
    rows = []
    for placed in blocks_of_space(space):
        ms = float(rng.uniform(0.01, 5))
        timing = Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=2)
        rows.append(row_of(placed, timing, batch=1, precision="fp32"))
    device = Device(name="fake", runtime="fake").to_json()
    return LatencyTable(rows_frame(rows), {"device": device, "spaces": {space.name: list(space.resolutions)}})


def small(name: str) -> Space:
    """The space with a few of its resolutions, which is enough to be exact."""
    space = get_space(name)
    return space.restrict(resolution=space.resolutions[:: max(1, len(space.resolutions) // 3)])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("corrected", [False, True])
def test_arrays_give_the_sum_over_the_lowered_blocks(name: str, corrected: bool) -> None:
    space, rng = small(name), np.random.default_rng(0)
    table = random_table(space, rng)
    if corrected:
        table = table.with_metadata(calibration=CORRECTION.to_json())
    estimator = Estimator(space, table)
    rows = np.array([rng.integers([len(gene.values) for gene in space.columns]) for _ in range(300)])
    rows = np.concatenate([rows, [space.encode(space.smallest()), space.encode(space.largest())]])
    expected = [table.estimate(space, lower(space, space.decode(row.tolist()))) for row in rows]
    latency, low, high = estimator.estimates_of_rows(rows)
    np.testing.assert_allclose(latency, [each.latency_ms for each in expected], rtol=1e-9)
    np.testing.assert_allclose(low, [each.low_ms for each in expected], rtol=1e-9)
    np.testing.assert_allclose(high, [each.high_ms for each in expected], rtol=1e-9)


def test_equal_networks_have_equal_estimates_whatever_skipped_columns_hold() -> None:
    space, rng = get_space("ofa-mbv3-32px"), np.random.default_rng(0)
    estimator = Estimator(space, random_table(space, rng))
    rows = np.array([rng.integers([len(gene.values) for gene in space.columns]) for _ in range(200)])
    canonical = np.array([space.encode(space.decode(row.tolist())) for row in rows])
    assert (rows != canonical).any()
    np.testing.assert_array_equal(estimator.latencies_of_rows(rows), estimator.latencies_of_rows(canonical))


def test_more_archs_than_a_chunk_and_none(space: Space, table: LatencyTable) -> None:
    estimator = Estimator(space, table)
    row = space.encode(space.largest())
    many = estimator.latencies_of_rows(np.tile(row, (20_000, 1)).astype(np.int8))
    assert many.shape == (20_000,)
    assert len(set(many.tolist())) == 1
    assert many[0] == pytest.approx(estimator(space.largest()).latency_ms, rel=1e-12)
    assert estimator.latencies_of_rows(np.empty((0, len(row)), dtype=int)).shape == (0,)


def test_missing_blocks_are_an_error_only_for_those_who_need_them(space: Space, table: LatencyTable) -> None:
    one = LatencyTable(table.rows[table.rows["input_size_px"] <= 24], table.metadata)
    estimator = Estimator(space, one)
    small_row, large_row = space.encode(space.largest(space.resolutions[0])), space.encode(space.largest())
    assert estimator.latencies_of_rows([small_row])[0] > 0
    with pytest.raises(TableError, match=r"lacks \d+ of \d+, first"):
        estimator.latencies_of_rows([small_row, large_row])


def test_a_table_read_from_a_file_has_the_columns(table: LatencyTable) -> None:
    assert isinstance(table.rows, pd.DataFrame)
    assert tuple(table.rows.columns) == COLUMNS
