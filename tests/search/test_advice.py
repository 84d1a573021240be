"""What is of little use is said, with the next step; and what is good is not doubted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from latency_tables.advice import advice_on_check, advice_on_table
from latency_tables.check import compare
from latency_tables.correction import Correction
from latency_tables.info import PublishedFile, TableInfo
from search.advice import advice_on_accuracy, advice_on_budget, advice_on_front, advice_on_predictor
from search.budget import Bound, Budget
from tests.search.fronts import make_front

GOOD: dict[str, Any] = {"source": "predicted", "networks": 100, "kendall_tau": 0.9}
CORRECTION = Correction(intercept_ms=0.0, slope=1.0, half_width=0.05, coverage=0.9, nets=20)
TABLE = TableInfo(device={"name": "pi", "batch": 1, "precision": "fp32"}, runtime_version="1", calibration=CORRECTION)


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"kendall_tau": 0.16}, "a Kendall tau of only 0.16"),
        ({"fair_sample": {"networks": 10, "kendall_tau": -0.1}}, "a Kendall tau of only -0.10"),
        ({"networks": 12}, "fitted to 12 networks, too few"),
    ],
)
def test_a_poor_predictor_is_said(provenance: dict[str, Any], words: str) -> None:
    (sentence,) = advice_on_predictor({**GOOD, **provenance})
    assert words in sentence
    assert "; " in sentence
    assert "ofa predictor fit --nets" in sentence


@pytest.mark.parametrize(
    "provenance",
    [{}, {"fair_sample": {"networks": 10, "kendall_tau": 0.8}, "kendall_tau": 0.2}, {"source": "measured", "kendall_tau": None}],
)
def test_a_good_predictor_is_not_doubted(provenance: dict[str, Any]) -> None:
    assert advice_on_predictor({**GOOD, **provenance}) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"calibration": None}, "the latency table of pi is not calibrated"),
        ({"calibration": replace(CORRECTION, half_width=0.75)}, "has an interval of ±75%"),
        ({"calibration": None, "sources": (PublishedFile(name="a", sha256="b", resolution=224),)}, "run: ofa table transfer"),
    ],
)
def test_a_poor_table_is_said(changes: dict[str, Any], words: str) -> None:
    (sentence,) = advice_on_table(replace(TABLE, **changes))
    assert words in sentence.replace("time networks on the device, with:", "run:")


def test_a_good_table_and_what_is_measured_are_not_doubted() -> None:
    assert advice_on_table(TABLE) == ()
    assert advice_on_table(replace(TABLE, source="measured", calibration=None)) == ()


def checked(factors: list[float]) -> tuple[str, ...]:
    ms = np.arange(1.0, 1.0 + len(factors))
    rows = {"latency_ms": ms, "latency_low_ms": 0.95 * ms, "latency_high_ms": 1.05 * ms, "measured_ms": ms * np.array(factors)}
    return advice_on_check(compare(pd.DataFrame(rows)))


def test_a_failed_check_is_said() -> None:
    assert checked([1.0, 1.01, 0.98, 1.02]) == ()
    (sentence,) = checked([0.5, 0.5, 0.5, 0.5])
    assert "off by 100% on average, and only 0% of them are inside their interval" in sentence
    assert "ofa table calibrate --overwrite" in sentence


@pytest.mark.parametrize(
    ("accuracy", "classes", "images", "is_said"),
    [(0.1, 10, 360, True), (0.14, 10, 360, True), (0.2, 10, 360, False), (0.5, 2, 1000, True), (0.6, 2, 1000, False), (0.6, 2, 10, True)],
)
def test_accuracies_of_chance_are_said(accuracy: float, classes: int, images: int, is_said: bool) -> None:
    found = advice_on_accuracy(accuracy, classes, what="the network", images=images)
    assert len(found) == is_said
    for sentence in found:
        assert sentence.startswith(f"the network is right on {accuracy:.1%} of images, no better than guessing among {classes} classes; ")


def test_a_front_passes_on_what_is_to_be_said_of_its_sources() -> None:
    latency = {"pi": replace(TABLE, calibration=None), "phone": TABLE}
    front = make_front(networks=60, accuracy={**GOOD, "kendall_tau": 0.1}, latency=latency)
    predictor, table = advice_on_front(front)
    assert "Kendall tau of only 0.10" in predictor
    assert "table of pi is not calibrated" in table
    assert advice_on_front(make_front(networks=60)) == ()


def test_a_budget_that_is_not_used_is_said() -> None:
    front = make_front(networks=60)
    most = float(front.columns["macs"].max())

    def said(budget: Budget) -> tuple[str, ...]:
        return advice_on_budget(budget, front.columns, front.device_names)

    (sentence,) = said(Budget({"macs": 4 * most, "params": 1e9}))
    assert sentence.startswith("no network of the front uses the budget: the most costly one has MACs ")
    assert "a larger space or resolution could use the rest for accuracy" in sentence
    for used in (Budget({"macs": most}), Budget({"macs": 4 * most, "params": 1e4}), Budget(), Budget({"macs": Bound(least=1)})):
        assert said(used) == ()
