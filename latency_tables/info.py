"""What is known of a latency table: where it was measured, of which spaces, and what whole networks taught."""

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
"""What nobody has waited for; sums over such times stay numbers."""

_SAME_DEVICE = ("name", "runtime", "threads", "pin", "precision", "batch", "pause_ms", "options")
_BEFORE_PAUSES = {"pause_ms": 0.0}
"""What files say of a device that were written before it could have pauses."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A whole network and what it took.

    Raises:
        SchemaError: no network takes that.
    """

    arch: Arch
    measured_ms: float

    def __post_init__(self) -> None:
        if not 0 < self.measured_ms < LONGEST_MS:
            raise SchemaError(f"'measured_ms' of a network must be above 0 and below {LONGEST_MS:g}, but is {self.measured_ms:g}")


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """How the rows of a table of blocks that nobody timed were estimated.

    Attributes:
        by: ``networks`` or ``transfer``.
        nets: networks that they were estimated from.
        shrinkage: how strongly the costs of places were drawn to common ones.
        source: of a transfer, the other table: ``file``, ``device``, ``date``, ``estimated``.
        times_source: the factor of what that table says.
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
    """A file of others that a table was read from, and the resolution that it is of."""

    name: str
    sha256: str
    resolution: int | str


@dataclass(frozen=True, kw_only=True)
class TableInfo:
    """What is known of the latencies of one device: of a table, or of networks that are timed one by one.

    Attributes:
        device: the fields of its file; ``name``, ``batch`` and ``precision`` at least.
        runtime_version: of what executes there.
        processor, gpu, cores, clock_policy, load, platform, python_version, date: as ``devices.describe`` tells; None is not known.
        ofa_version: the version that measured.
        source: ``measured`` where networks are timed one by one, without a table.
        spaces: resolutions by name of the space, as JSON has them (``224``, ``"224x160"``).
        definitions: the spaces themselves by name (``Space.to_json``); not in tables of earlier versions.
        failed: why a block could not be measured, by its description.
        calibration: from sums of blocks to networks; None if the table is not calibrated.
        networks: those that it was calibrated by.
        processes: in how many they were timed.
        calibrated_with: version of the runtime at that time.
        estimated: how rows were estimated that nobody timed; None if they were measured.
        sources: the files of others that it was read from.
        note: what else is to be known of it.
        conditions: what its latencies hold under, going by the device.

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
        """Where measurements are made, without any yet.

        Args:
            origin: as ``devices.describe`` gives it; names the device, its batch and its precision.

        Raises:
            TableError: it does not.
        """
        try:
            return parse(cls, {"ofa_version": __version__, **origin})
        except SchemaError as error:
            raise TableError(f"an origin must say where networks were measured, but {error}; give that of devices.describe") from error

    @property
    def device_name(self) -> str:
        """Name of the device."""
        return str(self.device["name"])

    def of_device(self, device: Device, called: str) -> None:
        """Check that latencies are of this very device, settings included.

        Args:
            device: the one that they are used with.
            called: words for the table.

        Raises:
            TableError: they are of another, or of other settings.
        """
        ours, known = device.to_json(), {**_BEFORE_PAUSES, **self.device}
        for key in _SAME_DEVICE:
            if known.get(key) != ours[key]:
                raise TableError(
                    f"a table must be of the device that it is used with, but the {key} of {called} is {known.get(key)!r} and of "
                    f"device '{device.name}' {ours[key]!r}; name the table's device, or build a table of this one"
                )

    def with_space(self, space: Space, resolutions: Iterable[Resolution]) -> TableInfo:
        """The same with a space at further resolutions.

        Raises:
            TableError: it is of another space of this name.
        """
        self.check_same(space, "the table")
        sizes = ascending([*self.spaces.get(space.name, ()), *resolutions])
        return replace(
            self,
            spaces={**self.spaces, space.name: tuple(resolutions_to_json(sizes))},
            definitions={**self.definitions, space.name: whole_of(space).to_json()},
        )

    def resolutions_of(self, name: str) -> tuple[Resolution, ...]:
        """The resolutions of a space; none if it is not of that space."""
        return ascending(self.spaces.get(name, ()))

    def space_of(self, name: str, num_classes: int | None = None) -> Space:
        """The space of that name as it is carried, or in tables of earlier versions the one of ofa; nothing is imported.

        Raises:
            SpaceError: it is unknown here, or of a class that has not been imported.
        """
        return stored_space(self.definitions.get(name), name, num_classes, "a latency table")

    def check_same(self, space: Space, called: str) -> None:
        """Check that what ``called`` carries under the name of a space is no other space; the numbers of classes may differ.

        Raises:
            TableError: it is another.
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
