"""Losses by quantization that are computed from the arch, as a measurement would find them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ofa.space import Space
from search.predictor.quantization import QuantizationLoss
from search.predictor.sampling import sample_stratified

ABOUT: dict[str, Any] = {"precision": "int8", "how": "by a formula", "fitted_images": 128, "judging_images": 2000}


def losses_of(space: Space, nets: int = 16, *, slope: float = 0.01, noise: float = 0.002, seed: int = 0, **about: Any) -> QuantizationLoss:
    """Every network loses a point on average, less at high resolution by ``slope`` a step, and measurements are off by ``noise``."""
    rng = np.random.default_rng(seed)
    archs = sample_stratified(space, nets, rng)
    steps_N = space.encode_all(archs)[:, 0] - (len(space.resolutions) - 1) / 2
    losses_N = 0.01 - slope * steps_N + noise * rng.standard_normal(nets)
    return QuantizationLoss.fit(space, archs, np.stack([np.full(nets, 0.7), 0.7 - losses_N], axis=1), **{**ABOUT, **about})
