"""``python -m ofa`` is the command ``ofa``."""

from __future__ import annotations

from ofa.cli.main import run

if __name__ == "__main__":
    run()
