"""A network to verify, and the result: measurements beside promises and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from devices import Conditions, Timing
from ofa.data import Images
from ofa.latency import LATENCIES, Latency
from ofa.resolution import Resolution
from ofa.tasks import CLASSIFICATION, Task
from search.accuracy import reach_of
from search.verification.judging import Judged

__all__ = ["Asked", "Subject", "Verification"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Promises and budgets of a network; None where there is none.

    Attributes:
        promise: promised latency on the device.
        promised_accuracy: promised score (0..1).
        promised_error: standard error of the promised score from its number of images; 0 if it is not known.
        budget_ms: upper limit of the latency in ms.
        least_accuracy: lowest allowed score (0..1) on images.
        most_bytes: upper limit of the file size in bytes.
    """

    promise: Latency | None = None
    promised_accuracy: float | None = None
    promised_error: float = 0.0
    budget_ms: float | None = None
    least_accuracy: float | None = None
    most_bytes: int | None = None

    @classmethod
    def values(cls, asked: Asked) -> dict[str, Any]:
        """The values of these attributes by name."""
        return {each.name: getattr(asked, each.name) for each in fields(cls)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject(Asked):
    """A network to verify.

    Attributes:
        name: name in the result; unique among the subjects.
        network: the PyTorch network; the ONNX file must compute the same.
        channels, resolution: channels and resolution (pixels) of its input images.
        data: images to score it on, of its classes and normalized as it expects them; None skips the scores.
        task: its task.
        onnx_path: its ONNX file; None exports a temporary one.
        precision: precision of that file: the device's, or float32.
    """

    name: str
    network: nn.Module
    channels: int
    resolution: Resolution
    data: Images | None = None
    task: Task = CLASSIFICATION
    onnx_path: Path | None = None
    precision: str = "fp32"


@dataclass(frozen=True, kw_only=True)
class Verification(Asked):
    """Measurements of a network on the device, beside its promises and budgets.

    Attributes:
        name: name of the subject.
        device: name of the device.
        timing: the measured latency.
        pause_ms, paused: pause before each call in ms, and the latency with these pauses; None without such a measurement.
        difference: largest difference between the outputs of ONNX file and PyTorch on noise, as a share of the output's scale.
        file_bytes: size of the timed file in bytes.
        judged: its scores on images; None without images.
        conditions: conditions of the measurement; None if not known.
        promised_under: conditions of the promise, as JSON values; None if not known.
        noted: whether the measurement was written to the bundle's card.
    """

    name: str
    device: str
    timing: Timing
    difference: float
    file_bytes: int
    pause_ms: float | None = None
    paused: Timing | None = None
    judged: Judged | None = None
    conditions: Conditions | None = None
    promised_under: Mapping[str, Any] | None = None
    noted: bool = False

    @property
    def within_interval(self) -> bool | None:
        """Whether the measured median is inside the promised interval; None without one."""
        return None if self.promise is None else self.promise.holds(self.timing.median_ms)

    @property
    def within_budget(self) -> bool | None:
        """Whether the measured median keeps the budget; None without one."""
        return None if self.budget_ms is None else self.timing.median_ms <= self.budget_ms

    @property
    def within_bytes(self) -> bool | None:
        """Whether the file keeps its size limit; None without one."""
        return None if self.most_bytes is None else self.file_bytes <= self.most_bytes

    @property
    def accurate_enough(self) -> bool | None:
        """Whether the score on the device reaches the required one; None without a required score or without images."""
        return None if self.judged is None or self.least_accuracy is None else self.judged.score >= self.least_accuracy

    @property
    def accuracy_holds(self) -> bool | None:
        """Whether score and promised accuracy agree within the 90 % interval of their difference; None if that is not known."""
        if self.judged is None or self.judged.standard_error is None or self.promised_accuracy is None:
            return None
        return abs(self.judged.score - self.promised_accuracy) <= reach_of(self.judged.standard_error, self.promised_error)

    @property
    def error(self) -> float | None:
        """Measured median over promised latency, minus 1; None without a promise."""
        return None if self.promise is None else self.timing.median_ms / self.promise.latency_ms - 1

    @property
    def missed(self) -> tuple[str, ...]:
        """The missed budgets among ``latency``, ``accuracy`` and ``size``."""
        kept = {"latency": self.within_budget, "accuracy": self.accurate_enough, "size": self.within_bytes}
        return tuple(name for name, is_kept in kept.items() if is_kept is False)

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
            "paused": None if self.paused is None else {"pause_ms": self.pause_ms, **asdict(self.paused)},
            "difference": self.difference,
            "file_bytes": self.file_bytes,
            "most_bytes": self.most_bytes,
            "within_bytes": self.within_bytes,
            "judged": None if self.judged is None else self._judged_to_json(self.judged),
            "missed": list(self.missed),
            "conditions": None if self.conditions is None else self.conditions.to_json(),
            "promised_under": self.promised_under,
            "noted": self.noted,
        }

    def _judged_to_json(self, judged: Judged) -> dict[str, Any]:
        reach = None if judged.standard_error is None else reach_of(judged.standard_error)
        return {
            **asdict(judged),
            "spread": reach,
            "score_low": None if reach is None else max(0.0, judged.score - reach),
            "score_high": None if reach is None else min(1.0, judged.score + reach),
            "promised_accuracy": self.promised_accuracy,
            "accuracy_holds": self.accuracy_holds,
            "least_accuracy": self.least_accuracy,
            "accurate_enough": self.accurate_enough,
        }
