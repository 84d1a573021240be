"""The program that runs on the device: JSON lines on stdin and stdout. It needs Python, numpy and the runtime, nothing else.

A request is one of these, and has a number as ``id``:

* ``{"op": "describe", "settings": {..}, "runtime": null}``;
* ``{"op": "time", "settings": {..}, "runtime": null, "networks": {key: path}, "policy": {..}, "seed": 0}``: one group of networks,
  timed interleaved;
* ``{"op": "run", "settings": {..}, "runtime": null, "networks": {key: path}, "calls": 2, "start": 0, "content": base64, "last": true}``: a
  piece of the float32 images of some calls of one network; the result is null, and with the last piece shape and content of its outputs;
* ``{"op": "missing", "files": [name, ..]}``: which of these the folder lacks, or has damaged;
* ``{"op": "put", "file": name, "start": 0, "content": base64, "last": true}``: a part of a file for the folder.

``settings`` are the fields of ``devices.runtimes.Settings``; ``runtime`` is the ``module:class`` of a user's own runtime; file names are as
in ``devices.store``.

The answer is any number of notes ``{"doing": "..", "network": key, "step": 3, "steps": 9}`` and then one ``{"result": ..}`` or
``{"error": ".."}``, each with the request's ``id``. The program exits at the end of its input, even within a request.
"""

from __future__ import annotations

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
from devices.outputs import Outputs
from devices.provenance import provenance
from devices.runtimes import Settings, adopt
from devices.store import Store
from devices.timing import TimingPolicy
from ofa.errors import OfaError
from ofa.reasons import reason_of

__all__ = ["answer", "main"]

_STDOUT, _STDERR = 1, 2
_CUT_OFF = 3


def answer(
    request: Mapping[str, Any],
    say: Callable[[Mapping[str, Any]], None],
    store: Store | None = None,
    outputs: Outputs | None = None,
) -> Any:
    """The result of one request.

    Args:
        request: the request.
        say: sends a note.
        store: stores files; required for requests with files.
        outputs: runs networks, and collects pieces of images until the last one; None for a new one.

    Raises:
        OfaError: the device cannot fulfil the request.
    """
    operation = request["op"]
    if store is not None and operation == "missing":
        return store.missing(request["files"], say)
    if store is not None and operation == "put":
        return store.put(request["file"], request["start"], request["content"], last=request["last"])
    adopt(request["settings"]["runtime"], request.get("runtime"))
    settings = Settings.from_json(request["settings"])
    if operation == "describe":
        return provenance(settings).to_json()
    if operation == "run":
        return (outputs or Outputs()).take(settings, request, say)
    results = time_group(settings, request["networks"], policy=TimingPolicy(**request["policy"]), seed=request["seed"], say=say)
    return {key: dataclasses.asdict(result) for key, result in results.items()}


def main() -> None:
    """Answer requests until stdin ends."""
    # Native libraries may print to stdout. Redirect it to stderr; the protocol uses a duplicate of the original descriptor.
    out = os.fdopen(os.dup(_STDOUT), "w", encoding="utf-8")
    os.dup2(_STDERR, _STDOUT)
    store, outputs = Store(Path.cwd()), Outputs()

    doing, number = "starting", None

    def say(message: Mapping[str, Any]) -> None:
        nonlocal doing
        doing = message.get("doing", doing)
        try:
            out.write(json.dumps({"id": number, **message}) + "\n")
            out.flush()
        except OSError:  # the other end has closed the pipe
            _cut_off(store)

    _raise_priority()
    gc.disable()  # garbage collection within a sample is noise; this process makes few reference cycles
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, lines.put, store), daemon=True).start()
    while True:
        try:
            request = json.loads(lines.get())
            number = request.get("id")
            say({"result": answer(request, say, store, outputs)})
        except OfaError as error:
            say({"error": str(error)})
        except Exception as error:  # libraries may raise anything
            reason = reason_of(error)
            say({"error": f"a device must be able to finish {doing}, but: {reason}; free memory and disk there, or leave this network out"})


def _listen(source: IO[str], take: Callable[[str], None], store: Store) -> None:
    """Pass lines on. At the end of the input exit the process, even within a network that never returns: nobody waits for an answer."""
    for line in source:
        if line.strip():  # an empty line is a heartbeat
            take(line)
    _cut_off(store)


def _cut_off(store: Store) -> None:
    store.drop()
    os._exit(_CUT_OFF)


def _raise_priority() -> None:
    """Raise the scheduling priority of this process as far as the system permits; without permission nothing changes."""
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
    # Linux divides the processor among sessions first, and applies the priority above within a session only.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")
