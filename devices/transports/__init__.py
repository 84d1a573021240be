"""Transports to devices: an address starts the agent on a machine and sends files to it.

A user's own transport is an ``Address`` class registered in ``TRANSPORTS``, by ``TRANSPORTS.register`` or by the entry point
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
    """A program that answers requests for one device (see ``devices.agent``), such as ``Connection``, which runs it in a process."""

    def request(self, message: Mapping[str, Any], *, on_note: Callable[[dict[str, Any]], None], silence_limit_s: float) -> Any:
        """Send one request and wait for its result.

        Args:
            message: the request, as JSON values.
            on_note: called with every note that the agent sends during the request.
            silence_limit_s: timeout in seconds between two notes.

        Raises:
            DeviceError: the agent reports an error.
            ConnectionLostError: the agent died, or was silent for too long.
            LineLostError: the connection to the machine broke.
        """
        ...

    def close(self) -> None:
        """End the agent at once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Address(ABC):
    """Address of a machine: a frozen dataclass, whose fields are under ``[transport]`` in device files.

    A ``typed`` field may be set by the user only; device files must not contain it.

    Args:
        retries: number of retries in a row after a lost connection or an invalid answer. A successful measurement resets the count.
        backoff_s: seconds before the first retry, doubled before each further one, up to a minute.

    Attributes:
        kind: name of the transport, as registered.

    Raises:
        DeviceError: a field has another type than declared, or is out of range.
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
        """Start the agent on the machine.

        Raises:
            DeviceError: the machine cannot be reached, and retries are useless.
            LineLostError: the machine cannot be reached at present.
        """

    @abstractmethod
    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Make files readable for the agent.

        Args:
            agent: a running agent on the machine.
            paths: files on this machine, by any names.

        Returns:
            Their paths on the machine, by the same names.

        Raises:
            DeviceError: the machine cannot store the files.
        """

    def to_json(self) -> dict[str, Any]:
        """Its kind and its fields, as JSON values; ``address_from_json`` reads them back."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.init and _TYPED not in each.metadata}
        return {"kind": self.kind, **{key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}}


def typed(option: str) -> Any:
    """A string field of an address, empty by default, that only the user may set, by the given option, and no device file."""
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
    """The address in a table ``[transport]``.

    Args:
        value: a table with the transport's name as ``kind`` and the fields of its address, or the name alone.
        where: words for the device file, for messages.

    Raises:
        DeviceError: an unknown transport, unknown or missing keys, or invalid values.
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
                f"'{each.name}' under [transport] must be typed by the user, not read from a file, but {where} has {rest[each.name]!r}; "
                f"remove the line, and type {each.metadata[_TYPED]} if you trust it"
            )
    return read_table(found, rest, f"[transport] of {where}")
