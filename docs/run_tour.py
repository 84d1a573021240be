"""Runs `tour.ipynb` from top to bottom, in a folder of its own, and keeps what its cells show.

python docs/run_tour.py            # about two minutes
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).with_name("tour.ipynb")
SECONDS = 600
"""The most that one cell may take."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the notebook and write it with its outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TOUR, help="the notebook with its outputs; in its place by default")
    arguments = parser.parse_args(words)
    notebook = nbformat.read(TOUR, as_version=4)
    with tempfile.TemporaryDirectory(prefix="ofa-tour-") as folder:
        NotebookClient(notebook, timeout=SECONDS, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    # What else the kernel tells of itself is another on every machine.
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}})
    nbformat.write(notebook, arguments.out)


if __name__ == "__main__":
    main()
