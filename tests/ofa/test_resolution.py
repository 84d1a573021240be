"""Resolutions as values: one form for equal ones, text and JSON there and back, their order, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.errors import SpaceError
from ofa.resolution import ascending, mean_side, parse_resolution, pixels, resolution_to_json, sides

SIDES = st.integers(1, 4096)


@given(SIDES, SIDES)
def test_every_form_gives_the_same_value(height: int, width: int) -> None:
    value = parse_resolution((height, width))
    assert value == (height if height == width else (height, width))
    assert sides(value) == (height, width)
    forms = [value, [height, width], f"{height}x{width}", resolution_to_json(value), json.loads(json.dumps(resolution_to_json(value)))]
    assert all(parse_resolution(form) == value for form in forms)
    assert pixels(value) == pixels(str(resolution_to_json(value))) == (f"{height} px" if height == width else f"{height}x{width} px")


@given(SIDES)
def test_a_square_is_one_number(side: int) -> None:
    assert parse_resolution(f"{side}x{side}") == parse_resolution(str(side)) == parse_resolution(np.int64(side)) == side
    assert resolution_to_json((side, side)) == side
    assert mean_side(side) == side


def test_resolutions_ascend_by_area_then_height() -> None:
    mixed = ["32", (16, 24), "24x16", 32, (64, 16), 8, "32x32"]
    assert ascending(mixed) == (8, (16, 24), (24, 16), 32, (64, 16))


@pytest.mark.parametrize("value", [0, -1, "0", "224x0", "big", "", "224x", "1x2x3", (1, 2, 3), (), 224.5, 224.0, None, True, (224, True)])
def test_what_is_no_resolution_is_refused_in_a_sentence(value: object) -> None:
    with pytest.raises(SpaceError, match=r"^a resolution must be whole pixels .*\(224x160\), but is .*; write it in one of these forms$"):
        parse_resolution(value)
