"""Costs that follow from a network alone, one entry each; importing this needs neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ofa.errors import SearchError
from ofa.registry import Registry

if TYPE_CHECKING:
    from ofa.blocks import PlacedBlock

__all__ = ["COSTS", "FLOAT32", "Cost", "NumberFormat", "costs"]


@dataclass(frozen=True, kw_only=True)
class NumberFormat:
    """How many bytes the constants of a network take in its file.

    Attributes:
        weight: of one weight.
        channel: of what belongs to one output channel of a weight, such as the scale of its weights.
        bias: of one channel's bias, with its scale.
        other: of one value of norms over tokens and of positions.
    """

    weight: int = 4
    channel: int = 0
    bias: int = 4
    other: int = 4


FLOAT32 = NumberFormat()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost that follows from a network alone.

    Attributes:
        name: in JSON and as a column; it ends in its unit, or is a count.
        words: its name for people, such as ``peak activations``.
        unit: a count, or bytes.
        option: its name as an option and as a trade, without dashes.
        help: what the option limits, such as ``this peak of activations``.
        example: a value as it is typed.
        combine: how the values of blocks make that of a network.
        of: the cost of a lowered network, or of one of its blocks, in float32; a whole number.
        in_format: the same of its file in another number format; None where all formats cost the same.
    """

    name: str
    words: str
    unit: Literal["count", "bytes"]
    option: str
    help: str
    example: str
    combine: Literal["sum", "max"]
    of: Callable[[Iterable[PlacedBlock]], int]
    in_format: Callable[[Iterable[PlacedBlock], NumberFormat], int] | None = None

    def in_file(self, lowered: Iterable[PlacedBlock], stored: NumberFormat) -> int:
        """The cost of a lowered network, or of one of its blocks, whose file has a number format."""
        return self.of(lowered) if self.in_format is None else self.in_format(lowered, stored)


def _counted(name: str) -> Callable[[Iterable[PlacedBlock]], int]:
    """A function of ``ofa.cost``, which needs torch and is imported when something is counted."""

    def of(lowered: Iterable[PlacedBlock]) -> int:
        from ofa import cost

        return int(getattr(cost, name)(lowered))

    return of


def _weight_bytes(lowered: Iterable[PlacedBlock], stored: NumberFormat) -> int:
    from ofa.cost import weight_bytes

    return weight_bytes(
        lowered,
        bytes_per_weight=stored.weight,
        bytes_per_channel=stored.channel,
        bytes_per_bias=stored.bias,
        bytes_per_other=stored.other,
    )


_OWN = (
    Cost(
        name="macs",
        words="MACs",
        unit="count",
        option="macs",
        help="these multiply-accumulates",
        example="300M",
        combine="sum",
        of=_counted("macs"),
    ),
    Cost(
        name="params",
        words="parameters",
        unit="count",
        option="params",
        help="these parameters",
        example="5M",
        combine="sum",
        of=_counted("params"),
    ),
    Cost(
        name="weight_bytes",
        words="weights",
        unit="bytes",
        option="weights",
        help="these bytes of weights",
        example="10MB",
        combine="sum",
        of=_counted("weight_bytes"),
        in_format=_weight_bytes,
    ),
    Cost(
        name="peak_activation_bytes",
        words="peak activations",
        unit="bytes",
        option="memory",
        help="this peak of activations",
        example="2MiB",
        combine="max",
        of=_counted("peak_activation_bytes"),
    ),
)

COSTS = Registry(
    "cost",
    group="ofa.costs",
    error=SearchError,
    valid=lambda entry: isinstance(entry, Cost),
    must_be="an ofa.costs.Cost",
    entries={cost.name: cost for cost in _OWN},
)
"""By name. One of one's own is registered (``COSTS.register(name, cost)``), or an entry point of the group ``ofa.costs`` of its package:
budgets, fronts, reports and the command line follow."""


def costs(lowered: Iterable[PlacedBlock]) -> dict[str, int]:
    """All costs of a network by name."""
    blocks = tuple(lowered)
    return {name: COSTS.get(name).of(blocks) for name in COSTS.names()}
