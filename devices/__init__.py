"""Devices: what a network is timed on, through which runtime, and how. This room times ONNX files and knows nothing of supernets."""

from __future__ import annotations

from devices.conditions import Conditions
from devices.device import Device, Ssh, device_names, get_device, load_device
from devices.measure import describe, time_models
from devices.probe import probe
from devices.timing import Timing, TimingPolicy

__all__ = [
    "Conditions",
    "Device",
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
