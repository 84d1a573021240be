"""What a front promises of a network, as a card tells it."""

from __future__ import annotations

from typing import Any

from ofa.arch import Arch
from ofa.errors import SearchError
from ofa.opsets import OPSET
from search.front.candidate import Candidate
from search.front.front import Front

__all__ = ["promise_of"]


def promise_of(network: Arch | Candidate, front: Front | None, device: str | None) -> tuple[dict[str, Any], int]:
    """The fields of a card that say what a front promised, and the opset of the files that were timed there."""
    if not isinstance(network, Candidate) or front is None:
        return {}, OPSET
    named = device or next(iter(front.device_names), None)
    if named is None:
        return {}, OPSET
    # A device in another precision may be named as what measures it there.
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
