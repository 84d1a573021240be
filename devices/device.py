"""A device as data: a runtime's settings at a transport's address."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devices.checks import check_choice, check_keys
from devices.runtimes import Settings
from devices.transports import Address, address_from_json
from devices.transports.local import Local
from ofa.errors import DeviceError

__all__ = ["Device"]

_CLOCKS = ("fixed", "governed", "shared", "unknown")
_STATUSES = ("measured", "template")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BEFORE_ADDRESSES = "ssh"
"""The table of the address beside ``transport = "ssh"`` in files of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Device(Settings):
    """A device: the settings of a runtime (``Settings``, with all of its arguments), and the address of the machine.

    Args:
        name: letters, digits, ``.``, ``_`` and ``-``; also the name of its file in a catalog.
        address: transport and address of the machine; by default this machine, in a process of its own.
        description: one sentence for people.
        clocks: behaviour of the processor's clocks: ``fixed`` (locked by the owner), ``governed`` (they follow load and heat), ``shared``
            (other programs or virtual machines use the same processor), ``unknown``. It is recorded with every number, and used nowhere.
        status: ``measured`` if networks have been timed with this file, otherwise ``template``.

    Raises:
        DeviceError: an invalid value; the message names the nearest valid one.
    """

    name: str
    address: Address = field(default_factory=Local)
    description: str = ""
    clocks: str = "unknown"
    status: str = "template"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.fullmatch(self.name):
            raise DeviceError(f"a device's name must be letters, digits, '.', '_' and '-', but got '{self.name}'; rename it")
        check_choice(self, "status", _STATUSES, self.words)
        check_choice(self, "clocks", _CLOCKS, self.words)

    @property
    def words(self) -> str:
        """Words for it in messages."""
        return f"device '{self.name}'"

    @property
    def settings(self) -> Settings:
        """The settings without the address; only these are sent to the agent."""
        return Settings(**{each.name: getattr(self, each.name) for each in dataclasses.fields(Settings)})

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values; ``from_json`` reads them back."""
        about = {"name": self.name, "description": self.description, "clocks": self.clocks, "status": self.status}
        return {**about, **self.settings.to_json(), "transport": self.address.to_json()}

    @staticmethod
    def from_json(fields: Mapping[str, Any], *, source: str = "") -> Device:
        """A device from its fields.

        Args:
            fields: the result of ``to_json``, or a parsed TOML file.
            source: origin of the fields, for messages.

        Raises:
            DeviceError: unknown or missing keys, or invalid values.
        """
        where = source or f"device '{fields.get('name', '?')}'"
        given = _with_one_transport(fields, where)
        known = [each.name for each in dataclasses.fields(Device) if each.name != "address"]
        check_keys(given, [*known, "transport"], ("name", "runtime"), where)
        options = given.get("options", {})
        if not isinstance(options, Mapping):
            raise DeviceError(f"'options' of {where} must be a table of settings, but is {options!r}; write them under [options]")
        address = address_from_json(given.pop("transport", Local.kind), where)
        return Device(**{**given, "address": address, "options": tuple(options.items())})


def _with_one_transport(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Convert fields of earlier versions: the address moves under ``transport``."""
    given = dict(fields)
    address = given.pop(_BEFORE_ADDRESSES, None)
    if address is None:
        return given
    if given.get("transport") != _BEFORE_ADDRESSES or not isinstance(address, Mapping):
        raise DeviceError(
            f"'ssh' of {where} must be a table beside transport = \"ssh\", but is {address!r} beside {given.get('transport')!r}; write "
            'kind = "ssh" and its keys under [transport]'
        )
    return {**given, "transport": {"kind": _BEFORE_ADDRESSES, **address}}
