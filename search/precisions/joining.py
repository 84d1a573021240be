"""Detects tables of one device in several precisions, and makes precision a gene of the search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from latency_tables.info import TableInfo
from ofa.errors import SearchError
from ofa.exporting.precision import PRECISIONS
from ofa.space import Space
from search.accuracy import AccuracySource
from search.latency import LatencySource
from search.precisions.sources import AccuracyByPrecision, LatencyByPrecision, LossSource
from search.precisions.space import over_precisions

__all__ = ["Joined", "joined", "same_device"]

_OF_THE_FILE = ("name", "precision", "description", "status")
"""Settings that may differ between the device files of one device's precisions."""
_OF_THE_MACHINE = ("processor", "gpu", "cores", "platform")
_MAKE_LOSSES = "ofa predictor quantization RUN --precision"


@dataclass(frozen=True, eq=False, kw_only=True)
class Joined:
    """The parts of a ``Problem`` that change if precision is a gene.

    Attributes:
        space: the searched space, over precisions if there are several.
        accuracy: accuracies of its networks.
        latencies: one source per device.
    """

    space: Space
    accuracy: AccuracySource
    latencies: tuple[LatencySource, ...]


def same_device(one: TableInfo, other: TableInfo) -> bool:
    """Whether two tables are of the same machine and settings except the precision, by their device files and reported hardware."""
    files = [{key: value for key, value in info.device.items() if key not in _OF_THE_FILE} for info in (one, other)]
    machines = [(getattr(one, name), getattr(other, name)) for name in _OF_THE_MACHINE]
    return "transport" in files[0] and files[0] == files[1] and all(mine == theirs or None in (mine, theirs) for mine, theirs in machines)


def joined(space: Space, accuracy: AccuracySource, latencies: Sequence[LatencySource], losses: Sequence[LossSource] = ()) -> Joined:
    """Make precision a gene if every device has tables in the same several precisions, or if losses are given for its only precision.

    Args:
        space: the searched space.
        accuracy: accuracies of networks in float32.
        latencies: one source per table. Tables of different machines, and two tables of one precision, stay separate devices.
        losses: losses of precisions whose files are calibrated on images, one source per precision.

    Returns:
        The changed space and sources; the given ones if precision does not become a gene.

    Raises:
        SearchError: losses are missing, are of a precision without a table, or of another space; devices have tables in different
            precisions; two tables have the same device name; or a device with a table is also measured network by network.
    """
    if len(latencies) < 2 and not losses:
        return Joined(space=space, accuracy=accuracy, latencies=tuple(latencies))
    groups = _groups(latencies)
    known = _by_precision(losses)
    several = [group for group in groups if len(group) > 1]
    if not several and not known:
        return Joined(space=space, accuracy=accuracy, latencies=tuple(latencies))
    precisions = tuple(dict.fromkeys(name for group in groups for name in group))
    _check_groups(groups, precisions)
    _check_losses(space, precisions, known)
    over = over_precisions(space, precisions)
    return Joined(
        space=over,
        accuracy=AccuracyByPrecision(space=over, accuracy=accuracy, losses=known),
        latencies=tuple(LatencyByPrecision(space=over, sources={name: group[name] for name in over.precisions}) for group in groups),
    )


def _groups(latencies: Sequence[LatencySource]) -> list[dict[str, LatencySource]]:
    """The sources of each device by precision, in their order."""
    groups: list[list[LatencySource]] = []
    for source in latencies:
        of_device = next((group for group in groups if same_device(group[0].info, source.info)), None)
        if of_device is None:
            groups.append([source])
        else:
            of_device.append(source)
    found: list[dict[str, LatencySource]] = []
    for group in groups:
        by_precision = {_precision(source): source for source in group}
        # Two tables in the same precision are ambiguous for a gene, so all tables of this device stay separate.
        found += [by_precision] if len(by_precision) == len(group) else [{_precision(source): source} for source in group]
    return found


def _precision(source: LatencySource) -> str:
    return source.info.conditions.precision


def _by_precision(losses: Iterable[LossSource]) -> dict[str, LossSource]:
    found: dict[str, LossSource] = {}
    for each in losses:
        if each.precision in found:
            raise SearchError(f"losses must come once per precision, but two are of {each.precision}; leave one of them out")
        found[each.precision] = each
    return found


def _check_groups(groups: Sequence[Mapping[str, LatencySource]], precisions: Sequence[str]) -> None:
    names = [source.device_name for group in groups for source in group.values()]
    if len(set(names)) < len(names):
        raise SearchError(
            f"each device must come once, but they are {', '.join(names)}; name a device's file differently for each of its precisions"
        )
    for group in groups:
        lacking = [name for name in precisions if name not in group]
        if lacking:
            device = next(iter(group.values())).device_name
            raise SearchError(
                f"each device of a search over precisions must have a table in each of {', '.join(precisions)}, but {device} has none in "
                f"{lacking[0]}; build it, or search these devices separately"
            )
        measured = next((source for source in group.values() if source.is_measured), None)
        if measured is not None and len(precisions) > 1:
            raise SearchError(
                f"a search over precisions takes latencies from tables, but networks are timed one by one on {measured.device_name}; build "
                f"its table with: ofa table build --device {measured.device_name}"
            )


def _check_losses(space: Space, precisions: Sequence[str], losses: Mapping[str, LossSource]) -> None:
    for name in precisions:
        if name not in losses and PRECISIONS.get(name).is_of_data:
            raise SearchError(
                f"a search over precisions needs the accuracy losses of {name}, but has none; measure some with: "
                f"{_MAKE_LOSSES} {name} -o {name}.losses, and give them with --losses {name}.losses"
            )
    for name, source in losses.items():
        if name not in precisions:
            listed = ", ".join(precisions) or "none"
            raise SearchError(
                f"losses of {name} need a table of a device in {name}, but the tables are in {listed}; build one, or leave the losses out"
            )
        if not (space.is_part_of(source.space) or source.space.is_part_of(space)):
            raise SearchError(
                f"losses must be of the space that is searched, but that is {space.name} with {space.num_classes} classes and they are of "
                f"{source.space.name} with {source.space.num_classes}; measure some with: {_MAKE_LOSSES} {name} -o {name}.losses"
            )
