"""Train one elastic supernet, measure any device once, and get the best network for any latency budget.

The names below are loaded when they are first used, so that importing ``ofa`` stays cheap: most of them need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa.lazy import lazily

if TYPE_CHECKING:
    from ofa.api import adopt, build_table, export, fit_predictor, query, search, specialize, train, verify
    from ofa.arch import Arch
    from ofa.errors import OfaError
    from ofa.families import Space, get_space, lower, space_names
    from ofa.supernet import Supernet
    from ofa.version import __version__

__all__ = [
    "Arch",
    "OfaError",
    "Space",
    "Supernet",
    "__version__",
    "adopt",
    "build_table",
    "export",
    "fit_predictor",
    "get_space",
    "lower",
    "query",
    "search",
    "space_names",
    "specialize",
    "train",
    "verify",
]

__getattr__ = lazily(
    __name__,
    {
        "ofa.api": ("adopt", "build_table", "export", "fit_predictor", "query", "search", "specialize", "train", "verify"),
        "ofa.arch": ("Arch",),
        "ofa.errors": ("OfaError",),
        "ofa.families": ("Space", "get_space", "lower", "space_names"),  # importing ofa.families registers all families
        "ofa.supernet": ("Supernet",),
        "ofa.version": ("__version__",),
    },
)
