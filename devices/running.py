"""Runs networks on a device and returns their outputs, as ``devices.measure`` times them.

Shape suffix: N images.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from devices import answers
from devices.answers import NonsenseError
from devices.asking import Patience, request_of
from devices.device import Device
from devices.measure import SILENCE_LIMIT_S
from devices.outputs import FLOAT32
from devices.runtimes import Array
from devices.transports import Agent, ConnectionLostError, LineLostError
from ofa.errors import DeviceError

__all__ = ["DeviceNetwork"]

_PIECE = 1 << 20
"""Approximate bytes of images per request."""
_MOST_OUTPUTS = 1 << 21
"""Most bytes of outputs per request: as base64 they fit a line (``devices.transports.connection.LONGEST_LINE``)."""
_ATTEMPTS = 2


class DeviceNetwork:
    """A network's file on a device, called with images. Used in a ``with`` block, which ends the agent on exit.

    Lost connections and invalid answers are retried as often as the device's address says.

    Args:
        device: the device with its settings.
        path: path of a file in the format of the device's runtime, with one float32 input of the device's batch size, and one output.
        output: shape of the output of one image.
        name: name of the network in messages.
        tell: receives the reason of a wait after a failure.
        silence_limit_s: timeout in seconds between two messages of the device, for example while it loads the file.

    Raises:
        DeviceError: on a call: the device is unreachable; its runtime cannot load or run the file, crashes or hangs; or the outputs of one
            call are too large to be sent.
    """

    def __init__(
        self,
        device: Device,
        path: str | os.PathLike[str],
        *,
        output: tuple[int, ...],
        name: str,
        tell: Callable[[str], None] = lambda text: None,
        silence_limit_s: float = SILENCE_LIMIT_S,
    ) -> None:
        self._device, self._path, self._output, self._name = device, Path(path), output, name
        self._tell, self._silence_limit_s = tell, silence_limit_s
        self._patience = Patience(device)
        self._agent: Agent | None = None
        self._networks: dict[str, str] = {}
        self._crashes = self._images = 0

    def __enter__(self) -> DeviceNetwork:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_agent()

    def __call__(self, images_N: Array) -> Array:
        """The network's outputs.

        Args:
            images_N: float32 images, at least one, of the network's input shape except for their number; an incomplete last batch is padded
                with zeros, whose outputs are dropped.

        Returns:
            float32 outputs, one per image.
        """
        batch = self._device.batch
        empty = np.zeros((-len(images_N) % batch, *images_N.shape[1:]), np.float32)
        full_N = np.concatenate([images_N, empty])
        at_once = batch * self._calls_at_once(full_N[:batch].nbytes)
        parts = [self._answers(full_N[start : start + at_once]) for start in range(0, len(full_N), at_once)]
        return np.concatenate(parts)[: len(images_N)]

    def _calls_at_once(self, call_bytes: int) -> int:
        output_bytes = self._device.batch * math.prod(self._output) * np.dtype(FLOAT32).itemsize
        if output_bytes > _MOST_OUTPUTS:
            raise DeviceError(
                f"outputs of one call on a device must have at most {_MOST_OUTPUTS} bytes, but those of {self._name} have {output_bytes} "
                f"with a batch of {self._device.batch}; name a device with a smaller batch"
            )
        return max(1, min(_PIECE // call_bytes, _MOST_OUTPUTS // output_bytes))

    def _answers(self, images_N: Array) -> Array:
        """The outputs of whole calls, with retries."""
        while True:
            try:
                found = self._ask(images_N)
            except (ConnectionLostError, NonsenseError) as failed:
                self._end_agent()
                self._wait(failed)
                continue
            except DeviceError as refused:
                raise self._named(refused) from refused
            self._patience.begin_anew()
            self._crashes, self._images = 0, self._images + len(images_N)
            return found

    def _ask(self, images_N: Array) -> Array:
        if self._agent is None:
            self._agent = self._device.address.start()
            self._networks = self._device.address.bring(self._agent, {self._name: self._path})
        content, calls = images_N.astype(FLOAT32).tobytes(), len(images_N) // self._device.batch
        answer = None
        for start in range(0, len(content), _PIECE):
            request = request_of(
                "run",
                self._device,
                networks=self._networks,
                calls=calls,
                start=start,
                content=base64.b64encode(content[start : start + _PIECE]).decode(),
                last=start + _PIECE >= len(content),
            )
            notes = answers.Notes.of_calls(self._name, calls, silence_limit_s=self._silence_limit_s)
            answer = self._agent.request(request, on_note=notes, silence_limit_s=self._silence_limit_s)
        return answers.outputs(answer, (len(images_N), *self._output))

    def _wait(self, failed: ConnectionLostError | NonsenseError) -> None:
        if isinstance(failed, LineLostError | NonsenseError) or not failed.note:  # the failure is not the network's
            self._patience.wait(failed, kept=f"{self._name} has answered for {self._images} images", tell=self._tell)
            return
        self._crashes += 1
        if self._crashes >= _ATTEMPTS:
            raise self._named(failed) from failed

    def _named(self, error: DeviceError) -> DeviceError:
        named = self._name in str(error)
        return DeviceError(str(error) if named else f"'{self._name}' cannot be run on {self._device.words}: {error}")

    def _end_agent(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None
