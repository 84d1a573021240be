"""The kernels for GPUs, without one: Triton's interpreter runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LEAST = "3.9"  # interpreters before it cannot count loops with NumPy 2.4


def test_the_kernels_compute_what_torchs_do() -> None:
    try:
        found = version("triton")
    except PackageNotFoundError:
        pytest.skip("needs triton")
    if Version(found) < Version(LEAST):
        pytest.skip(f"needs triton {LEAST}, and this is {found}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu/test_kernels.py"]
    chosen = "float32 and (3-1 or 5-2 or none or h_swish) or not_a_number"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OFA_GPU_TESTS_ON": "cpu"}
    done = subprocess.run([*command, "-k", chosen], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
