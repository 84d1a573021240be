"""Verification of a bundle: compares the promises of its card, and the user's budgets, with measurements of its file on the device."""

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
    """Check a bundle's file against PyTorch, time it on a device, score it there on images, and compare the results with its card.

    The measured latency is then written to the card.

    Args:
        bundle: the bundle.
        device: a device, its name, or the path of its TOML file.
        budget_ms: upper limit of the median latency in ms, of calls as the device's file sets them.
        least_accuracy: lowest allowed score (0..1) on the device; needs ``data``.
        most_bytes: upper limit of the size of the timed file in bytes.
        data: images of the network's classes, loaded by ``load_data`` with the bundle's ``rule`` and ``class_names``. The file runs on
            them through the device's runtime, and PyTorch runs on them here. None skips the accuracy.
        images: number of images, evenly spread over ``data``; None for all.
        task: the network's task; None for the bundle's.
        pause_ms: if given, also times calls after pauses of so many milliseconds.
        seed: seed of the random inputs.
        overwrite: whether to replace a measurement that is already on the card.
        progress: receives the progress.
        steps: journal that keeps each measurement.

    Returns:
        All measurements. A missed budget is not an error; it is listed in ``missed``.

    Raises:
        SearchError: ``least_accuracy`` or ``images`` without ``data``.
        FileError: another process writes the bundle.
        ExportError: the file's output differs from PyTorch's, or the bundle has no file in the device's precision.
        DataError: the images do not fit the network.
        DeviceError: the device cannot time or run the file.
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
    """The fields of a subject for its accuracy: images, task, and the accuracy that the card promises."""
    card, test_images = bundle.card, bundle.card.provenance.get("test_images")
    judging = {"data": images_for(bundle, data, task, images), "task": task}
    if card.accuracy is None or card.metric != task.metric:
        return judging
    error = task.standard_error(card.accuracy, test_images) if isinstance(test_images, int) and test_images > 0 else math.nan
    return {**judging, "promised_accuracy": card.accuracy, "promised_error": 0.0 if math.isnan(error) else error}


def subject_of_bundle(bundle: Bundle, device: Device, budget_ms: float | None = None) -> Subject:
    """A bundle's network and ONNX file, with the latency that its card promises if the card is of this device and its settings."""
    card = bundle.card
    promise = card.latency if card.device == device.name and other_settings(card, device) is None else None
    path, precision = bundle.onnx_path, "fp32"
    if PRECISIONS.get(device.precision).is_of_data:
        path, precision = bundle.file(device.precision), device.precision
        if not path.is_file():
            raise ExportError(
                f"a bundle must have a file in {precision} for '{device.name}', which runs {precision}, but '{bundle.folder}' has none; "
                f"write it with: ofa export {bundle.folder} --to onnx --precision {precision} --data IMAGES"
            )
    return Subject(
        name=str(bundle.folder),
        network=bundle.network(),
        channels=bundle.input_shape[1],
        resolution=bundle.arch.resolution,
        promise=promise,
        budget_ms=budget_ms,
        # The shipped file itself is timed. Only a float32 file of another batch size than the device's is exported again.
        onnx_path=path if precision != "fp32" or batch_of(path) in (None, device.batch) else None,
        precision=precision,
    )


def _may_note(card: Card, device: str, *, overwrite: bool = False) -> bool:
    """Whether a measurement may go on a card: the card is of no other device, and has no measurement or one that may be replaced."""
    return card.device in (None, device) and (card.measured_ms is None or overwrite)


@contextmanager
def noting(bundle: Bundle, device: str, *, overwrite: bool = False) -> Iterator[None]:
    """Hold the bundle's write lock from the measurement until it is written to the card, if it may be written.

    Raises:
        FileError: another process writes the bundle.
    """
    with writing(bundle.folder, "verifying a bundle") if _may_note(bundle.card, device, overwrite=overwrite) else nullcontext():
        yield


def note_on_card(bundle: Bundle, found: Verification, *, overwrite: bool = False) -> bool:
    """Write a measured latency to a bundle's card, unless the card has a measurement or is of another device.

    Args:
        bundle: the verified bundle.
        found: its verification.
        overwrite: whether to replace a measurement that is already on the card.

    Returns:
        Whether the card was written.

    Raises:
        FileError: the card cannot be written, or another process writes the bundle.
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
    """The settings under which a card's promise holds, if the device of that name has other settings now; otherwise None."""
    if card.conditions is None or card.device != device.name:
        return None
    promised = Conditions.from_json(card.conditions)
    return None if promised.has_settings_of(Conditions.of(device)) else promised
