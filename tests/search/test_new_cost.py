"""A cost of one's own is one entry, and is found everywhere that costs are: space, budget, front, report, options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ofa.blocks import PlacedBlock
from ofa.cli.main import build_app
from ofa.costs import COSTS, Cost
from ofa.errors import SearchError
from search.budget import Budget
from search.evolution.archive import Archive
from search.front.build import front_of
from search.front.front import Front
from search.report import page_of
from tests.ofa.cost_contract import CostContract
from tests.search.fakes import SMALL, fake_problem


def widest(lowered: list[PlacedBlock]) -> int:
    return max(placed.block.out_channels for placed in lowered)


WIDEST = Cost(
    name="widest_channels",
    words="widest block",
    unit="count",
    option="widest",
    help="this width of a block",
    example="1K",
    combine="max",
    of=widest,  # type: ignore[arg-type]
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with COSTS.registered(WIDEST.name, WIDEST):
        yield


class TestWidest(CostContract):
    @pytest.fixture
    def cost(self) -> Cost:
        return WIDEST


def test_a_front_has_it_keeps_budgets_on_it_and_shows_it(tmp_path: Path) -> None:
    archive = Archive(fake_problem(objectives=("latency_high_ms@paper", WIDEST.name)))
    archive.evaluate(SMALL.sample_rows(200, np.random.default_rng(0)))
    front_of(archive, {}).save(tmp_path / "front")
    front = Front.load(tmp_path / "front")
    limit = float(np.median(front.columns[WIDEST.name]))
    (best,) = front.query(Budget({WIDEST.name: limit}))
    assert best.to_json()[WIDEST.name] == best.costs[WIDEST.name] <= limit
    assert WIDEST.name in [cost.key for cost in page_of(front).content["costs"]]
    with pytest.raises(SearchError, match="the least achievable is widest block"):
        front.query(Budget({WIDEST.name: 1}))


def test_the_command_line_tells_and_limits_it() -> None:
    result = CliRunner().invoke(build_app(), ["space", SMALL.name, "--samples", "3", "--widest", "2K", "--json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["budget"]["limits"] == {WIDEST.name: 2000}
    assert report["costs"][WIDEST.name]["smallest"] >= 1
    people = CliRunner().invoke(build_app(), ["space", SMALL.name, "--samples", "3"]).stdout
    assert "widest block" in people


def test_a_front_from_before_the_cost_is_still_read(tmp_path: Path) -> None:
    archive = Archive(fake_problem())
    archive.evaluate(SMALL.sample_rows(50, np.random.default_rng(0)))
    front = front_of(archive, {})
    Front(front.networks.drop(columns=WIDEST.name), front.dominated, front.info).save(tmp_path / "front")
    (best,) = Front.load(tmp_path / "front").query(Budget())
    assert WIDEST.name not in best.costs
