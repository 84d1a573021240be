"""Charts and figures of predicted against measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from search.front.columns import figures
from search.report.charts import axis, chart, ends_of, layer
from search.report.measured import Comparison, Residuals

__all__ = ["measured_chart", "residuals_chart", "summary_of"]


def measured_chart(compared: Comparison) -> dict[str, Any]:
    """Predictions with intervals against measurements, and the diagonal."""
    known = np.isfinite(compared.low_ms) & np.isfinite(compared.high_ms)
    ends = ends_of(compared.measured_ms, compared.predicted_ms, compared.low_ms, compared.high_ms)
    texts = [
        f"{name}\npredicted {figures(p)} ms ({figures(low)} .. {figures(high)})\nmeasured {figures(m)} ms, {error:+.1%}"
        for name, p, low, high, m, error in zip(
            compared.names,
            compared.predicted_ms,
            compared.low_ms,
            compared.high_ms,
            compared.measured_ms,
            compared.errors,
            strict=True,
        )
    ]
    layers = [layer("line", ends, ends, words="prediction = measurement", style="grey", hover=False)]
    if known.any():
        low, high = compared.low_ms[known], compared.high_ms[known]
        layers.append(layer("bars", compared.measured_ms[known], low, low=low, high=high, words="interval of the prediction", hover=False))
    layers.append(layer("dots", compared.measured_ms, compared.predicted_ms, words="networks", texts=texts))
    x, y = axis("measured", "ms"), axis("predicted", "ms")
    return chart(f"{len(compared.names)} networks on {compared.device}", x, y, layers, square=True)


def residuals_chart(left: Residuals) -> dict[str, Any]:
    """Residuals in ascending order, with the interval."""
    shares = 100 * np.sort(left.shares)
    ranks = np.arange(1, len(shares) + 1)
    texts = [
        f"network {rank} of {len(shares)}\nmeasured {share:+.2f} % against the prediction"
        for rank, share in zip(ranks, shares, strict=True)
    ]
    ends = np.array([0.5, len(shares) + 0.5])
    half = 100 * left.half_width
    layers = [
        layer(
            "area", ends, [0, 0], low=[-half, -half], high=[half, half], words=f"{left.coverage:.0%} interval, ±{half:.1f} %", hover=False
        ),
        layer("line", ends, [0, 0], style="grey", hover=False),
        layer("dots", ranks, shares, words="networks left out of the fit", texts=texts),
    ]
    x = axis("networks, by their error", ticks=[(1, "1"), (len(shares), str(len(shares)))])
    return chart(f"Calibration on {left.device}", x, axis("measured against predicted", "%"), layers)


def summary_of(compared: Comparison) -> dict[str, str]:
    """The figures of a comparison in words, by name."""
    values = {
        "device": compared.device,
        "networks": str(len(compared.names)),
        "mean error": f"{compared.mean_error:.1%}",
        "bias": f"{compared.errors.mean():+.1%}",
        "inside the interval": f"{compared.inside:.0%}",
        "Kendall": f"{compared.kendall:.2f}",
    }
    return {key: "unknown" if "nan" in value and key != "device" else value for key, value in values.items()}
