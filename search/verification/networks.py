"""Verification of networks: export, comparison with PyTorch, timing on the device, and scores on images there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices import Conditions, Device, Timing, TimingPolicy, describe, time_models
from latency_tables.timing import timing_inputs
from ofa.errors import SearchError
from ofa.exporting.formats import ONNX, write_file
from ofa.exporting.onnx import at_batch, read_model, to_model, verify_outputs
from ofa.exporting.precision import PRECISIONS
from ofa.files import temporary_folder
from ofa.journal import UNKEPT, Steps, digest_of
from ofa.progress import Progress, silent
from ofa.reading.models import read_model_bytes
from ofa.resolution import sides
from ofa.training.evaluation import digest_of_images, digest_of_labels
from search.verification.judging import Judged, judge
from search.verification.verdict import Asked, Subject, Verification

__all__ = ["part_of", "verify"]


def verify(
    subjects: Sequence[Subject],
    device: Device,
    *,
    rng: np.random.Generator,
    policy: TimingPolicy | None = None,
    processes: int = 5,
    pause_ms: float | None = None,
    progress: Progress = silent,
    steps: Steps = UNKEPT,
) -> tuple[Verification, ...]:
    """Export networks in the device's precision, compare them with PyTorch, and time them on the device in interleaved rounds.

    Networks with images are also scored on them, by the same file.

    Memory layout differs between processes, and a machine slows down for seconds at a time; both outlast the rounds of one
    measurement. So each network is measured in several processes, and the median process counts.

    Args:
        subjects: the networks.
        device: the device that times them, with its batch size; a dynamic batch dimension of a file is set to it.
        rng: draws the random inputs and the order of measurement.
        policy: stopping rule of a measurement; None for the default of ``devices``.
        processes: number of measurements, each in a process of its own.
        pause_ms: if given, as many measurements again with a pause of so many milliseconds before each call.
        progress: receives the progress of the measurements.
        steps: journal that keeps each measurement, and the scores of each network.

    Returns:
        One verification for each subject, in their order.

    Raises:
        FileError: ``steps`` are of other inputs.
        ExportError: a network cannot be exported, its file's output differs from PyTorch's, or is infinite or NaN.
        DataError: none of a network's images can be read.
        DeviceError: the device cannot time or run a network, or cannot make such pauses.
        SearchError: no subjects, two subjects of one name, or ``processes`` below 1.
    """
    _check(subjects, processes)
    paces = [_Pace(device)] if pause_ms is None else [_Pace(device), _Pace(replace(device, pause_ms=pause_ms), "with pauses, ")]
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    with temporary_folder("verify") as folder:
        written = {subject.name: _write(subject, device, Path(folder), generator) for subject in subjects}
        origin = describe(device)
        steps.begin({**timing_inputs(origin, (), policy), **_inputs(subjects, written, pause_ms)})
        judges = [subject for subject in subjects if subject.data is not None]
        parts = [part_of(progress, number, len(paces) * processes + len(judges)) for number in range(len(paces) * processes + len(judges))]
        models = {name: file.model for name, file in written.items()}
        timings = [pace.time(models, rng, policy, [parts.pop(0) for _ in range(processes)], steps) for pace in paces]
        judged = {each.name: _judged(each, device, models[each.name], parts.pop(0), steps) for each in judges}
    return tuple(
        Verification(
            **Asked.values(subject),
            name=name,
            device=device.name,
            timing=timings[0][name],
            pause_ms=pause_ms,
            paused=None if pause_ms is None else timings[1][name],
            difference=file.difference,
            file_bytes=file.bytes,
            judged=judged.get(name),
            conditions=Conditions.of(device, runtime_version=origin["runtime_version"], input_shape=file.shape),
        )
        for subject, (name, file) in zip(subjects, written.items(), strict=True)
    )


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """The progress of one of several equal measurements.

    Args:
        progress: receives the progress of all of them.
        number: index of this measurement, from 0.
        count: number of measurements.
    """

    def report(done: int, total: int, text: str = "") -> None:
        progress(number * total + done, count * total, text)

    return report


def _check(subjects: Sequence[Subject], processes: int) -> None:
    if processes < 1:
        raise SearchError(f"a verification needs at least 1 measurement, but processes is {processes}; the default is 5")
    if not subjects or len({subject.name for subject in subjects}) < len(subjects):
        names = [subject.name for subject in subjects]
        raise SearchError(f"networks to verify need names of their own, but are called {names}; give at least one, and each another name")


@dataclass(frozen=True, kw_only=True)
class _Written:
    """A subject's file in the format of the device's runtime, the ONNX file's input, and its output's difference from PyTorch's."""

    model: Path
    digest: str
    bytes: int
    shape: tuple[int, int, int, int]
    difference: float


