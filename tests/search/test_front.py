from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.arch import Arch
from ofa.errors import FileError, SearchError
from search.budget import Budget
from search.front import Front, ImpossibleBudgetError
from search.problem import Archive
from tests.search.fakes import SMALL, fake_problem

LIMITS = ("latency_ms", "macs", "params", "weight_bytes", "peak_activation_bytes")


def make_archive(count: int = 400, **settings: object) -> Archive:
    rng = np.random.default_rng(0)
    archive = Archive(fake_problem(**settings))
    archive.evaluate([SMALL.smallest(), *(SMALL.sample(rng) for _ in range(count)), SMALL.largest()])
    return archive


ARCHIVE = make_archive()
COLUMNS = ARCHIVE.columns()
METADATA = {"space": SMALL.name, "device": "paper"}
FRONT = Front.of(ARCHIVE, METADATA)


@given(st.dictionaries(st.sampled_from(LIMITS), st.floats(0.02, 1.0), max_size=3))
def test_the_front_answers_any_budget_as_well_as_everything_that_was_evaluated(shares: dict[str, float]) -> None:
    budget = Budget.from_mapping({key: float(np.quantile(COLUMNS[key], share)) for key, share in shares.items()})
    allowed = budget.allows(COLUMNS)
    if allowed.any():
        (best,) = FRONT.query(budget)
        assert best.accuracy == COLUMNS["accuracy"][allowed].max()
        row = ARCHIVE.archs.index(best.arch)
        assert all(getattr(best, name) == column[row] for name, column in COLUMNS.items())
        assert allowed[row]
    else:
        with pytest.raises(ImpossibleBudgetError):
            FRONT.query(budget)


def test_the_best_come_first() -> None:
    found = FRONT.query(Budget(latency_ms=0.5), top=5)
    assert len(set(found)) == 5
    assert [c.accuracy for c in found] == sorted((c.accuracy for c in found), reverse=True)
    assert len(FRONT.query(Budget(), top=10**6)) == len(FRONT)
    with pytest.raises(SearchError, match="top is 0"):
        FRONT.query(Budget(), top=0)


def test_an_impossible_limit_is_answered_with_the_least_that_can_be() -> None:
    least = float(COLUMNS["latency_high_ms"].min())
    with pytest.raises(ImpossibleBudgetError, match=r"least achievable is latency_ms [0-9.]+;") as caught:
        FRONT.query(Budget(latency_ms=least * 0.99, macs=1e12))
    assert caught.value.binding == {"latency_ms": least}
    assert FRONT.query(Budget(latency_ms=least))[0].latency_high_ms == least
    stated = float(str(caught.value).partition("is latency_ms ")[2].partition(";")[0])
    assert least <= stated < 1.001 * least


def test_limits_that_exclude_each_other_are_named_with_what_each_would_have_to_be() -> None:
    # In this space what is fast is also small; parameters are mirrored, so that the fast networks have many.
    networks = FRONT.networks.assign(params=FRONT.networks["params"].max() + 1 - FRONT.networks["params"])
    front = Front(networks, FRONT.dominated, METADATA)
    limits = {"latency_ms": float(networks["latency_high_ms"].quantile(0.1)), "params": float(networks["params"].quantile(0.1))}
    with pytest.raises(ImpossibleBudgetError, match="with the other limits kept") as caught:
        front.query(Budget.from_mapping(limits))
    assert set(caught.value.binding) == set(limits)
    for key, value in caught.value.binding.items():
        assert value > limits[key]
        assert front.query(Budget.from_mapping({**limits, key: value}))


def test_a_search_without_an_answer_says_what_is_least() -> None:
    archive = make_archive(20, budget=Budget(macs=1000))
    with pytest.raises(ImpossibleBudgetError, match=f"least achievable is macs {int(COLUMNS['macs'].min())}"):
        Front.of(archive, METADATA)


def test_only_networks_within_the_budget_are_on_the_front() -> None:
    limit = float(np.median(COLUMNS["macs"]))
    front = Front.of(make_archive(budget=Budget(macs=limit)), METADATA)
    assert front.networks["macs"].max() <= limit
    assert len(front.networks) + len(front.dominated) == len(ARCHIVE)


def test_a_saved_front_answers_the_same(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    FRONT.save(path)
    loaded = Front.load(path)
    assert loaded.query(Budget(latency_ms=0.5), top=3) == FRONT.query(Budget(latency_ms=0.5), top=3)
    assert loaded.device_name == "paper"
    assert loaded.metadata.items() >= METADATA.items()
    assert {"schema", "ofa", "date"} <= set(loaded.metadata)
    assert len(loaded.dominated) == len(FRONT.dominated)


def test_a_candidate_is_json_under_the_stable_keys() -> None:
    (best,) = FRONT.query(Budget())
    value = json.loads(json.dumps(best.to_json()))
    latencies = ("latency_ms", "latency_low_ms", "latency_high_ms")
    assert set(value) == {"arch", "accuracy", *latencies, "macs", "params", "weight_bytes", "peak_activation_bytes"}
    assert Arch.from_json(value["arch"]) == best.arch
    assert isinstance(value["macs"], int)


def change_metadata(path: Path, **changes: object) -> None:
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"ofa"])
    pq.write_table(table.replace_schema_metadata({b"ofa": json.dumps({**metadata, **changes}).encode()}), path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    FRONT.save(path)
    change_metadata(path, schema=99, ofa="7.0")
    with pytest.raises(FileError, match=r"has 99 \(written by ofa 7.0\)"):
        Front.load(path)
    change_metadata(path, schema=1, kind="predictor")
    with pytest.raises(FileError, match="must be a front, but is a predictor; make a front with: ofa search"):
        Front.load(path)
    change_metadata(path, kind="front")
    pq.write_table(pq.read_table(path).drop_columns(["macs"]), path)
    with pytest.raises(FileError, match="column macs"):
        Front.load(path)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(FileError, match="damaged"):
        Front.load(path)
    with pytest.raises(FileError, match="check the path"):
        Front.load(tmp_path / "absent")


def test_a_front_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="writable"):
        FRONT.save(tmp_path / "absent" / "f.parquet")
