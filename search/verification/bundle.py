"""Promised and measured: networks are exported, checked against PyTorch, and timed on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from devices import Conditions, Device, Timing, TimingPolicy, describe, time_models
from latency_tables.timing import timing_inputs
from ofa.errors import ExportError, SearchError
from ofa.exporting.bundle import Bundle
from ofa.exporting.card import Card
from ofa.exporting.formats import ONNX, write_file
from ofa.exporting.onnx import batch_of, read_model, to_model, verify_outputs
from ofa.exporting.precision import PRECISIONS
from ofa.files import temporary_folder
from ofa.journal import UNKEPT, Steps, digest_of
from ofa.latency import LATENCIES, Latency
from ofa.locking import writing
from ofa.progress import Progress, silent
from ofa.reading.models import read_model_bytes
from ofa.resolution import Resolution, sides

__all__ = ["Subject", "Verification", "note_on_card", "noting", "other_settings", "part_of", "subject_of_bundle", "verify"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A network to verify.

    Attributes:
        name: for the answer; different for each.
        network: the PyTorch network, of which the ONNX file must compute the same.
        channels, resolution: of its input images.
        promise: what was said of it on the device; None if nothing was.
        budget_ms: the most that it may take; None if nothing was asked.
        onnx_path: its ONNX file; None to export it for the time of the measurement.
        precision: of that file: the device's, or float32.
    """

    name: str
    network: nn.Module
    channels: int
    resolution: Resolution
    promise: Latency | None = None
    budget_ms: float | None = None
    onnx_path: Path | None = None
    precision: str = "fp32"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came of a network on the device.

    Attributes:
        name: of the subject.
        device: name of the device.
        promise: what was said of it.
        budget_ms: the most that it may take.
        timing: what was measured.
        difference: largest one between the ONNX file's output and PyTorch's, as a share of the output's scale.
        conditions: what was measured under; None is not known.
    """

    name: str
    device: str
    promise: Latency | None
    budget_ms: float | None
    timing: Timing
    difference: float
    conditions: Conditions | None = None

    @property
    def within_interval(self) -> bool | None:
        """Whether the measured median is in the promised interval; None if there is none."""
        return None if self.promise is None else self.promise.holds(self.timing.median_ms)

    @property
    def within_budget(self) -> bool | None:
        """Whether the measured median keeps the budget; None if there is none."""
        return None if self.budget_ms is None else self.timing.median_ms <= self.budget_ms

    @property
    def error(self) -> float | None:
        """How far the measured median is above the expected latency, as a share of it; None if nothing was promised."""
        return None if self.promise is None else self.timing.median_ms / self.promise.latency_ms - 1

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        promise = dict.fromkeys(LATENCIES) if self.promise is None else self.promise.to_json()
        return {
            "name": self.name,
            "device": self.device,
            **promise,
            "budget_ms": self.budget_ms,
            "measured_ms": self.timing.median_ms,
            "timing": asdict(self.timing),
            "error": self.error,
            "within_interval": self.within_interval,
            "within_budget": self.within_budget,
            "difference": self.difference,
            "conditions": None if self.conditions is None else self.conditions.to_json(),
        }


def verify(
    subjects: Sequence[Subject],
    device: Device,
    *,
    rng: np.random.Generator,
    policy: TimingPolicy | None = None,
    processes: int = 5,
    progress: Progress = silent,
    steps: Steps = UNKEPT,
) -> tuple[Verification, ...]:
    """Export in the device's precision, compare with PyTorch, and time networks on a device, all of them in interleaved rounds.

    A process finds its memory where it happens to be, and a machine is slower for seconds at a time; both last longer than the
    rounds of one measurement. So there are several, each in a process of its own, and of each network the middle one counts.

    Args:
        subjects: the networks.
        device: where they are timed, with the device's batch; an open batch of a file becomes that.
        rng: random inputs, and the order of measurement.
        policy: when a measurement is enough; the device room's default if None.
        processes: how many measurements.
        progress: told how far the measurements are.
        steps: keeps each measurement.

    Returns:
        One answer a subject, in their order.

    Raises:
        FileError: ``steps`` are of other inputs.
        ExportError: a network cannot be exported, or its file computes something else.
        DeviceError: the device cannot measure it.
        SearchError: two subjects of one name, none at all, or no measurement.
    """
    if processes < 1:
        raise SearchError(f"a verification needs at least 1 measurement, but processes is {processes}; the default is 5")
    if not subjects or len({subject.name for subject in subjects}) < len(subjects):
        names = [subject.name for subject in subjects]
        raise SearchError(f"networks to verify need names of their own, but are called {names}; give at least one, and each another name")
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    with temporary_folder("verify") as folder:
        pairs = [(subject, *_file(subject, device, folder)) for subject in subjects]
        tolerance = PRECISIONS.get(device.precision).tolerance
        differences = [
            verify_outputs(subject.network, path, shape, generator=generator, tolerance=tolerance) for subject, path, shape in pairs
        ]
        contents = {subject.name: read_model_bytes(path) for subject, path, _ in pairs}
        models = {name: write_file(content, Path(folder), device.format) for name, content in contents.items()}
        origin = describe(device)
        files = {name: digest_of(content) for name, content in contents.items()}
        steps.begin({**timing_inputs(origin, (), policy), "files": files})
        runs = [
            steps.once(
                f"process {number + 1} of {processes}",
                partial(time_models, device, models, rng=rng, policy=policy, progress=part_of(progress, number, processes)),
                Mapping[str, Timing],
                rng=rng,
            )
            for number in range(processes)
        ]
    return tuple(
        Verification(
            name=each.name,
            device=device.name,
            promise=each.promise,
            budget_ms=each.budget_ms,
            timing=sorted((run[each.name] for run in runs), key=lambda timing: timing.median_ms)[processes // 2],
            difference=difference,
            conditions=Conditions.of(device, runtime_version=origin["runtime_version"], input_shape=shape),
        )
        for (each, _, shape), difference in zip(pairs, differences, strict=True)
    )


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """The progress of one of several measurements that are alike.

    Args:
        progress: of all of them.
        number: of this one, from 0.
        count: of all.
    """

    def report(done: int, total: int, text: str = "") -> None:
        progress(number * total + done, count * total, text)

    return report


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
        # What ships is what is timed, unless the device takes another number of images at once than the file.
        onnx_path=path if batch_of(path) in (None, device.batch) else None,
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


def _file(subject: Subject, device: Device, folder: Path) -> tuple[Path, tuple[int, int, int, int]]:
    """The subject's ONNX file in the device's precision, as its table's blocks were timed, and the shape of its input."""
    shape = (device.batch, subject.channels, *sides(subject.resolution))
    source = subject.onnx_path
    model = to_model(subject.network, shape, opset=device.opset) if source is None else read_model(source)
    written = model if subject.precision == device.precision else PRECISIONS.get(device.precision).of(model)
    return write_file(written.SerializeToString(), folder, ONNX), shape
