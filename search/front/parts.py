"""The networks of a front in one precision, as a front of what measures them; and that part put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ofa.errors import SearchError
from search.budget import Budget, at_device
from search.front.front import PRECISION, Front

__all__ = ["budget_of_part", "measuring_devices", "part_measured_by", "rejoined"]


def measuring_devices(front: Front) -> dict[str, str | None]:
    """What can measure networks of a front, with the precision that it does so in; None where the front has not several."""
    if not front.info.precisions:
        return dict.fromkeys(front.device_names)
    return {name: precision for by_precision in front.info.precisions.values() for precision, name in by_precision.items()}


def part_measured_by(front: Front, device: str) -> Front:
    """The networks of a front that a device measures, under the names of what measures in their precision.

    Where precision is no gene that is the front itself. The part knows nothing of other networks that were evaluated.

    Args:
        front: the front.
        device: name of a device that measures some of its networks.

    Raises:
        SearchError: none of them is measured by it.
    """
    if not front.info.precisions:
        return front
    known = measuring_devices(front)
    precision = known.get(device)
    if precision is None:
        raise SearchError(
            f"a front can be verified on a device whose latencies it knows, but it knows {', '.join(known)} and not {device}; name one of "
            f"them, or search with a table of {device}"
        )
    rows = front.networks[PRECISION] == precision
    if not rows.any():
        raise SearchError(
            f"networks that are timed must be on the front, but it has none in {precision}, which {device} takes; name another device: "
            f"{', '.join(name for name in known if name != device)}"
        )
    names = _names(front, precision)
    info = replace(
        front.info,
        devices=tuple(names.values()),
        precisions={},
        objectives=tuple(_renamed(column, names) for column in front.info.objectives),
        least={},
    )
    networks = front.networks[rows].rename(columns=lambda column: _renamed(column, names))
    return Front(networks, front.dominated.iloc[:0], info)


def budget_of_part(budget: Budget, front: Front, device: str) -> Budget:
    """A budget of the front as one of the part that a device measures."""
    precision = measuring_devices(front).get(device)
    names = {} if precision is None else _names(front, precision)
    return Budget({_renamed(name, names): bound for name, bound in budget.bounds.items()}, expected_latency=budget.expected_latency)


def rejoined(front: Front, part: Front) -> Front:
    """A front with what has become of one of its parts: latencies of the networks, tables, and what was measured.

    What else was evaluated, and the least latency of the space, are of all precisions and stay as they were.
    """
    if not front.info.precisions:
        return part
    precision = part.precisions[0]
    names = {measured: device for device, measured in _names(front, precision).items()}
    networks = front.networks.copy()
    rows = networks.index[networks[PRECISION] == precision]
    known = part.networks.set_index("arch").loc[networks.loc[rows, "arch"]]
    for column in known:
        if "@" in str(column):
            networks.loc[rows, _renamed(str(column), names)] = known[column].to_numpy()
    info = replace(front.info, latency={**front.info.latency, **part.info.latency}, verified=part.info.verified)
    return Front(networks, front.dominated, info)


def _names(front: Front, precision: str) -> dict[str, str]:
    """By device of the front the name of what measures it in a precision."""
    return {device: front.info.measured_by(device, precision) for device in front.device_names}


def _renamed(column: str, names: Mapping[str, str]) -> str:
    name, _, device = column.partition("@")
    return at_device(name, names.get(device, device)) if device else column
