"""Type aliases of NumPy arrays. Shapes are suffixes of variable names; the head of each file has the legend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Floats", "Integers", "Rows"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Rows = NDArray[Any]
"""Encoded archs [N, genes], in a small integer type (``ofa.choices.ROW_DTYPE``)."""
