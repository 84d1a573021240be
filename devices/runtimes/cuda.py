"""Memory on an NVIDIA GPU through a few calls of the CUDA driver, whose library exists wherever such a GPU works."""

from __future__ import annotations

import ctypes
import math
import sys
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from devices.runtimes import Array
from ofa.errors import DeviceError

__all__ = ["Gpu", "GpuFacts", "gpu_facts"]

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_BYTES_PER_VALUE = 4
_LONGEST_TEXT = 256
_Address = ctypes.c_uint64


@dataclass(frozen=True)
class GpuFacts:
    """The driver's description of a GPU.

    Attributes:
        name: its name, such as ``NVIDIA H100 80GB HBM3``.
        bus_id: its PCI bus address, which identifies it in other libraries.
    """

    name: str
    bus_id: str


def gpu_facts(number: int) -> GpuFacts | None:
    """The GPU with a CUDA number (as mapped by CUDA_VISIBLE_DEVICES); None without a driver or such a GPU."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    device, name, bus_id = ctypes.c_int(), ctypes.create_string_buffer(_LONGEST_TEXT), ctypes.create_string_buffer(_LONGEST_TEXT)
    length = ctypes.c_int(_LONGEST_TEXT)
    if (
        driver.cuInit(ctypes.c_uint(0))
        or driver.cuDeviceGet(ctypes.byref(device), ctypes.c_int(number))
        or driver.cuDeviceGetName(name, length, device)
        or driver.cuDeviceGetPCIBusId(bus_id, length, device)
    ):
        return None
    return GpuFacts(name.value.decode(errors="replace"), bus_id.value.decode())


class Gpu:
    """The first GPU for one network: a stream, and memory that is freed with this object.

    Args:
        runtime: name of the runtime, for messages.

    Raises:
        DeviceError: there is no such GPU or no driver. All methods raise it if a call of the driver fails.
    """

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        try:
            self._driver: Any = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise DeviceError(
                f"runtime '{runtime}' needs an NVIDIA GPU and its driver, but this machine has no {_LIBRARY}; name a device that has one"
            ) from error
        self._addresses: list[int] = []
        weakref.finalize(self, _free, self._driver, self._addresses).atexit = False
        self._use_first()
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self.stream = int(stream.value or 0)

    def _use_first(self) -> None:
        """Use the primary context, which CUDA's runtime and so TensorRT use. It is kept until the process ends."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def allocate(self, shape: tuple[int, ...]) -> int:
        """Allocate memory for a float32 tensor; returns its address."""
        address = _Address()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(_BYTES_PER_VALUE * math.prod(shape)))
        self._addresses.append(address.value)
        return address.value

    def write(self, address: int, array: Array) -> None:
        """Copy a float32 array to the GPU."""
        array = np.ascontiguousarray(array)
        self._call("cuMemcpyHtoD_v2", _Address(address), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))

    def read(self, address: int, shape: tuple[int, ...]) -> Array:
        """Copy a float32 array from the GPU."""
        array = np.empty(shape, dtype=np.float32)
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), _Address(address), ctypes.c_size_t(array.nbytes))
        return array

    def wait(self) -> None:
        """Wait until all work of the stream is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status:
            name = ctypes.c_char_p()
            self._driver.cuGetErrorName(status, ctypes.byref(name))
            reason = (name.value or b"an unknown error").decode()
            raise DeviceError(
                f"runtime '{self._runtime}' needs a working NVIDIA GPU, but its driver answers {reason} to {function}; "
                "check nvidia-smi on the device"
            )


def _free(driver: Any, addresses: list[int]) -> None:
    for address in addresses:
        driver.cuMemFree_v2(_Address(address))
