"""``ofa query --verify``: networks of a front timed on devices, each in the precision that its device takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ofa.cli.console import progress_bar, remark
from ofa.cli.devices import remark_version
from ofa.cli.keeping import answering
from ofa.cli.outputs import PARQUET, check_output
from ofa.locking import writing

if TYPE_CHECKING:
    from devices import Device
    from search.budget import Budget
    from search.front.front import Front
    from search.verification.answer import VerifiedAnswer

__all__ = ["Verification", "typed_devices", "verified"]


@dataclass(frozen=True)
class Verification:
    """What the options of --verify say.

    Attributes:
        devices: that networks are timed on; several only for a front of several precisions.
        tables: of these devices.
        update: whether what was measured is written.
        margin: the share of the budget left to a slower minute; None for the usual one.
        seed: of the inputs.
        resume: whether to go on with what was measured before a command was cut off.
        overwrite: whether to give that up.
    """

    devices: tuple[Device, ...]
    tables: tuple[Path, ...]
    update: bool
    margin: float | None
    seed: int
    resume: bool
    overwrite: bool


def typed_devices(names: Sequence[str], front: Front, folders: Sequence[Path], ssh_config: Path | None) -> tuple[Device, ...]:
    """The devices that the user names; none is looked up because a front says so."""
    from devices import get_device
    from search.front.parts import measuring_devices

    known = measuring_devices(front)
    if not names:
        raise typer.BadParameter(
            f"networks are timed on the device that you name; the front is of {', '.join(known) or 'none'}.", param_hint="--device"
        )
    found = tuple(get_device(name, folders, ssh_config=ssh_config) for name in names)
    timed = [known.get(device.name) for device in found]
    if len(found) > 1 and (None in timed or len(set(timed)) < len(timed)):
        raise typer.BadParameter(
            f"several are for a front of several precisions, one device for each; this front knows {_listed(known)}.", param_hint="--device"
        )
    left = {name: precision for name, precision in known.items() if precision in front.precisions and precision not in timed}
    if left and timed != [None]:
        remark(f"networks that the front has in other precisions are not timed: give their devices with --device as well: {_listed(left)}")
    return found


def _listed(known: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} ({precision})" if precision else name for name, precision in known.items()) or "none"


def verified(answer: dict[str, Any], front: Front, path: Path, budget: Budget, options: Verification, top: int) -> None:
    """Time networks on the devices, and put the answer and what was learned where they belong.

    Raises:
        ImpossibleBudgetError: no network of the front keeps the budget on its device.
        SearchError: a device measures none of them.
    """
    from search.front.front import Front
    from search.front.infeasible import ImpossibleBudgetError
    from search.front.parts import part_measured_by

    written = [path, *options.tables] if options.update else []
    for each in written:
        check_output(each, overwrite=True, ending=PARQUET)
    found: list[tuple[Path | None, VerifiedAnswer]] = []
    refused: list[ImpossibleBudgetError] = []
    with ExitStack() as stack:
        for each in written:
            stack.enter_context(writing(each, "verifying a front"))
        if options.update:
            front = Front.load(path)  # as it is now that nobody else changes it
        for device in options.devices:
            part_measured_by(front, device.name)  # refuses what cannot be timed, before anything is
        for device, table in zip(options.devices, _tables_of(options), strict=True):
            try:
                timed = _on_device(front, path, budget, device, table, options, top, stack)
            except ImpossibleBudgetError as error:  # in one precision; there may be others
                if len(options.devices) == 1:
                    raise
                refused.append(error)
            else:
                found.append((table, timed))
                front = timed.front
        if not found:
            raise refused[0]
        updated = _written(found, front, path, options) if options.update else []
    answer.update(_joined([each for _, each in found], front, {**answer["conditions"]}, top), updated=updated)


def _tables_of(options: Verification) -> list[Path | None]:
    """The table of each device, in their order."""
    from latency_tables import LatencyTable

    if len(options.devices) == 1 and len(options.tables) < 2:
        return [*options.tables] or [None]
    named = {LatencyTable.load(path).device_name: path for path in options.tables}
    if strange := sorted(set(named) - {device.name for device in options.devices}):
        raise typer.BadParameter(f"that of {strange[0]} is of no --device; leave it out, or give the device as well.", param_hint="--table")
    return [named.get(device.name) for device in options.devices]


def _on_device(
    front: Front, path: Path, budget: Budget, device: Device, table: Path | None, options: Verification, top: int, stack: ExitStack
) -> VerifiedAnswer:
    """What one device says of the networks in its precision; what it measures is kept until ``stack`` is left."""
    import numpy as np

    from latency_tables import LatencyTable
    from search.verification.query import MARGIN, query_verified

    margin = MARGIN if options.margin is None else options.margin
    inputs = {"device": device.name, "budget": budget.to_json(), "top": top, "margin": margin, "seed": options.seed}
    kept: Any = {"resume": options.resume, "overwrite": options.overwrite, "inputs": inputs}
    steps = stack.enter_context(answering(path, "verify", doing="verifying a front", **kept))
    with progress_bar(f"timing on {device.name}") as progress:
        found = query_verified(
            front,
            front.space,
            budget,
            device,
            rng=np.random.default_rng(options.seed),
            table=None if table is None else LatencyTable.load(table),
            top=top,
            margin=margin,
            progress=progress,
            steps=steps,
        )
    remark_version(front.conditions.get(device.name), found.conditions.runtime_version, "The front's latencies were")
    return found


def _written(found: Sequence[tuple[Path | None, VerifiedAnswer]], front: Front, path: Path, options: Verification) -> list[str]:
    """Write what was measured where it belongs; the names of what was written."""
    names = []
    for table, each in found:
        if table is not None and each.table is not None:
            each.table.save(table)
            names.append(str(table))
    front.save(path)
    return [*names, str(path)]


def _joined(found: Sequence[VerifiedAnswer], front: Front, conditions: dict[str, Any], top: int) -> dict[str, Any]:
    """What all devices say, as JSON values: the best of all networks that keep the budget, under the front's names of devices."""
    told = [each.to_json() for each in found]
    names = {measured: device for device, by in front.info.precisions.items() for measured in by.values()}
    for network in (network for each in told for key in ("results", "dropped") for network in each[key]):
        network["devices"] = {names.get(name, name): value for name, value in network["devices"].items()}
    both: dict[str, list[Any]] = {key: [network for each in told for network in each[key]] for key in ("results", "dropped")}
    if len(told) > 1:
        both = {key: sorted(networks, key=lambda network: -network["accuracy"]) for key, networks in both.items()}
    return {
        **told[0],
        "results": both["results"][:top],
        "dropped": both["dropped"],
        "timed_on": [each.device for each in found],
        "conditions": {**conditions, **{name: value for each in told for name, value in each["conditions"].items()}},
        "learned": any(each.table is not None for each in found),
    }
