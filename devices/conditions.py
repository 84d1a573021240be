"""Measurement conditions, which are stored and shown with every latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from devices.runtimes import Settings

__all__ = ["Conditions"]

_SETTINGS = ("runtime", "threads", "precision", "batch", "pause_ms")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of timed calls. None is unknown, as in published tables.

    Attributes:
        batch: images per call.
        precision: number format of weights and activations.
        threads: threads per call.
        pause_ms: idle time before each call in ms; 0 for calls in a row.
        runtime: name of the runtime.
        runtime_version: version of the runtime.
        input_shape: input shape of one call, such as [B, C, H, W]; None if networks of several shapes were timed.
    """

    batch: int
    precision: str
    threads: int | None = None
    pause_ms: float | None = 0.0
    runtime: str | None = None
    runtime_version: str | None = None
    input_shape: tuple[int, ...] | None = None

    @classmethod
    def of(cls, settings: Settings, *, runtime_version: str | None = None, input_shape: tuple[int, ...] | None = None) -> Conditions:
        """The conditions of the ``settings`` of a device or a runtime.

        Args:
            settings: a device, or settings of a runtime.
            runtime_version: version of the runtime; None if it is unknown.
            input_shape: shape of the input without the batch; None if it differs between networks.
        """
        return cls.of_fields(settings.to_json(), runtime_version=runtime_version, input_shape=input_shape)

    @classmethod
    def of_fields(
        cls, device: Mapping[str, Any], *, runtime_version: str | None = None, input_shape: tuple[int, ...] | None = None
    ) -> Conditions:
        """The conditions of the fields of a ``device`` in a file; other arguments as of ``Conditions.of``.

        Files of earlier versions have no pause: calls were made in a row.
        """
        return cls(
            batch=device["batch"],
            precision=device["precision"],
            threads=device.get("threads"),
            pause_ms=device.get("pause_ms", 0.0),
            runtime=device.get("runtime"),
            runtime_version=runtime_version,
            input_shape=input_shape,
        )

    @property
    def words(self) -> str:
        """The conditions in words, such as ``batch 1, fp32, 1 thread, calls in a row, onnxruntime 1.20.0``."""
        images = f"batch {self.batch}" if self.input_shape is None else " x ".join(map(str, self.input_shape))
        threads = "threads unknown" if self.threads is None else f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        by = " ".join(filter(None, [self.runtime, self.runtime_version]))
        return ", ".join(filter(None, [images, self.precision, threads, self._pace, by]))

    @property
    def _pace(self) -> str:
        if self.pause_ms is None:
            return "pauses unknown"
        return f"{self.pause_ms:g} ms of pause before each call" if self.pause_ms else "calls in a row"

    def differences(self, other: Conditions) -> tuple[str, ...]:
        """Differences to other conditions, such as ``pause_ms 0 and 20``; versions and input shapes are compared if both are known."""
        names = [*_SETTINGS]
        names += [name for name in ("runtime_version", "input_shape") if None not in (getattr(self, name), getattr(other, name))]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return tuple(f"{name} {_text(mine)} and {_text(theirs)}" for name, mine, theirs in pairs if mine != theirs)

    def has_settings_of(self, other: Conditions) -> bool:
        """Whether all settings are equal, so that latencies are comparable; versions and input shapes may differ."""
        return all(getattr(self, name) == getattr(other, name) for name in _SETTINGS)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {**asdict(self), "input_shape": None if self.input_shape is None else list(self.input_shape)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Conditions:
        """Read what ``to_json`` wrote."""
        shape = fields.get("input_shape")
        return cls(**{**fields, "input_shape": None if shape is None else tuple(shape)})


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
