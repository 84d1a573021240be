"""Fronts for the tests of pictures and reports."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from ofa.families import get_space
from ofa.space import Space
from search.costs import EXACT_COSTS, costs_of
from search.features import features
from search.pareto import non_dominated
from search.store import read_table, write_table

HOSTILE = "</script><img src=x onerror=window.ran=1>"


@dataclass
class FakeFront:
    """What the report touches of a front of schema 2."""

    networks: pd.DataFrame
    dominated: pd.DataFrame
    metadata: Mapping[str, Any]

    @property
    def device_names(self) -> tuple[str, ...]:
        return tuple(self.metadata["devices"])

    def save(self, path: str | os.PathLike[str]) -> None:
        rows = pd.concat([self.networks.assign(on_front=True), self.dominated.assign(on_front=False, arch=None)], ignore_index=True)
        write_table(rows, self.metadata, path, kind="front", schema=2)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        rows, metadata = read_table(path, kind="front", schema=2, columns=("accuracy", "arch", "on_front"), made_by="ofa search")
        on_front = rows.pop("on_front").to_numpy(dtype=np.bool_)
        return cls(rows[on_front].reset_index(drop=True), rows[~on_front].drop(columns="arch").reset_index(drop=True), metadata)


Front = FakeFront  # with the front of schema 2: from search.front import Front
