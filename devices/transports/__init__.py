"""How a device is reached: an address starts the agent there and brings files to it.

A transport of one's own is an ``Address`` that is entered in ``TRANSPORTS``, by ``TRANSPORTS.register`` or by the entry point
``ofa.transports`` of its package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

from devices.checks import check_fields, check_keys, check_range, read_table
from devices.transports.connection import Connection, ConnectionLostError, LineLostError
from ofa.errors import DeviceError, nearest
from ofa.registry import Registry

__all__ = [
    "TRANSPORTS",
    "Address",
    "Agent",
    "Connection",
    "ConnectionLostError",
    "LineLostError",
    "address_from_json",
    "typed",
]

_MOST_RETRIES, _LONGEST_BACKOFF_S = 1000, 3600
_TYPED = "typed"


class Agent(Protocol):
    """A program that answers requests for one device; ``devices.agent`` says which there are. ``Connection`` is one in a process."""

    def request(self, message: Mapping[str, Any], *, on_note: Callable[[dict[str, Any]], None], silence_limit_s: float) -> Any:
        """Send one request and wait for its result.

        Args:
            message: the request, JSON values.
            on_note: called with every note that the agent sends while it works.
            silence_limit_s: longest time in seconds between two notes.

        Raises:
            DeviceError: the agent reports an error.
            ConnectionLostError: it is gone, or silent for too long.
            LineLostError: the way to it broke.
        """
        ...

    def close(self) -> None:
        """End it, whatever it is doing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Address(ABC):
    """Where a machine is and how it is reached: a frozen dataclass, whose fields stand under ``[transport]`` in device files.

    What only a user may say is a ``typed`` field, which files neither hold nor may hold.

    Args:
        retries: how often in a row a lost connection is made again, and an answer that cannot be is asked for again. What is measured in
            between starts the count anew.
        backoff_s: seconds before the first of these, twice as long before each of the next, a minute at most.

    Attributes:
        kind: name of the transport, the same that it is registered under.

    Raises:
        DeviceError: a field of another type than it is declared with, or out of range.
    """

    kind: ClassVar[str]
    retries: int = 5
    backoff_s: float = 2.0

    def __post_init__(self) -> None:
        where = f"[transport] of kind '{self.kind}'"
        check_fields(self, where)
        check_range(self, "retries", where, 0, _MOST_RETRIES)
        check_range(self, "backoff_s", where, 0, _LONGEST_BACKOFF_S)

    @abstractmethod
    def start(self) -> Agent:
        """Start the agent there.

        Raises:
            DeviceError: the machine cannot be reached.
            LineLostError: not now, as far as can be told.
        """

    @abstractmethod
    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Make files readable for the agent; returns their paths there, by the same names.

        Raises:
            DeviceError: the machine cannot take them.
        """

    def to_json(self) -> dict[str, Any]:
        """Its kind and all fields, as JSON values; ``address_from_json`` reads them back."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.init and _TYPED not in each.metadata}
        return {"kind": self.kind, **{key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}}


def typed(option: str) -> Any:
    """A field of an address, a text that is empty by default, that a user types by an option and no device file may say."""
    return field(default="", compare=False, metadata={_TYPED: option})


TRANSPORTS: Registry[type[Address]] = Registry(
    "transport",
    group="ofa.transports",
    error=DeviceError,
    lazy={
        "fake": "devices.transports.fake:Fake",
        "local": "devices.transports.local:Local",
        "ssh": "devices.transports.ssh:Ssh",
    },
    valid=lambda entry: isinstance(entry, type) and issubclass(entry, Address),
    must_be="a class derived from Address",
)
"""The addresses' classes."""


def address_from_json(value: Any, where: str) -> Address:
    """The address of what stands under ``[transport]``.

    Args:
        value: a table with the transport's name as ``kind`` and the fields of its address, or the name alone.
        where: words for what holds it, for messages.

    Raises:
        DeviceError: an unknown transport, unknown or missing keys, or values that cannot be.
    """
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise DeviceError(f"'transport' of {where} must be a name or a table, but is {value!r}; write its keys under [transport]")
    check_keys(table, table, ("kind",), f"[transport] of {where}")
    kind = table["kind"]
    if kind not in TRANSPORTS:
        raise DeviceError(f"'transport' of {where} must be a known one, but is '{kind}'; {nearest(str(kind), TRANSPORTS)}")
    rest, found = {key: each for key, each in table.items() if key != "kind"}, TRANSPORTS.get(kind)
    for each in fields(found):
        if _TYPED in each.metadata and each.name in rest:
            raise DeviceError(
                f"'{each.name}' under [transport] must be typed and is taken from no file, but {where} says {rest[each.name]!r}; remove "
                f"the line, and type {each.metadata[_TYPED]} where you trust it"
            )
    return read_table(found, rest, f"[transport] of {where}")
