from __future__ import annotations

import dataclasses
import json

import pytest

from devices import Conditions, Device, describe, get_device

PAUSING = Device(name="here", runtime="fake", threads=2, batch=4, pause_ms=20)


def test_they_are_a_devices_settings_and_go_through_json() -> None:
    conditions = Conditions.of(PAUSING, runtime_version="1", input_shape=(4, 3, 16, 16))
    assert (conditions.batch, conditions.threads, conditions.precision, conditions.pause_ms) == (4, 2, "fp32", 20.0)
    assert Conditions.from_json(json.loads(json.dumps(conditions.to_json()))) == conditions


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (Conditions.of(get_device("fake"), runtime_version="1"), "batch 1, fp32, 1 thread, calls in a row, fake 1"),
        (Conditions.of(PAUSING), "batch 4, fp32, 2 threads, 20 ms of pause before each call, fake"),
        (Conditions.of(get_device("fake"), input_shape=(1, 3, 16, 16)), "1 x 3 x 16 x 16, fp32, 1 thread, calls in a row, fake"),
        (Conditions(batch=1, precision="fp32", pause_ms=None), "batch 1, fp32, threads unknown, pauses unknown"),
    ],
)
def test_people_read_them_in_a_few_words(conditions: Conditions, words: str) -> None:
    assert conditions.words == words


def test_files_from_before_there_were_pauses_are_of_calls_in_a_row() -> None:
    fields = {key: value for key, value in get_device("fake").to_json().items() if key not in ("pause_ms", "opset")}
    assert Conditions.of_fields(fields, runtime_version="1") == Conditions.of(get_device("fake"), runtime_version="1")


def test_settings_differ_but_versions_and_shapes_do_not_matter_to_a_promise() -> None:
    here = Conditions.of(PAUSING, runtime_version="1", input_shape=(4, 3, 16, 16))
    newer = dataclasses.replace(here, runtime_version="2", input_shape=None)
    assert here.has_settings_of(newer)
    assert here.differences(newer) == ("runtime_version 1 and 2",)
    in_a_row = dataclasses.replace(here, pause_ms=0.0)
    assert not here.has_settings_of(in_a_row)
    assert here.differences(in_a_row) == ("pause_ms 20 and 0",)


def test_a_device_tells_its_own() -> None:
    assert Conditions.from_json(describe(PAUSING)["conditions"]) == Conditions.of(PAUSING, runtime_version="1")
