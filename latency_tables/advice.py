"""Warnings about weak latency tables, as sentences with the next step."""

from __future__ import annotations

import math

from latency_tables.check import TableCheck
from latency_tables.info import TableInfo

__all__ = ["WIDE", "advice_on_check", "advice_on_table"]

WIDE = 0.25
"""Half width of an interval, as a share of the latency, above which the interval is too wide to be useful."""
_LEAST_INSIDE = 0.6
_LEAST_KENDALL = 0.5


def advice_on_table(info: TableInfo) -> tuple[str, ...]:
    """Warnings about a table that is not calibrated, or whose interval is wide.

    Args:
        info: info of the table, from the table or from a front. Latencies that were measured network by network get no warnings.
    """
    if info.source == "measured":
        return ()
    called, calibration = f"the latency table of {info.device_name}", info.calibration
    if calibration is None:
        remedy = "time networks on the device, with: ofa table transfer" if info.sources else "run: ofa table calibrate"
        return (f"{called} is not calibrated: a network's latency is the plain sum of its blocks, without an interval; {remedy}",)
    if calibration.half_width > WIDE:
        return (
            f"{called} has an interval of ±{calibration.half_width:.0%}, too wide for a reliable budget; calibrate it again with more "
            "--nets while the machine is idle: ofa table calibrate --overwrite",
        )
    return ()


def advice_on_check(found: TableCheck) -> tuple[str, ...]:
    """Warnings about a table whose estimates differ from measured networks.

    Args:
        found: comparison of estimates and measurements.
    """
    wrong = []
    if found.mean_error > WIDE:
        wrong.append(f"it was off by {found.mean_error:.0%} on average")
    if not math.isnan(found.inside_interval) and found.inside_interval < _LEAST_INSIDE:
        wrong.append(f"only {found.inside_interval:.0%} of them are inside their interval")
    if found.kendall < _LEAST_KENDALL:
        wrong.append(f"it ranks them with a Kendall tau of {found.kendall:.2f}")
    if not wrong:
        return ()
    return (
        f"the table predicts the {found.nets} timed networks badly: {', and '.join(wrong)}; calibrate it again while the machine is idle: "
        "ofa table calibrate --overwrite",
    )
