"""The README runs from its first command to its last, on drawn photos and the smallest space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.documented.running import Page


def test_the_readme_runs(read_readme: Callable[[], Page], record_property: Any) -> None:
    page = read_readme()
    record_property("seconds", page.ran)
    assert len(page.ran) > 10
    bundle = page.folder / "network"
    assert {"photo.onnx", "network.onnx", "labels.json", "README.md"} <= {path.name for path in bundle.iterdir()}
