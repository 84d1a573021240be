"""Devices: time model files on a machine through a runtime. This package knows nothing of supernets.

The names below are imported on first use: the agent on a device needs few of these modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa.lazy import lazily

if TYPE_CHECKING:
    from devices.catalog import device_names, get_device, load_device
    from devices.conditions import Conditions
    from devices.device import Device
    from devices.measure import describe, time_models
    from devices.probing import probe
    from devices.runtimes import RUNTIMES, Settings
    from devices.timing import Timing, TimingPolicy
    from devices.transports import TRANSPORTS, Address
    from devices.transports.fake import Fake
    from devices.transports.local import Local
    from devices.transports.ssh import Ssh

__all__ = [
    "RUNTIMES",
    "TRANSPORTS",
    "Address",
    "Conditions",
    "Device",
    "Fake",
    "Local",
    "Settings",
    "Ssh",
    "Timing",
    "TimingPolicy",
    "describe",
    "device_names",
    "get_device",
    "load_device",
    "probe",
    "time_models",
]

__getattr__ = lazily(
    __name__,
    {
        "devices.catalog": ("device_names", "get_device", "load_device"),
        "devices.conditions": ("Conditions",),
        "devices.device": ("Device",),
        "devices.measure": ("describe", "time_models"),
        "devices.probing": ("probe",),
        "devices.runtimes": ("RUNTIMES", "Settings"),
        "devices.timing": ("Timing", "TimingPolicy"),
        "devices.transports": ("TRANSPORTS", "Address"),
        "devices.transports.fake": ("Fake",),
        "devices.transports.local": ("Local",),
        "devices.transports.ssh": ("Ssh",),
    },
)
