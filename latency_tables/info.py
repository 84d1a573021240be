"""Metadata of a latency table: device, spaces, and calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from devices.conditions import Conditions
from devices.device import Device
from latency_tables.correction import Correction
from ofa.arch import Arch
from ofa.errors import SchemaError, TableError
from ofa.families import space_argument, stored_space, whole_of
from ofa.resolution import Resolution, ascending, resolutions_to_json
from ofa.schema import parse
from ofa.space import Space
from ofa.version import __version__

__all__ = ["LONGEST_MS", "Estimated", "MeasuredNetwork", "PublishedFile", "TableInfo"]

LONGEST_MS = 1e12
"""Upper limit of a latency, so that sums stay finite."""

_SAME_DEVICE = ("name", "runtime", "threads", "pin", "precision", "batch", "pause_ms", "options")
_BEFORE_PAUSES = {"pause_ms": 0.0}
"""Defaults of device fields that files of versions before pauses lack."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A whole network and its measured latency.

    Raises:
        SchemaError: the latency is out of range.
    """

    arch: Arch
    measured_ms: float

    def __post_init__(self) -> None:
        if not 0 < self.measured_ms < LONGEST_MS:
            raise SchemaError(f"'measured_ms' of a network must be above 0 and below {LONGEST_MS:g}, but is {self.measured_ms:g}")


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """Method by which the rows of a table were estimated without timing its blocks.

    Attributes:
        by: ``networks`` or ``transfer``.
        nets: number of networks that they were estimated from.
        shrinkage: strength of the shrinkage of the places' costs to common ones.
        source: for a transfer, the source table: ``file``, ``device``, ``date``, ``estimated``.
        times_source: factor on the source table's latencies.
        shares: mean share of a network's latency by term.
    """

    by: str
    nets: int
    shrinkage: float | None = None
    source: Mapping[str, Any] | None = None
    times_source: float | None = None
    shares: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A published file that a table was read from, and its image size."""

    name: str
    sha256: str
    resolution: int | str


@dataclass(frozen=True, kw_only=True)
class TableInfo:
    """Metadata of latencies on one device: of a table, or of networks that are timed one by one.

    Attributes:
        device: the fields of the device's file; at least ``name``, ``batch`` and ``precision``.
        runtime_version: version of the runtime that executes networks.
        processor, gpu, cores, clock_policy, load, platform, python_version, date: as of ``devices.describe``; None if not known.
        ofa_version: version of ofa that measured.
        source: ``measured`` if networks are timed one by one, without a table.
        spaces: resolutions by name of the space, as JSON values (``224``, ``"224x160"``).
        definitions: the spaces by name (``Space.to_json``); empty in tables of earlier versions.
        failed: reasons why blocks could not be measured, by description of the block.
        calibration: correction from sums of blocks to networks; None if the table is not calibrated.
        networks: the networks of the calibration.
        processes: number of processes that timed these networks.
        calibrated_with: version of the runtime at the calibration.
        estimated: method of the estimate, if the rows were estimated without timing blocks; None for measured rows.
        sources: published files that it was read from.
        note: further remarks.
        conditions: measurement conditions of its latencies, from the device.

    Raises:
        SchemaError: the device has no name, batch or precision.
    """

    device: Mapping[str, Any]
    runtime_version: str | None
    processor: str | None = None
    gpu: str | None = None
    cores: int | None = None
    clock_policy: str | None = None
    load: float | None = None
    platform: str | None = None
    python_version: str | None = None
    date: str | None = None
    ofa_version: str | None = None
    source: str | None = None
    spaces: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    definitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    calibration: Correction | None = None
    networks: tuple[MeasuredNetwork, ...] = ()
    processes: int | None = None
    calibrated_with: str | None = None
    estimated: Estimated | None = None
    sources: tuple[PublishedFile, ...] = ()
    note: str | None = None
    conditions: Conditions = field(init=False)

    def __post_init__(self) -> None:
        for name, kind in (("name", str), ("batch", int), ("precision", str)):
            if not isinstance(self.device.get(name), kind):
                raise SchemaError(f"'device' must have a {name}, but has {self.device.get(name)!r}")
        object.__setattr__(self, "conditions", Conditions.of_fields(self.device, runtime_version=self.runtime_version))

    @classmethod
    def of_origin(cls, origin: Mapping[str, Any]) -> TableInfo:
        """Metadata of measurements that are about to be made.

        Args:
            origin: origin as of ``devices.describe``; names the device, its batch and its precision.

        Raises:
            TableError: ``origin`` names no device, batch or precision.
        """
        try:
            return parse(cls, {"ofa_version": __version__, **origin})
        except SchemaError as error:
            raise TableError(f"an origin must name the measured device, but {error}; give the result of devices.describe") from error

    @property
    def device_name(self) -> str:
        """Name of the device."""
        return str(self.device["name"])

    def of_device(self, device: Device, called: str) -> None:
        """Check that the latencies are of this device with the same settings.

        Args:
            device: the device that they are used with.
            called: words for the table.

        Raises:
            TableError: they are of another device, or of other settings.
        """
        ours, known = device.to_json(), {**_BEFORE_PAUSES, **self.device}
        for key in _SAME_DEVICE:
            if known.get(key) != ours[key]:
                raise TableError(
                    f"a table must be of the device that it is used with, but the {key} of {called} is {known.get(key)!r} and of "
                    f"device '{device.name}' {ours[key]!r}; name the table's device, or build a table of this one"
                )

    def with_space(self, space: Space, resolutions: Iterable[Resolution]) -> TableInfo:
        """A copy with a space at further resolutions.

        Raises:
            TableError: it has another space of this name.
        """
        self.check_same(space, "the table")
        sizes = ascending([*self.spaces.get(space.name, ()), *resolutions])
        return replace(
            self,
            spaces={**self.spaces, space.name: tuple(resolutions_to_json(sizes))},
            definitions={**self.definitions, space.name: whole_of(space).to_json()},
        )

    def resolutions_of(self, name: str) -> tuple[Resolution, ...]:
        """The resolutions of a space; empty if it lacks the space."""
        return ascending(self.spaces.get(name, ()))

    def space_of(self, name: str, num_classes: int | None = None) -> Space:
        """The space of that name: the stored one, or in tables of earlier versions the space of ofa. No module is imported for it.

        Raises:
            SpaceError: the space is unknown here, or its class has not been imported.
        """
        return stored_space(self.definitions.get(name), name, num_classes, "a latency table")

    def check_same(self, space: Space, called: str) -> None:
        """Check that the stored space of this name, if any, is the same except for the number of classes.

        Args:
            space: the space.
            called: words for the table.

        Raises:
            TableError: the stored space is another one.
        """
        value = self.definitions.get(space.name)
        if value is None:
            return
        known = value.get("family") == space.to_json()["family"]
        if not known or not space.is_part_of(Space.from_json(value, called), any_classes=True):
            raise TableError(
                f"a table must be of the space it is used for, but {called} is of another space that is called {space.name} too; "
                f"build one with: ofa table build --space {space_argument(space)}, and give spaces names of their own"
            )
