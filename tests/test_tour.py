"""The notebook: it runs on any machine from top to bottom, and its committed outputs are those of such a run, small and of no place."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sources import ROOT

TOUR = ROOT / "docs" / "tour.ipynb"
MOST_BYTES, MOST_PICTURE_BYTES = 600_000, 60_000


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def outputs_of(notebook: Any) -> list[list[Any]]:
    """What each cell of code shows."""
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds_of(outputs: list[Any]) -> list[str]:
    """What kinds of things a cell shows: text by its stream, or the kinds of a picture or value."""
    return [output.get("name") or " ".join(sorted(output["data"])) for output in outputs]


def pictures_of(notebook: Any) -> list[bytes]:
    shown = [output["data"] for outputs in outputs_of(notebook) for output in outputs if "data" in output]
    return [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]


def check_outputs(notebook: Any) -> None:
    """No cell warns or fails, and nothing that is shown says where it was made."""
    for outputs in outputs_of(notebook):
        assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []
        texts = json.dumps([output.get("text") or output["data"].get("text/plain") for output in outputs])
        assert re.findall(r"/(?:home|root|tmp|work|Users)/", texts) == []
    assert all(len(picture) < MOST_PICTURE_BYTES for picture in pictures_of(notebook))


def test_what_is_committed_is_a_whole_run() -> None:
    assert TOUR.stat().st_size < MOST_BYTES
    notebook = read(TOUR)
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run `make tour`"
    assert len(pictures_of(notebook)) == 5
    check_outputs(notebook)


def test_its_links_lead_somewhere() -> None:
    words = "".join("".join(cell["source"]) for cell in read(TOUR)["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", words)
    assert links
    assert [link for link in links if not (TOUR.parent / link).is_file()] == []


@pytest.mark.docs
def test_it_runs_anywhere(tmp_path: Path) -> None:
    made = tmp_path / "tour.ipynb"
    script = TOUR.with_name("run_tour.py")
    done = subprocess.run([sys.executable, script, "--out", made], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = read(made)
    check_outputs(notebook)
    assert list(map(kinds_of, outputs_of(notebook))) == list(map(kinds_of, outputs_of(read(TOUR)))), "run `make tour`"
