"""Types of NumPy arrays. Shapes are in the names of variables, and in the legend at the head of each file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Floats", "Integers", "Rows"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Rows = NDArray[Any]
"""Encoded archs [N, genes], of the smallest unsigned integers that hold them."""
