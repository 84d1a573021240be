"""Columns and values as people say and type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.cli.budgets import parse_energy_mj, parse_latency_ms, parse_percent, parser_of
from search.units import called, typed


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("latency_ms", 12.0, "12ms"),
        ("latency_high_ms@pi", 0.1, "0.1ms"),
        ("latency_ms", 0.0004, "0.4us"),
        ("latency_ms", 15000, "15s"),
        ("peak_activation_bytes", 200704, "196KiB"),
        ("weight_bytes", 300_000, "300KB"),
        ("weight_bytes", 200, "200B"),
        ("macs", 300_000_000, "300M"),
        ("params", 500, "0.5K"),
        ("energy_mj@pi", 20.5, "20.5mJ"),
        ("accuracy", 0.76, "76%"),
    ],
)
def test_values_are_said_as_they_are_typed(column: str, value: float, words: str) -> None:
    assert typed(column, value) == words


def test_columns_are_said_in_words() -> None:
    assert called("latency_ms@pi") == "latency on pi"
    assert called("latency_high_ms@pi", end=True) == "latency on pi (the upper end of its interval)"
    assert called("peak_activation_bytes") == "peak activations"


PARSERS = {
    "latency_high_ms@pi": parse_latency_ms,
    "energy_mj@pi": parse_energy_mj,
    "weight_bytes": parser_of("weight_bytes"),
    "macs": parser_of("macs"),
    "accuracy": parse_percent,
}


@given(st.sampled_from(sorted(PARSERS)), st.floats(1e-4, 1e12), st.booleans())
def test_a_value_that_is_rounded_and_typed_keeps_its_side(column: str, value: float, up: bool) -> None:
    if column in ("weight_bytes", "macs"):
        value = max(1.0, float(round(value)))
    elif column == "accuracy":
        value = min(value, 1e12) / 1e12
        value = max(value, 1e-6)
    parsed = PARSERS[column](typed(column, value, up=up))
    assert parsed == pytest.approx(value, rel=2e-3, abs=1)
    assert (parsed >= value * (1 - 1e-12)) if up else (parsed <= value * (1 + 1e-12) + (0.5 if column in ("weight_bytes", "macs") else 0))
