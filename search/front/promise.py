"""The promise of a front for a network, as fields of a bundle's card."""

from __future__ import annotations

from typing import Any

from ofa.arch import Arch
from ofa.errors import SearchError
from ofa.opsets import OPSET
from search.front.candidate import Candidate
from search.front.front import Front

__all__ = ["promise_of"]


def promise_of(network: Arch | Candidate, front: Front | None, device: str | None) -> tuple[dict[str, Any], int]:
    """Fields of a card with the latency that a front promises for a network, and the opset of the files that its table timed.

    Args:
        network: the network; there is a promise for a ``Candidate`` only.
        front: the front; None without one.
        device: name of the device; None for the front's first.

    Raises:
        SearchError: the front does not know the device.
    """
    if not isinstance(network, Candidate) or front is None:
        return {}, OPSET
    named = device or next(iter(front.device_names), None)
    if named is None:
        return {}, OPSET
    # The user may name the measuring device of the network's precision.
    named = next((name for name in front.device_names if named == front.info.measured_by(name, network.precision)), named)
    if named not in network.latencies:
        raise SearchError(
            f"a promise must be of a device of the front, but '{named}' is none of {', '.join(front.device_names) or 'its devices'}; "
            "name one of them"
        )
    measured = front.info.measured_by(named, network.precision)
    conditions = front.conditions.get(measured)
    settings = front.info.latency[measured].device if measured in front.info.latency else {}
    fields = {"device": measured, "conditions": None if conditions is None else conditions.to_json(), **network.latencies[named].to_json()}
    return fields, settings.get("opset", OPSET)
