"""The program that runs on the device: JSON lines on stdin and stdout. It needs Python, numpy and the runtime, nothing else.

A request is one of

* ``{"op": "describe", "settings": {..}, "runtime": null}``;
* ``{"op": "time", "settings": {..}, "runtime": null, "networks": {key: path}, "policy": {..}, "seed": 0}``: one group of networks,
  timed interleaved;
* ``{"op": "missing", "files": [name, ..]}``: which of these the folder lacks;
* ``{"op": "put", "file": name, "start": 0, "content": base64, "last": true}``: a part of a file for the folder.

``settings`` are those of ``devices.runtimes.Settings``; ``runtime`` is ``module:class`` of one that is not the project's own.

The answer is any number of notes ``{"doing": "..", "network": key, "step": 3, "steps": 9}`` and then one ``{"result": ..}`` or
``{"error": ".."}``. The program ends when its input does, whatever it is doing then.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gc
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from devices.groups import time_group
from devices.provenance import provenance
from devices.runtimes import Settings, adopt
from devices.timing import TimingPolicy
from ofa.errors import DeviceError, OfaError
from ofa.reasons import reason_of

__all__ = ["answer", "main"]

_STDOUT, _STDERR = 1, 2
_CUT_OFF = 3


def answer(request: Mapping[str, Any], say: Callable[[Mapping[str, Any]], None]) -> Any:
    """The result of one request; notes go to ``say``.

    Raises:
        OfaError: the device cannot do what is asked.
    """
    operation = request["op"]
    if operation == "missing":
        return [name for name in request["files"] if not Path(name).exists()]
    if operation == "put":
        return _put(request)
    adopt(request["settings"]["runtime"], request.get("runtime"))
    settings = Settings.from_json(request["settings"])
    if operation == "describe":
        return provenance(settings)
    results = time_group(settings, request["networks"], policy=TimingPolicy(**request["policy"]), seed=request["seed"], say=say)
    return {key: dataclasses.asdict(result) for key, result in results.items()}


def _put(request: Mapping[str, Any]) -> None:
    """Write a part; the file has its name only when it is whole."""
    name, part = Path(request["file"]), Path(request["file"] + ".part")
    try:
        with part.open("r+b" if request["start"] else "wb") as file:
            file.seek(request["start"])
            file.write(base64.b64decode(request["content"]))
        if request["last"]:
            part.replace(name)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        reason = (error.strerror or str(error)).lower()
        raise DeviceError(f"the device must be able to keep networks in '{Path.cwd()}', but: {reason}; free it or name another") from error


def main() -> None:
    """Answer requests until stdin ends."""
    # Native libraries print where they like. Whatever they print goes to stderr; the conversation has a descriptor of its own.
    out = os.fdopen(os.dup(_STDOUT), "w", encoding="utf-8")
    os.dup2(_STDERR, _STDOUT)

    doing = "starting"

    def say(message: Mapping[str, Any]) -> None:
        nonlocal doing
        doing = message.get("doing", doing)
        try:
            out.write(json.dumps(message) + "\n")
            out.flush()
        except OSError:  # nobody reads any more
            os._exit(_CUT_OFF)

    _raise_priority()
    gc.disable()  # a collection in the middle of a sample is noise; this process makes no cycles worth collecting
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, lines.put), daemon=True).start()
    while True:
        try:
            say({"result": answer(json.loads(lines.get()), say)})
        except OfaError as error:
            say({"error": str(error)})
        except Exception as error:  # of any library there
            reason = reason_of(error)
            say({"error": f"a device must be able to finish {doing}, but: {reason}; free memory and disk there, or leave this network out"})


def _listen(source: IO[str], take: Callable[[str], None]) -> None:
    """Pass lines on. When there are no more, nobody waits for an answer: end, also in the middle of a network that never returns."""
    for line in source:
        take(line)
    os._exit(_CUT_OFF)


def _raise_priority() -> None:
    """Ask to be interrupted as little as the system allows; it allows it to few, and then nothing changes."""
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
    # Linux shares the processor out among sessions first, and only within one by the priority above.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")
