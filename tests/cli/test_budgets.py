from __future__ import annotations

import pytest
import typer

from ofa.cli.budgets import (
    Range,
    budget_of,
    parse_energy_mj,
    parse_latency_ms,
    parse_percent,
    parser_of,
    range_parser,
)

parse_bytes, parse_count = parser_of("weight_bytes"), parser_of("macs")


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12ms", Range(most=12.0)),
        ("10ms..12ms", Range(least=10.0, most=12.0)),
        ("10ms..", Range(least=10.0)),
        ("..12ms", Range(most=12.0)),
        ("pi=12ms", Range(most=12.0, device="pi")),
        ("pi 4=10ms .. 12ms", Range(least=10.0, most=12.0, device="pi 4")),
    ],
)
def test_ranges(text: str, expected: Range) -> None:
    assert range_parser(parse_latency_ms, of_device=True)(text) == expected


@pytest.mark.parametrize("text", ["..", "12ms..10ms", "10..12ms", "10ms..12", "pi=", "pi=..", "-1ms..2ms"])
def test_nonsense_is_no_range(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        range_parser(parse_latency_ms, of_device=True)(text)


def test_only_devices_have_names_in_front() -> None:
    with pytest.raises(typer.BadParameter):
        range_parser(parse_count)("pi=3M")


def test_energies_and_accuracies_have_units() -> None:
    assert parse_energy_mj("0.02J") == pytest.approx(20)
    assert parse_percent("76%") == pytest.approx(0.76)
    assert range_parser(parse_percent, alone="least")("76%") == Range(least=0.76)
    for text in ("0.76", "101%", "-3%"):
        with pytest.raises(typer.BadParameter):
            parse_percent(text)


def test_options_make_a_budget() -> None:
    budget = budget_of(
        latency=[Range(most=12.0, device="pi"), Range(most=3.0, device="phone")],
        counts={"macs": Range(least=1.0)},
        accuracy=Range(least=0.5),
    )
    assert budget.to_json() == {"latency_ms@pi": 12.0, "latency_ms@phone": 3.0, "macs": {"least": 1.0}, "accuracy": 0.5}
    with pytest.raises(typer.BadParameter, match="one limit"):
        budget_of(latency=[Range(most=12.0), Range(most=3.0)])
