"""A cost: the bytes of activations that blocks read and write, which decides where memory is slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ofa.costs import Cost

if TYPE_CHECKING:  # the command line imports costs whenever it starts, and torch takes seconds
    from ofa.blocks import PlacedBlock


def traffic_bytes(lowered: Iterable[PlacedBlock]) -> int:
    """Of a lowered network, or of one of its blocks, in float32."""
    return sum(4 * (placed.input.values + placed.block.output(placed.input).values) for placed in lowered)


TRAFFIC = Cost(
    name="traffic_bytes",
    words="activation traffic",
    unit="bytes",
    option="traffic",
    help="these bytes of activations read and written",
    example="2MiB",
    combine="sum",
    of=traffic_bytes,
)
