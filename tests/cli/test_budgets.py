from __future__ import annotations

import pytest
import typer

from ofa.cli.budgets import given, parse_bytes, parse_count, parse_latency_ms


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("12ms", 12.0), ("0.5s", 500.0), (" 12 ms ", 12.0), ("800us", 0.8), ("800µs", 0.8), (".5ms", 0.5)]
)
def test_latencies(text: str, milliseconds: float) -> None:
    assert parse_latency_ms(text) == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    ("text", "size"), [("2MiB", 2 * 1024**2), ("300KB", 300_000), ("1.5GiB", 3 * 1024**3 // 2), ("64B", 64), ("0.5KiB", 512)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "count"), [("300M", 300_000_000), ("5M", 5_000_000), ("1.25G", 1_250_000_000), ("90K", 90_000)])
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    "text", ["12", "-3ms", "0ms", "ms", "", "twelve ms", "1e3ms", "nanms", "12MB", "1,5ms", "12ms 13ms", "9" * 400 + "ms", "١٢ms"]
)
def test_nonsense_is_no_latency(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="positive number with a unit"):
        parse_latency_ms(text)


@pytest.mark.parametrize("text", ["2", "-2MiB", "0B", "0.2B", "2mib", "2Mb", "300M", "MiB"])
def test_nonsense_is_no_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="positive number with a unit"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["300", "-300M", "300m", "0M", "M", "300MB", "0.0000001K"])
def test_nonsense_is_no_count(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="positive number with a unit"):
        parse_count(text)


def test_the_sentence_names_units_value_and_an_example() -> None:
    with pytest.raises(typer.BadParameter) as caught:
        parse_bytes("2")
    sentence = caught.value.message
    assert "'2'" in sentence
    assert "KiB" in sentence
    assert "2MiB" in sentence


def test_only_given_budgets_count() -> None:
    assert given() == {}
    assert given(macs=300, latency_ms=12.0) == {"latency_ms": 12.0, "macs": 300}
