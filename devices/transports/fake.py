"""A machine that is not there, for tests: the agent answers within this process, and does what the test asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from devices.agent import answer
from devices.groups import Outcome
from devices.timing import Timing
from devices.transports import Address, Agent, ConnectionLostError

__all__ = ["Fake"]

_REPEATS = 20
_DRIFT = 1.2


@dataclass(frozen=True, kw_only=True)
class Fake(Address):
    """An address of no machine. No process is started, so that tests of what measures are quick, and a debugger reaches all of it.

    With the runtime ``fake`` all times follow from the files. What is given here happens besides::

        device = Device(name="bench", runtime="fake", address=Fake(costs_ms={"a": 1.0, "b": 2.0}, slowdowns=(1.0, 1.3)))
        time_models(device, {"a": "no file", "b": "no file"}, rng=np.random.default_rng(0))

    Args:
        costs_ms: time of a call by the network's name; such a network needs no file. The runtime times the others.
        slowdowns: factors of the times of the first groups, one after another; later groups have 1.
        drifting: name of a network whose time rises by a fifth during the first group that it is in.
        dying: name of a network at which the agent dies, every time.
        in_rounds: whether it dies while all are timed, so that nothing tells which network it was, instead of while it loads that one.

    Attributes:
        groups: the networks' names of every group that was to be timed.
    """

    kind: ClassVar[str] = "fake"
    costs_ms: Mapping[str, float] = field(default_factory=dict)
    slowdowns: tuple[float, ...] = ()
    drifting: str = ""
    dying: str = ""
    in_rounds: bool = False
    groups: list[list[str]] = field(default_factory=list, init=False, repr=False, compare=False)

    def start(self) -> Agent:
        """An agent in this process."""
        return _FakeAgent(self)

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Files are where they are."""
        del agent
        return {key: str(path.resolve()) for key, path in paths.items()}


class _FakeAgent:
    def __init__(self, address: Fake) -> None:
        self._address = address

    def request(self, message: Mapping[str, Any], *, on_note: Callable[[dict[str, Any]], None], silence_limit_s: float) -> Any:
        def say(note: Mapping[str, Any]) -> None:
            on_note(dict(note))

        return self._time(message, say) if message["op"] == "time" else answer(message, say)

    def close(self) -> None:
        """Nothing runs."""

    def _time(self, message: Mapping[str, Any], say: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
        networks, address = message["networks"], self._address
        address.groups.append(list(networks))
        if address.dying in networks:
            note = {"doing": "timing" if address.in_rounds else f"loading {address.dying}", "step": 0, "steps": 1}
            raise ConnectionLostError("it died", note if address.in_rounds else {**note, "network": address.dying})
        unknown = {key: path for key, path in networks.items() if key not in address.costs_ms}
        results: dict[str, Any] = answer({**message, "networks": unknown}, say) if unknown else {}
        results |= {key: dataclasses.asdict(self._outcome(key)) for key in networks if key not in unknown}
        return {key: self._slowed(results[key]) for key in networks}

    def _outcome(self, key: str) -> Outcome:
        cost = self._address.costs_ms[key]
        return Outcome(timing=Timing(median_ms=cost, p90_ms=cost, min_ms=cost, std_ms=0.0, repeats=_REPEATS), drift=self._drift(key))

    def _drift(self, key: str) -> float:
        return _DRIFT if key == self._address.drifting and sum(key in group for group in self._address.groups) == 1 else 1.0

    def _slowed(self, outcome: dict[str, Any]) -> dict[str, Any]:
        number = len(self._address.groups) - 1
        slowdowns = self._address.slowdowns
        if outcome["timing"] is None or number >= len(slowdowns):
            return outcome
        return {**outcome, "timing": dataclasses.asdict(Timing(**outcome["timing"]).at_speed(1 / slowdowns[number]))}
