"""What a latency table is of little use for, as sentences with the next step."""

from __future__ import annotations

import math

from latency_tables.check import TableCheck
from latency_tables.info import TableInfo

__all__ = ["WIDE", "advice_on_check", "advice_on_table"]

WIDE = 0.25
"""Half of an interval, as a share of the latency, from which on it says little."""
_LEAST_INSIDE = 0.6
_LEAST_KENDALL = 0.5


def advice_on_table(info: TableInfo) -> tuple[str, ...]:
    """What to know before a table's latencies are relied on.

    Args:
        info: of the table, or what a front keeps of it; of a device whose networks were timed there is nothing to say.
    """
    if info.source == "measured":
        return ()
    called, calibration = f"the latency table of {info.device_name}", info.calibration
    if calibration is None:
        remedy = "time networks on the device, with: ofa table transfer" if info.sources else "run: ofa table calibrate"
        return (f"{called} is not calibrated, so that the sum of its blocks stands for a network and no interval is known; {remedy}",)
    if calibration.half_width > WIDE:
        return (
            f"{called} knows networks only within {calibration.half_width:.0%}, so that budgets on it mean little; calibrate it again with "
            "more --nets while the machine does nothing else: ofa table calibrate --overwrite",
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
