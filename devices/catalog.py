"""Devices by name: the project's catalog, and the user's own TOML files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from devices.device import Device
from devices.transports.ssh import Ssh
from ofa.errors import DeviceError, nearest

__all__ = ["CATALOG", "device_names", "get_device", "load_device"]

CATALOG = Path(__file__).parent / "catalog"
"""Folder of the project's devices, one TOML file each."""


def load_device(path: str | os.PathLike[str]) -> Device:
    """Read a device's TOML file.

    Raises:
        DeviceError: the file is absent, is not TOML, or does not describe a device.
    """
    from ofa.reading import read_toml  # imported here: the agent on a device lacks it, and reads no TOML

    fields = read_toml(path, what="device file", error=DeviceError)
    return Device.from_json(fields, source=f"'{path}'")


def device_names(folders: Iterable[str | os.PathLike[str]] = ()) -> tuple[str, ...]:
    """Names of all devices in the users' ``folders`` and in the catalog, sorted."""
    return tuple(sorted(_device_files(folders)))


def get_device(
    name_or_path: str | os.PathLike[str],
    folders: Iterable[str | os.PathLike[str]] = (),
    *,
    ssh_config: str | os.PathLike[str] | None = None,
) -> Device:
    """A device by name or by the path of its TOML file.

    Security: pass only what the user typed, never the content of another file.

    Args:
        name_or_path: a name from ``device_names(folders)``, or a path that ends in ``.toml``.
        folders: the user's own folders of TOML files; they precede the catalog.
        ssh_config: path of an ssh configuration, for a device with the ssh transport; None for the user's own.

    Returns:
        The device.

    Raises:
        DeviceError: there is no such device (the message names the nearest), or its file is wrong.
    """
    device = _find(os.fspath(name_or_path), folders)
    if ssh_config is None or not isinstance(device.address, Ssh):
        return device
    return replace(device, address=replace(device.address, config=os.fspath(ssh_config)))


def _find(wanted: str, folders: Iterable[str | os.PathLike[str]]) -> Device:
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
    for folder in reversed([Path(folder) for folder in folders]):  # the first folder takes precedence
        if not folder.is_dir():
            raise DeviceError(f"a folder of devices must exist, but '{folder}' is none; create it or correct the path")
        files.update({path.stem: path for path in folder.glob("*.toml")})
    return files
