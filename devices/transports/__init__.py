"""How a device is reached: a transport starts the agent there and brings files to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devices.transports.connection import Connection, ConnectionLostError
from devices.transports.local import LocalTransport
from devices.transports.ssh import SshTransport
from ofa.errors import DeviceError, nearest

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["Connection", "ConnectionLostError", "Transport", "get_transport", "transport_names"]


class Transport(Protocol):
    """The way to one machine."""

    def start(self) -> Connection:
        """Start the agent there.

        Raises:
            DeviceError: the machine cannot be reached.
        """
        ...

    def bring(self, agent: Connection, paths: Mapping[str, Path]) -> dict[str, str]:
        """Make files readable for the agent; returns their paths there, by the same names.

        Raises:
            DeviceError: the machine cannot take them.
        """
        ...


_TRANSPORTS: Mapping[str, Callable[[Device], Transport]] = {"local": LocalTransport, "ssh": SshTransport}


def transport_names() -> tuple[str, ...]:
    """Names of all transports."""
    return tuple(sorted(_TRANSPORTS))


def get_transport(device: Device) -> Transport:
    """The transport of a device.

    Raises:
        DeviceError: there is none of this name; the message names the nearest.
    """
    if device.transport not in _TRANSPORTS:
        raise DeviceError(f"there is no transport '{device.transport}'; {nearest(device.transport, _TRANSPORTS)}")
    return _TRANSPORTS[device.transport](device)
