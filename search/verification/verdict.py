"""A network that is to be verified, and what came of it: promises and budgets beside what was measured."""

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
    """What was said of a network, and what is asked of it; None is nothing.

    Attributes:
        promise: its latency on the device.
        promised_accuracy: its score.
        promised_error: the standard error of that, by the images that it was measured on; 0 if that is not known.
        budget_ms: the most that it may take.
        least_accuracy: the least score that it may have on images.
        most_bytes: the most that its file may have.
    """

    promise: Latency | None = None
    promised_accuracy: float | None = None
    promised_error: float = 0.0
    budget_ms: float | None = None
    least_accuracy: float | None = None
    most_bytes: int | None = None

    @classmethod
    def values(cls, asked: Asked) -> dict[str, Any]:
        """The attributes of one, by their names."""
        return {each.name: getattr(asked, each.name) for each in fields(cls)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject(Asked):
    """A network to verify.

    Attributes:
        name: for the answer; different for each.
        network: the PyTorch network, of which the ONNX file must compute the same.
        channels, resolution: of its input images.
        data: images that it is judged on, of its classes and normalized as it takes them; None judges it on none.
        task: what it is for.
        onnx_path: its ONNX file; None to export it for the time of the measurement.
        precision: of that file: the device's, or float32.
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
    """What came of a network on the device.

    Attributes:
        name: of the subject.
        device: name of the device.
        timing: what was measured.
        pause_ms, paused: pauses before each call of another measurement, and that; None if there was none.
        difference: largest one between the ONNX file's output and PyTorch's on noise, as a share of the output's scale.
        file_bytes: size of the file that was timed.
        judged: what it answers on images; None without images.
        conditions: what was measured under; None is not known.
        promised_under: what the promise holds under, as JSON values; None is not known.
        noted: whether the measurement is on a bundle's card now.
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
        """Whether the measured median is in the promised interval; None if there is none."""
        return None if self.promise is None else self.promise.holds(self.timing.median_ms)

    @property
    def within_budget(self) -> bool | None:
        """Whether the measured median keeps the budget; None if there is none."""
        return None if self.budget_ms is None else self.timing.median_ms <= self.budget_ms

    @property
    def within_bytes(self) -> bool | None:
        """Whether the file is as small as was asked; None if nothing was."""
        return None if self.most_bytes is None else self.file_bytes <= self.most_bytes

    @property
    def accurate_enough(self) -> bool | None:
        """Whether the score on the device is as high as was asked; None if nothing was, or without images."""
        return None if self.judged is None or self.least_accuracy is None else self.judged.score >= self.least_accuracy

    @property
    def accuracy_holds(self) -> bool | None:
        """Whether score and promised accuracy are as near as they are in 90 % of cases on so many images; None if that is not known."""
        if self.judged is None or self.judged.standard_error is None or self.promised_accuracy is None:
            return None
        return abs(self.judged.score - self.promised_accuracy) <= reach_of(self.judged.standard_error, self.promised_error)

    @property
    def error(self) -> float | None:
        """How far the measured median is above the expected latency, as a share of it; None if nothing was promised."""
        return None if self.promise is None else self.timing.median_ms / self.promise.latency_ms - 1

    @property
    def missed(self) -> tuple[str, ...]:
        """The budgets that it misses: of ``latency``, ``accuracy`` and ``size``."""
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
