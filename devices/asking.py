"""Requests to a device, and their retries."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from devices.answers import NonsenseError
from devices.device import Device
from devices.runtimes import reference_to
from devices.transports import LineLostError
from ofa.errors import DeviceError

__all__ = ["Patience", "request_of"]

_LONGEST_BACKOFF_S = 60.0


def request_of(operation: str, device: Device, **more: Any) -> dict[str, Any]:
    """A request for the agent of a device; ``devices.agent`` lists the further keys of each operation."""
    return {"op": operation, "settings": device.settings.to_json(), "runtime": reference_to(device.runtime), **more}


class Patience:
    """Exponential backoff: waits before each retry, longer each time, and gives up after too many failures in a row.

    Args:
        device: the device, whose address sets the number of retries.
        lines: upper limit of retries after a lost connection; None for the address's number.
    """

    def __init__(self, device: Device, *, lines: int | None = None) -> None:
        self._device, self._failures = device, 0
        self._most = device.address.retries
        self._most_lines = self._most if lines is None else min(lines, self._most)

    def begin_anew(self) -> None:
        """Reset the backoff after a success."""
        self._failures = 0

    def wait(self, failed: DeviceError, *, kept: str = "nothing is timed yet", tell: Callable[[str], None] = lambda text: None) -> None:
        """Wait before the next retry.

        Args:
            failed: the failure.
            kept: words for the results so far.
            tell: receives the reason of the wait.

        Raises:
            DeviceError: no retries are left.
        """
        self._failures += 1
        most = self._most_lines if isinstance(failed, LineLostError) else self._most
        if self._failures > most:
            raise self._last(failed, kept) from failed
        pause_s = min(_LONGEST_BACKOFF_S, self._device.address.backoff_s * 2 ** (self._failures - 1))
        tell(f"{_clause(failed)}; trying again in {pause_s:g} s ({self._failures} of {most})")
        time.sleep(pause_s)

    def _last(self, failed: DeviceError, kept: str) -> DeviceError:
        often = f" {self._failures} times in a row" if self._failures > 1 else ""
        if isinstance(failed, LineLostError):
            remedy = "check that it is on and reachable, and run this again, or raise 'retries' under [transport]"
        elif isinstance(failed, NonsenseError):
            remedy = "check which programs run there, and install Python and the runtime again"
        else:
            return failed
        return DeviceError(f"{_clause(failed)},{often} on {self._device.words}; {kept}; {remedy}")


def _clause(error: Exception) -> str:
    return str(error).partition("; ")[0]
