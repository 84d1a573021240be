"""A device as data: one TOML file says what executes there, with which settings, and how it is reached."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.runtimes import Option, get_runtime, runtime_names
from devices.transports import transport_names
from ofa.errors import DeviceError, nearest
from ofa.opsets import NEWEST_OPSET, OLDEST_OPSET, OPSET

__all__ = ["CATALOG", "Device", "Ssh", "device_names", "get_device", "load_device"]

CATALOG = Path(__file__).parent / "catalog"
"""The folder of the devices that come with the project, one TOML file each."""

_CLOCKS = ("fixed", "governed", "shared", "unknown")
_STATUSES = ("measured", "template")
_TEXTS = ("name", "runtime", "description", "precision", "transport", "clocks", "status")
_TYPES: dict[str, type] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(("threads", "batch", "opset"), int),
    "pause_ms": float,
    "pin": bool,
}
_SSH_TYPES: dict[str, type] = {**dict.fromkeys(("host", "user", "identity", "config", "python", "folder"), str), "port": int}
_LAST_PORT = 65535
_LONGEST_PAUSE_MS = 60_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Ssh:
    """How a machine is reached over ssh. The host's key must be known already, and no password is asked for: keys or an agent.

    Args:
        host: name or address, or a name in the user's ssh configuration.
        port: 0 for the configuration's.
        user: "" for the configuration's.
        identity: path of the private key; "" for the configuration's.
        config: path of an ssh configuration; "" for the user's own.
        python: the interpreter there, 3.10 or newer, with numpy and the runtime.
        folder: where the agent and the networks are kept there, from the user's home.

    Raises:
        DeviceError: a value that cannot be.
    """

    host: str
    port: int = 0
    user: str = ""
    identity: str = ""
    config: str = ""
    python: str = "python3"
    folder: str = ".cache/ofa"

    def __post_init__(self) -> None:
        _check_types(self, _SSH_TYPES, f"[ssh] of device at '{self.host}'")
        for key in ("host", "user"):
            # What begins with a dash would be read as an option by ssh.
            if getattr(self, key).startswith("-") or (key == "host" and not self.host.strip()):
                raise DeviceError(f"'{key}' under [ssh] must be a name or address, but is '{getattr(self, key)}'; correct it")
        if not 0 <= self.port <= _LAST_PORT:
            raise DeviceError(f"'port' under [ssh] must be within 0 and {_LAST_PORT}, but is {self.port}; correct it")


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is measured, and under which settings: a deployed network keeps a table's promise only under the same ones.

    Args:
        name: letters, digits, ``.``, ``_`` and ``-``; the name of the file in a catalog.
        runtime: what executes there, one of ``devices.runtimes.runtime_names()``.
        description: one sentence for people.
        threads: threads that compute one call.
        precision: number format of weights and activations, one of the runtime's (``fp32``, ``fp16``).
        batch: images in one call.
        pause_ms: milliseconds without work before each call that is timed, as an application has them between images; 0 for calls in a
            row. After a pause caches are cold, clocks are low and threads asleep: a call takes longer, often by half.
        opset: version of ONNX's operators in the files that are written for it; the default is the oldest that has all of them.
        pin: keep the process on as many processors as there are threads, as a deployed network must be then.
        clocks: what may be assumed of them: ``fixed`` (locked by the owner), ``governed`` (they follow load and heat), ``shared`` (other
            programs or machines are on the same processor), ``unknown``. Written beside every number, and believed by nothing.
        transport: how the device is reached (``local``: a subprocess on this machine; ``ssh``).
        ssh: the address, for ``ssh`` only.
        status: ``measured`` if somebody has timed networks with this very file, otherwise ``template``.
        options: settings that only this runtime knows, as ``(name, value)`` pairs; those not given have the runtime's default.

    Raises:
        DeviceError: a value that cannot be; the message names the nearest that can.
    """

    name: str
    runtime: str
    description: str = ""
    threads: int = 1
    precision: str = "fp32"
    batch: int = 1
    pause_ms: float = 0.0
    opset: int = OPSET
    pin: bool = False
    clocks: str = "unknown"
    transport: str = "local"
    ssh: Ssh | None = None
    status: str = "template"
    options: tuple[tuple[str, Option], ...] = ()

    def __post_init__(self) -> None:
        if type(self.pause_ms) is int:  # TOML tells 20 from 20.0, people do not
            object.__setattr__(self, "pause_ms", float(self.pause_ms))
        _check_types(self, _TYPES, f"device '{self.name}'")
        if not _NAME.fullmatch(self.name):
            raise DeviceError(f"a device's name must be letters, digits, '.', '_' and '-', but got '{self.name}'; rename it")
        _check_choice(self, "precision", get_runtime(self.runtime).precisions)
        _check_choice(self, "status", _STATUSES)
        _check_choice(self, "clocks", _CLOCKS)
        _check_choice(self, "transport", transport_names())
        if (self.ssh is not None) != (self.transport == "ssh"):
            raise DeviceError(
                f"a device must have a table [ssh] if and only if its transport is ssh, but '{self.name}' has transport "
                f"'{self.transport}' and {'a' if self.ssh else 'no'} [ssh]; correct one of them"
            )
        for key in ("threads", "batch"):
            if getattr(self, key) < 1:
                raise DeviceError(f"'{key}' of device '{self.name}' must be at least 1, but is {getattr(self, key)}; correct it")
        _check_range(self, "pause_ms", 0, _LONGEST_PAUSE_MS)
        _check_range(self, "opset", OLDEST_OPSET, NEWEST_OPSET)
        object.__setattr__(self, "options", _complete_options(self))

    def option(self, name: str) -> Option:
        """The value of one of the runtime's settings, its default where the device does not give it."""
        return dict(self.options)[name]

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values; ``from_json`` reads them back."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], *, source: str = "") -> Device:
        """The device of these fields.

        Args:
            fields: as ``to_json`` writes them, or a parsed TOML file.
            source: where they came from, for messages.

        Raises:
            DeviceError: unknown or missing keys, or values that cannot be.
        """
        where = source or f"device '{fields.get('name', '?')}'"
        known = [field.name for field in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise DeviceError(f"{where} must hold only keys of a device, but has '{key}'; {nearest(key, known)}")
        for key in ("name", "runtime"):
            if key not in fields:
                raise DeviceError(f"{where} must name its {key}, but has no key '{key}'; add a line such as: {key} = \"...\"")
        if fields["runtime"] not in runtime_names():
            raise DeviceError(
                f"{where} must name a known runtime, but has '{fields['runtime']}'; {nearest(str(fields['runtime']), runtime_names())}"
            )
        options = fields.get("options", {})
        if not isinstance(options, Mapping):
            raise DeviceError(f"'options' of {where} must be a table of settings, but is {options!r}; write them under [options]")
        ssh = fields.get("ssh")
        if ssh is not None:
            ssh = _ssh_from_json(ssh, where)
        return cls(**{**fields, "ssh": ssh, "options": tuple(options.items())})


def load_device(path: str | os.PathLike[str]) -> Device:
    """Read a device's TOML file.

    Raises:
        DeviceError: the file is absent, is not TOML, or does not describe a device.
    """
    import tomllib  # on the device, where Python may be older, no file is read

    try:
        with Path(path).open("rb") as file:
            fields = tomllib.load(file)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DeviceError(f"a device file must be readable, but '{path}' is not: {reason}; check the path") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise DeviceError(f"a device file must be TOML, but '{path}' is not: {error}; correct that line") from error
    return Device.from_json(fields, source=f"'{path}'")


def device_names(folders: Iterable[str | os.PathLike[str]] = ()) -> tuple[str, ...]:
    """Names of all devices in the users' ``folders`` and in the catalog, sorted."""
    return tuple(sorted(_device_files(folders)))


def get_device(name_or_path: str | os.PathLike[str], folders: Iterable[str | os.PathLike[str]] = ()) -> Device:
    """A device by name or by the path of its TOML file.

    Args:
        name_or_path: a name from ``device_names(folders)``, or a path that ends in ``.toml``.
        folders: users' own folders of TOML files; they come before the catalog.

    Raises:
        DeviceError: no such device (the message names the nearest), or its file is wrong.
    """
    wanted = os.fspath(name_or_path)
    if wanted.endswith(".toml"):
        return load_device(wanted)
    files = _device_files(folders)
    if wanted not in files:
        raise DeviceError(f"there is no device '{wanted}'; {nearest(wanted, files)}; or give the path of a .toml file")
    device = load_device(files[wanted])
    if device.name != wanted:
        raise DeviceError(f"a device's name must be that of its file, but '{files[wanted]}' holds '{device.name}'; rename one of them")
    return device


def _device_files(folders: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    files: dict[str, Path] = {path.stem: path for path in CATALOG.glob("*.toml")}
    for folder in reversed([Path(folder) for folder in folders]):  # the first folder wins
        if not folder.is_dir():
            raise DeviceError(f"a folder of devices must exist, but '{folder}' is none; create it or correct the path")
        files.update({path.stem: path for path in folder.glob("*.toml")})
    return files


def _ssh_from_json(fields: Any, where: str) -> Ssh:
    if not isinstance(fields, Mapping):
        raise DeviceError(f"'ssh' of {where} must be a table, but is {fields!r}; write its keys under [ssh]")
    for key in fields:
        if key not in _SSH_TYPES:
            raise DeviceError(f"[ssh] of {where} must hold only its keys, but has '{key}'; {nearest(key, _SSH_TYPES)}")
    if "host" not in fields:
        raise DeviceError(f"[ssh] of {where} must name a host, but has no key 'host'; add a line such as: host = \"...\"")
    return Ssh(**fields)


def _check_types(value: Device | Ssh, types: Mapping[str, type], where: str) -> None:
    for key, kind in types.items():
        given = getattr(value, key)
        if type(given) is not kind:  # a bool is an int to isinstance
            raise DeviceError(f"'{key}' of {where} must be {_called(kind)}, but is {given!r}; correct it")


def _check_choice(device: Device, key: str, choices: Iterable[str]) -> None:
    value = getattr(device, key)
    if value not in choices:
        raise DeviceError(f"'{key}' of device '{device.name}' must be a known one, but is '{value}'; {nearest(value, choices)}")


def _check_range(device: Device, key: str, least: int, most: int) -> None:
    value = getattr(device, key)
    if not least <= value <= most:  # also true for NaN
        raise DeviceError(f"'{key}' of device '{device.name}' must be within {least} and {most}, but is {value:g}; correct it")


def _complete_options(device: Device) -> tuple[tuple[str, Option], ...]:
    """The device's options over the runtime's defaults, sorted, so that equal settings are equal values."""
    defaults = get_runtime(device.runtime).options
    for key, value in device.options:
        if key not in defaults:
            hint = nearest(key, defaults) if defaults else "it has none"
            raise DeviceError(f"runtime '{device.runtime}' has no option '{key}' (device '{device.name}'); {hint}")
        if type(value) is not type(defaults[key]):
            kind = _called(type(defaults[key]))
            raise DeviceError(f"option '{key}' of device '{device.name}' must be {kind}, but is {value!r}; correct it")
    return tuple(sorted({**defaults, **dict(device.options)}.items()))


def _called(kind: type) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number with a decimal point", str: "a text"}[kind]
