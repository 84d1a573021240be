"""A fake machine for tests: the agent answers within this process, and simulates drift and failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from devices.agent import answer
from devices.groups import Outcome
from devices.outputs import Outputs
from devices.timing import Timing
from devices.transports import Address, Agent, ConnectionLostError

__all__ = ["Fake"]

_REPEATS = 20
_DRIFT = 1.2


@dataclass(frozen=True, kw_only=True)
class Fake(Address):
    """An address of a simulated machine. It starts no process, so tests of measurements are quick and easy to debug.

    With the runtime ``fake`` all times follow from the files. The arguments add to that::

        device = Device(name="bench", runtime="fake", address=Fake(costs_ms={"a": 1.0, "b": 2.0}, slowdowns=(1.0, 1.3)))
        time_models(device, {"a": "no file", "b": "no file"}, rng=np.random.default_rng(0))

    Args:
        costs_ms: time of a call in ms by name of the network; such a network needs no file. The runtime times the others.
        slowdowns: factors on the times of the first groups, in order; later groups have 1.
        drifting: name of a network whose time rises by a fifth during its first group.
        dying: name of a network at which the agent always dies.
        in_rounds: whether it dies during the rounds, where the failing network is unknown, instead of while loading that network.

    Attributes:
        groups: names of the networks in each requested group.
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
        self._address, self._outputs = address, Outputs()

    def request(self, message: Mapping[str, Any], *, on_note: Callable[[dict[str, Any]], None], silence_limit_s: float) -> Any:
        def say(note: Mapping[str, Any]) -> None:
            on_note(dict(note))

        return self._time(message, say) if message["op"] == "time" else answer(message, say, outputs=self._outputs)

    def close(self) -> None:
        """Nothing runs."""

    def _time(self, message: Mapping[str, Any], say: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
        networks, address = message["networks"], self._address
        address.groups.append(list(networks))
        if address.dying in networks:
            note = {"doing": "timing" if address.in_rounds else f"loading {address.dying}", "step": 0, "steps": 1}
            raise ConnectionLostError("it died", note if address.in_rounds else {**note, "network": address.dying})
        timed = {key: path for key, path in networks.items() if key not in address.costs_ms}
        outcomes: dict[str, Any] = answer({**message, "networks": timed}, say)
        repeats = min(_REPEATS, message["policy"]["max_rounds"])
        return {key: self._as_told(key, outcomes.get(key), repeats) for key in networks}

    def _as_told(self, key: str, measured: Mapping[str, Any] | None, repeats: int) -> dict[str, Any]:
        """The outcome of one network, from its cost if it was not measured, with the simulated slowdown and drift."""
        address, number = self._address, len(self._address.groups) - 1
        if measured is None:
            cost = address.costs_ms[key]
            outcome = Outcome(timing=Timing(median_ms=cost, p90_ms=cost, min_ms=cost, std_ms=0.0, repeats=repeats))
        else:
            outcome = Outcome(**{**measured, "timing": None if measured["timing"] is None else Timing(**measured["timing"])})
        if outcome.timing is not None and number < len(address.slowdowns):
            outcome = replace(outcome, timing=outcome.timing.at_speed(1 / address.slowdowns[number]))
        if key == address.drifting and sum(key in group for group in address.groups) == 1:
            outcome = replace(outcome, drift=_DRIFT)
        return asdict(outcome)
