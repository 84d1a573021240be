"""A bundle held to its card: what it promises and what is asked of it, beside what its file does on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from devices import Conditions, Device, get_device
from ofa.data import Images
from ofa.errors import ExportError, SearchError
from ofa.exporting.bundle import Bundle
from ofa.exporting.card import Card
from ofa.exporting.onnx import batch_of
from ofa.exporting.precision import PRECISIONS
from ofa.journal import UNKEPT, Steps
from ofa.locking import writing
from ofa.progress import Progress, silent
from ofa.tasks import Task
from search.verification.judging import images_for
from search.verification.networks import verify
from search.verification.verdict import Subject, Verification

__all__ = ["note_on_card", "noting", "other_settings", "subject_of_bundle", "verify_bundle"]


def verify_bundle(
    bundle: Bundle,
    device: Device | str,
    *,
    budget_ms: float | None = None,
    least_accuracy: float | None = None,
    most_bytes: int | None = None,
    data: Images | None = None,
    images: int | None = None,
    task: Task | None = None,
    pause_ms: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
    steps: Steps = UNKEPT,
) -> Verification:
    """Compare a bundle's file with PyTorch, time it on a device, run it there on images, compare that with its card, and note the time.

    Args:
        bundle: the bundle.
        device: a device, its name, or the path of its file.
        budget_ms: the most that the network may take, by the median of calls as the device's file says.
        least_accuracy: the least score (0..1) that it may have on the device; with ``data``.
        most_bytes: the most that the file may have which is timed.
        data: images of its classes, as ``load_data`` gives them with the bundle's ``rule`` and ``class_names``; the file runs on them
            through the device's runtime, and PyTorch here. None runs it on none.
        images: how many of them, from all over; None for all.
        task: what the network is for; None is what the bundle says.
        pause_ms: also time calls after so many milliseconds without work; None does not.
        seed: of the inputs.
        overwrite: whether a measurement that is on the card already is replaced.
        progress: told how far it is.
        steps: keeps each measurement.

    Returns:
        All of it; a missed budget is no error (``missed``).

    Raises:
        OfaError: the file computes something else, the images do not fit the network, or the device cannot measure or run it.
    """
    if data is None and (least_accuracy is not None or images is not None):
        raise SearchError("an accuracy is judged on images, but there are none; give data")
    measured = get_device(device) if isinstance(device, str) else device
    with noting(bundle, measured.name, overwrite=overwrite):
        subject = subject_of_bundle(bundle, measured, budget_ms)
        asked: dict[str, Any] = {"least_accuracy": least_accuracy, "most_bytes": most_bytes}
        if data is not None:
            asked |= _judging(bundle, data, images, task or bundle.signature.get_task())
        (found,) = verify(
            [replace(subject, **asked)], measured, rng=np.random.default_rng(seed), pause_ms=pause_ms, progress=progress, steps=steps
        )
        noted = note_on_card(bundle, found, overwrite=overwrite)
    return replace(found, promised_under=bundle.card.conditions, noted=noted)


def _judging(bundle: Bundle, data: Images, images: int | None, task: Task) -> dict[str, Any]:
    """What a subject is judged on, and what the card says of that."""
    card, test_images = bundle.card, bundle.card.provenance.get("test_images")
    judging = {"data": images_for(bundle, data, task, images), "task": task}
    if card.accuracy is None or card.metric != task.metric:
        return judging
    error = task.standard_error(card.accuracy, test_images) if isinstance(test_images, int) and test_images > 0 else math.nan
    return {**judging, "promised_accuracy": card.accuracy, "promised_error": 0.0 if math.isnan(error) else error}


def subject_of_bundle(bundle: Bundle, device: Device, budget_ms: float | None = None) -> Subject:
    """A bundle's network and ONNX file, with what its card promises, if that is of this device and its settings."""
    card = bundle.card
    promise = card.latency if card.device == device.name and other_settings(card, device) is None else None
    path, precision = bundle.onnx_path, "fp32"
    if PRECISIONS.get(device.precision).is_of_data:
        path, precision = bundle.file(device.precision), device.precision
        if not path.is_file():
            raise ExportError(
                f"a bundle must have a file in {precision} for '{device.name}', which computes so, but '{bundle.folder}' has none; write "
                f"it with: ofa export {bundle.folder} --to onnx --precision {precision} --data IMAGES"
            )
    return Subject(
        name=str(bundle.folder),
        network=bundle.network(),
        channels=bundle.input_shape[1],
        resolution=bundle.arch.resolution,
        promise=promise,
        budget_ms=budget_ms,
        # What ships is what is timed, unless the device takes another number of images at once than the file, which can be made again.
        onnx_path=path if precision != "fp32" or batch_of(path) in (None, device.batch) else None,
        precision=precision,
    )


def _may_note(card: Card, device: str, *, overwrite: bool = False) -> bool:
    """Whether a measurement on a device goes on a card: it is of no other device, and has no measurement or one that may be replaced."""
    return card.device in (None, device) and (card.measured_ms is None or overwrite)


@contextmanager
def noting(bundle: Bundle, device: str, *, overwrite: bool = False) -> Iterator[None]:
    """Be the one writer of a bundle inside the block, from the measurement to its note, if one may come.

    Raises:
        FileError: somebody else writes it.
    """
    with writing(bundle.folder, "verifying a bundle") if _may_note(bundle.card, device, overwrite=overwrite) else nullcontext():
        yield


def note_on_card(bundle: Bundle, found: Verification, *, overwrite: bool = False) -> bool:
    """Write a measured latency to a bundle's card, unless one is there or the card is of another device; whether it was written.

    Args:
        bundle: that was verified.
        found: what came of it.
        overwrite: whether a measurement that is there is replaced.

    Raises:
        FileError: the card cannot be written, or somebody else writes the bundle.
    """
    if not _may_note(bundle.card, found.device, overwrite=overwrite):
        return False
    with writing(bundle.folder, "noting a measurement"):
        noted = _may_note(bundle.card_now(), found.device, overwrite=overwrite)
        if noted:
            conditions = None if found.conditions is None else found.conditions.to_json()
            bundle.note_measurement(found.device, found.timing.median_ms, conditions)
    return noted


def other_settings(card: Card, device: Device) -> Conditions | None:
    """The settings that a card's promise is of, if a device of the same name has others now; otherwise None."""
    if card.conditions is None or card.device != device.name:
        return None
    promised = Conditions.from_json(card.conditions)
    return None if promised.has_settings_of(Conditions.of(device)) else promised
