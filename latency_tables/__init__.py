"""Latency tables: measured latencies of a space's blocks on a device, and estimates of whole networks from them."""

from __future__ import annotations

from latency_tables.build import build_table
from latency_tables.calibrate import calibrate_table
from latency_tables.check import TableCheck, check_table
from latency_tables.correction import Correction
from latency_tables.estimate import Estimator
from latency_tables.from_networks import table_from_networks
from latency_tables.journal import Journal
from latency_tables.plot import draw_check
from latency_tables.table import LatencyTable
from latency_tables.transfer import transfer_table
from ofa.inventory import blocks_of_space

__all__ = [
    "Correction",
    "Estimator",
    "Journal",
    "LatencyTable",
    "TableCheck",
    "blocks_of_space",
    "build_table",
    "calibrate_table",
    "check_table",
    "draw_check",
    "table_from_networks",
    "transfer_table",
]
