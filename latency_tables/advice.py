"""What a latency table is of little use for, as sentences with the next step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from latency_tables.check import TableCheck

__all__ = ["WIDE", "advice_on_check", "advice_on_table"]

WIDE = 0.25
"""Half of an interval, as a share of the latency, from which on it says little."""
_LEAST_INSIDE = 0.6
_LEAST_KENDALL = 0.5


def advice_on_table(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What to know before a table's latencies are relied on.

    Args:
        metadata: of the table, or what a front keeps of it; of a device whose networks were timed there is nothing to say.
    """
    if metadata.get("source") == "measured":
        return ()
    device = metadata.get("device")
    called = f"the latency table of {device['name']}" if isinstance(device, Mapping) and "name" in device else "the latency table"
    calibration = metadata.get("calibration")
    if calibration is None:
        remedy = "time networks on the device, with: ofa table transfer" if "sources" in metadata else "run: ofa table calibrate"
        return (f"{called} is not calibrated, so that the sum of its blocks stands for a network and no interval is known; {remedy}",)
    half_width = calibration.get("half_width") if isinstance(calibration, Mapping) else None
    if isinstance(half_width, int | float) and half_width > WIDE:
        return (
            f"{called} knows networks only within {half_width:.0%}, so that budgets on it mean little; calibrate it again with more "
            "--nets while the machine does nothing else: ofa table calibrate --overwrite",
        )
    return ()


def advice_on_check(found: TableCheck) -> tuple[str, ...]:
    """What to know of a table that was held against networks.

    Args:
        found: how its estimates compare to what was measured.
    """
    wrong = []
    if found.mean_error > WIDE:
        wrong.append(f"it was off by {found.mean_error:.0%} on average")
    if not math.isnan(found.inside_interval) and found.inside_interval < _LEAST_INSIDE:
        wrong.append(f"only {found.inside_interval:.0%} of them are within their interval")
    if found.kendall < _LEAST_KENDALL:
        wrong.append(f"it ranks them with a Kendall tau of {found.kendall:.2f}")
    if not wrong:
        return ()
    return (
        f"the table says little of the {found.nets} networks that were timed: {', and '.join(wrong)}; calibrate it again while the machine "
        "does nothing else: ofa table calibrate --overwrite",
    )
