"""The program that runs on the device: JSON lines on stdin and stdout. It needs Python, numpy and the runtime, nothing else.

A request is ``{"op": "describe", "device": {..}}`` or
``{"op": "time", "device": {..}, "networks": {key: path}, "policy": {..}, "seed": 0}``.
The answer is any number of notes ``{"done": 3, "total": 9, "doing": ".."}`` and then one ``{"result": ..}`` or ``{"error": ".."}``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from devices.device import Device
from devices.groups import time_in_groups
from devices.provenance import provenance
from devices.runtimes import Timer, get_runtime
from devices.timing import TimingPolicy
from ofa.errors import OfaError

__all__ = ["answer", "main"]

_STDOUT, _STDERR = 1, 2


def answer(request: Mapping[str, Any], out: IO[str]) -> Any:
    """The result of one request; notes are written to ``out``.

    Raises:
        OfaError: the device cannot do what is asked.
    """
    device = Device.from_json(request["device"])
    if request["op"] == "describe":
        return provenance(device)
    return _time(device, request, out)


def _time(device: Device, request: Mapping[str, Any], out: IO[str]) -> dict[str, dict[str, Any]]:
    runtime = get_runtime(device.runtime)
    rng = np.random.default_rng(request["seed"])
    paths: Mapping[str, str] = request["networks"]

    def load(key: str) -> Timer:
        session = runtime.load(Path(paths[key]), device)
        # Not zeros: some kernels are faster on them, and no image is black.
        inputs = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in session.input_shapes().items()}
        return session.timer(inputs)

    def note(done: int, total: int, doing: str) -> None:
        _say(out, {"done": done, "total": total, "doing": doing})

    timings = time_in_groups(list(paths), load, policy=TimingPolicy(**request["policy"]), rng=rng, note=note)
    return {key: dataclasses.asdict(timing) for key, timing in timings.items()}


def main() -> None:
    """Answer requests until stdin ends."""
    # Native libraries print where they like. Whatever they print goes to stderr; the conversation has a descriptor of its own.
    out = os.fdopen(os.dup(_STDOUT), "w", encoding="utf-8")
    os.dup2(_STDERR, _STDOUT)
    _raise_priority()
    gc.disable()  # a collection in the middle of a sample is noise; this process makes no cycles worth collecting
    for line in sys.stdin:
        try:
            _say(out, {"result": answer(json.loads(line), out)})
        except OfaError as error:
            _say(out, {"error": str(error)})


def _raise_priority() -> None:
    """Ask to be interrupted as little as the system allows; it allows it to few, and then nothing changes."""
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
    # Linux shares the processor out among sessions first, and only within one by the priority above.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")


def _say(out: IO[str], message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
