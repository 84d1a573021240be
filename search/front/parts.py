"""The part of a front in one precision, as a front of its measuring devices, and the merge of an updated part.

A front over precisions names each device once. In each precision the device is measured by a device file of its own: the measuring device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ofa.errors import SearchError
from search.budget import Budget, at_device
from search.front.front import PRECISION, Front

__all__ = ["budget_of_part", "measuring_devices", "part_measured_by", "rejoined"]


def measuring_devices(front: Front) -> dict[str, str | None]:
    """Names of all measuring devices of a front, with their precision; None if the front has only one precision."""
    if not front.info.precisions:
        return dict.fromkeys(front.device_names)
    return {name: precision for by_precision in front.info.precisions.values() for precision, name in by_precision.items()}


def part_measured_by(front: Front, device: str) -> Front:
    """The networks of a front in the precision of a measuring device, with columns named by that precision's measuring devices.

    If precision is no gene, it is the front itself. The part has no dominated networks.

    Args:
        front: the front.
        device: name of a measuring device.

    Raises:
        SearchError: the front does not know the device, or has no network in its precision.
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
    """A budget of the front, renamed for the part of a measuring device."""
    precision = measuring_devices(front).get(device)
    names = {} if precision is None else _names(front, precision)
    return Budget({_renamed(name, names): bound for name, bound in budget.bounds.items()}, expected_latency=budget.expected_latency)


def rejoined(front: Front, part: Front) -> Front:
    """A copy of a front with the latencies, tables and measurements of one of its parts.

    Dominated networks, and the space's smallest latency, are of all precisions and stay unchanged.
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
    """By device of the front, its measuring device in a precision."""
    return {device: front.info.measured_by(device, precision) for device in front.device_names}


def _renamed(column: str, names: Mapping[str, str]) -> str:
    name, _, device = column.partition("@")
    return at_device(name, names.get(device, device)) if device else column
