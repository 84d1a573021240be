"""A runtime that is defined here, and nowhere in the project; a process that executes networks imports no more than this."""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from devices import Settings
from devices.runtimes.fake import FakeRuntime
from devices.runtimes.loading import as_device_error


class Zipped(FakeRuntime):
    """Executes networks that are compressed."""

    name = "zipped"
    format = "zipped"

    def load(self, path: Path, settings: Settings) -> Any:
        with TemporaryDirectory() as folder:
            plain = Path(folder) / path.name
            with as_device_error(f"'{path.name}' must be a compressed network", "export it again"):
                plain.write_bytes(zlib.decompress(path.read_bytes()))
            return super().load(plain, settings)


def inner_runtime() -> type[Zipped]:
    """One that no other process can import."""

    class Inner(Zipped):
        name = "inner"

    return Inner
