"""Labelled images: from folders, Parquet files and other sources to batches for networks, at any resolution."""

from __future__ import annotations

from ofa.data.augmentation import Augmentation
from ofa.data.batches import BatchPlan, batch_indices, batches, default_workers, how_far_ahead, load_batches, make_batch, measure_loader
from ofa.data.encoded import EncodedImages
from ofa.data.images import ImageData, Images, Splits
from ofa.data.left_out import LeftOut, left_out_sentences
from ofa.data.rule import ImageRule
from ofa.data.scan import ImageFacts
from ofa.data.scanned import Scan
from ofa.data.sources import DATA, count_items, data_names, digits, load_data, scan_data
from ofa.data.splitting import split

__all__ = [
    "DATA",
    "Augmentation",
    "BatchPlan",
    "EncodedImages",
    "ImageData",
    "ImageFacts",
    "ImageRule",
    "Images",
    "LeftOut",
    "Scan",
    "Splits",
    "batch_indices",
    "batches",
    "count_items",
    "data_names",
    "default_workers",
    "digits",
    "how_far_ahead",
    "left_out_sentences",
    "load_batches",
    "load_data",
    "make_batch",
    "measure_loader",
    "scan_data",
    "split",
]
