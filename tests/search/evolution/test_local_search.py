from __future__ import annotations

from typing import Any

from ofa.arrays import Rows
from ofa.space import Space
from search.budget import Budget
from search.evolution.archive import Archive
from search.evolution.local_search import best_of, improve
from tests.search.fakes import SMALL, TINY, fake_problem


def archive_of(space: Space, rows_NC: Rows, **settings: Any) -> Archive:
    archive = Archive(fake_problem(space, **settings))
    archive.evaluate(rows_NC)
    return archive


def test_improvement_ends_where_no_neighbour_is_better() -> None:
    archive = archive_of(TINY, TINY.encode_all([TINY.smallest(), TINY.largest()]))
    improve(archive, limit=TINY.size)
    best = best_of(archive)
    assert not len(archive.fresh(TINY.neighbour_rows(archive.rows[best])))
    assert improve(archive, limit=1000) == 0


def test_improvement_stays_within_its_limit() -> None:
    archive = archive_of(SMALL, SMALL.encode_all([SMALL.smallest()]))
    assert improve(archive, limit=37) == 37
    assert len(archive) == 38


def test_improvement_finds_its_way_into_the_budget() -> None:
    smallest = archive_of(SMALL, SMALL.encode_all([SMALL.smallest()]), objectives=("macs",))
    limit = 1.3 * float(smallest.columns["macs"][0])
    archive = archive_of(SMALL, SMALL.encode_all([SMALL.largest()]), budget=Budget({"macs": limit}))
    improve(archive, limit=600)
    assert archive.allowed.any()
