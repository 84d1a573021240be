"""How a device is reached: a transport starts the agent there and brings files to it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from devices.transports.connection import Connection
from devices.transports.local import LocalTransport
from ofa.errors import DeviceError, nearest

__all__ = ["Connection", "Transport", "get_transport", "transport_names"]


class Transport(Protocol):
    """The way to one machine."""

    def start(self) -> Connection:
        """Start the agent there.

        Raises:
            DeviceError: the machine cannot be reached.
        """
        ...

    def bring(self, path: Path) -> str:
        """Make a file readable for the agent; returns its path there."""
        ...


_TRANSPORTS = {"local": LocalTransport}


def transport_names() -> tuple[str, ...]:
    """Names of all transports."""
    return tuple(sorted(_TRANSPORTS))


def get_transport(name: str) -> Transport:
    """A transport by name.

    Raises:
        DeviceError: there is none of this name; the message names the nearest.
    """
    if name not in _TRANSPORTS:
        raise DeviceError(f"there is no transport '{name}'; {nearest(name, _TRANSPORTS)}")
    return _TRANSPORTS[name]()
