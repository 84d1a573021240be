"""``python -m ofa`` is the command ``ofa``."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command without the working folder on the module path, where ``python -m`` puts it first."""
    here = Path.cwd()
    if not sys.flags.safe_path and Path(sys.path[0] or os.curdir).resolve() == here and Path(__file__).resolve().parents[1] != here:
        del sys.path[0]
    from ofa.cli.main import run

    run()


if __name__ == "__main__":
    main()
