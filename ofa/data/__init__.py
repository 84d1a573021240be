"""Labelled images, from wherever they lie to the batches that networks read, at any resolution."""

from __future__ import annotations

from ofa.data.augmentation import Augmentation
from ofa.data.batches import BatchPlan, batch_indices, batches, default_workers, load_batches, make_batch, measure_loader
from ofa.data.encoded import EncodedImages
from ofa.data.images import ImageData, Images, Splits, split
from ofa.data.sources import data_names, digits, load_data

__all__ = [
    "Augmentation",
    "BatchPlan",
    "EncodedImages",
    "ImageData",
    "Images",
    "Splits",
    "batch_indices",
    "batches",
    "data_names",
    "default_workers",
    "digits",
    "load_batches",
    "load_data",
    "make_batch",
    "measure_loader",
    "split",
]
