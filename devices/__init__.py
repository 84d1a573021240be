"""Devices: what a network is timed on, through which runtime, and how. This room times files and knows nothing of supernets."""

from __future__ import annotations

from devices.catalog import device_names, get_device, load_device
from devices.conditions import Conditions
from devices.device import Device
from devices.measure import describe, time_models
from devices.probe import probe
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
