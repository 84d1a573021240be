"""Registry of device-independent costs of a network; importing it needs neither torch nor NumPy."""

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
    """Bytes that the constants of a network take in its file.

    Attributes:
        weight: of one weight.
        channel: of further values per output channel of a weight, such as the quantization scale.
        bias: of the bias of one channel, including its scale.
        other: of one value of layer norms and of position embeddings.
    """

    weight: int = 4
    channel: int = 0
    bias: int = 4
    other: int = 4


FLOAT32 = NumberFormat()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost that depends on the network only, not on a device.

    Attributes:
        name: the key in JSON and the column name; it ends in the unit, or is a count.
        words: the name in messages, such as ``peak activations``.
        unit: a count, or bytes.
        option: the name as an option of the command line and as an objective (``--trade``), without dashes.
        help: the end of the option's help text, such as ``this peak of activations``.
        example: a value as a user types it.
        combine: how the costs of blocks combine to the cost of a network.
        of: function from a lowered network, or one of its blocks, to its cost in float32, an integer.
        in_format: the same function for a file in another number format; None if the cost is the same in all formats.
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
        """The cost of a lowered network, or of one of its blocks, in the number format of a file.

        Args:
            lowered: the placed blocks.
            stored: number format of the file.
        """
        return self.of(lowered) if self.in_format is None else self.in_format(lowered, stored)


def _counted(name: str) -> Callable[[Iterable[PlacedBlock]], int]:
    """The function ``name`` of ``ofa.cost``, imported on the first call because it needs torch."""

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
"""Costs by name. Register your own with ``COSTS.register(name, cost)``, or by an entry point of the group ``ofa.costs``: budgets, fronts,
reports and the command line pick it up."""


def costs(lowered: Iterable[PlacedBlock]) -> dict[str, int]:
    """All registered costs of a lowered network, by name."""
    blocks = tuple(lowered)
    return {name: COSTS.get(name).of(blocks) for name in COSTS.names()}