def _write(subject: Subject, device: Device, folder: Path, generator: torch.Generator) -> _Written:
    """Write a subject's file in the device's precision, as its table's blocks were timed, and check it."""
    path, shape = _file(subject, device, folder)
    tolerance = PRECISIONS.get(device.precision).tolerance
    difference = verify_outputs(subject.network, path, shape, generator=generator, tolerance=tolerance)
    content = read_model_bytes(path)
    model = write_file(content, folder, device.format)
    return _Written(model=model, digest=digest_of(content), bytes=model.stat().st_size, shape=shape, difference=difference)


def _file(subject: Subject, device: Device, folder: Path) -> tuple[Path, tuple[int, int, int, int]]:
    """The subject's ONNX file in the device's precision, and the shape of its input."""
    shape = (device.batch, subject.channels, *sides(subject.resolution))
    source = subject.onnx_path
    model = to_model(subject.network, shape, opset=device.opset) if source is None else read_model(source)
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value not in (0, device.batch):
        model = at_batch(model, device.batch)  # a file that was calibrated on images cannot be exported again here
    elif source is not None and subject.precision == device.precision:
        return source, shape  # the shipped file itself
    written = model if subject.precision == device.precision else PRECISIONS.get(device.precision).of(model)
    return write_file(written.SerializeToString(), folder, ONNX), shape


def _inputs(subjects: Sequence[Subject], written: Mapping[str, _Written], pause_ms: float | None) -> dict[str, Any]:
    """The inputs that the journal's steps depend on, beside the device."""
    sets = {each.name: each.data for each in subjects if each.data is not None}
    images = {name: f"{digest_of_images(data)} {digest_of_labels(data)}" for name, data in sets.items()}
    return {
        "files": {name: file.digest for name, file in written.items()},
        **({"pause_ms": pause_ms} if pause_ms is not None else {}),
        **({"images": images} if images else {}),
    }


@dataclass(frozen=True)
class _Pace:
    """A device with or without pauses between calls, and the prefix of its step names."""

    device: Device
    words: str = ""

    def time(
        self, models: Mapping[str, Path], rng: np.random.Generator, policy: TimingPolicy | None, parts: Sequence[Progress], steps: Steps
    ) -> dict[str, Timing]:
        """Time networks in one process for each of ``parts``; of each network the median process counts."""
        runs = [
            steps.once(
                f"{self.words}process {number + 1} of {len(parts)}",
                partial(time_models, self.device, models, rng=rng, policy=policy, progress=part),
                Mapping[str, Timing],
                rng=rng,
            )
            for number, part in enumerate(parts)
        ]
        return {name: sorted((run[name] for run in runs), key=lambda timing: timing.median_ms)[len(parts) // 2] for name in models}


def _judged(subject: Subject, device: Device, path: Path, progress: Progress, steps: Steps) -> Judged:
    assert subject.data is not None
    about: dict[str, Any] = {"name": subject.name, "resolution": subject.resolution, "task": subject.task, "progress": progress}
    return steps.once(f"images of {subject.name}", partial(judge, subject.network, device, path, subject.data, **about), Judged)
