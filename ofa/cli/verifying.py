"""``ofa query --verify``: times networks of a front on devices, each in its device's precision."""

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
    """The options of --verify.

    Attributes:
        devices: devices that time networks; several only for a front of several precisions.
        tables: latency tables of these devices.
        update: whether to store the measurements in front and tables.
        margin: safety margin between budget and likely latency, as a share; None for the default.
        seed: seed of the inputs.
        resume: whether to continue after the measurements of an interrupted command.
        overwrite: whether to discard such measurements.
    """

    devices: tuple[Device, ...]
    tables: tuple[Path, ...]
    update: bool
    margin: float | None
    seed: int
    resume: bool
    overwrite: bool


def typed_devices(names: Sequence[str], front: Front, folders: Sequence[Path], ssh_config: Path | None) -> tuple[Device, ...]:
    """The devices that the user typed; names in a front are never looked up."""
    from devices import get_device
    from search.front.parts import measuring_devices

    known = measuring_devices(front)
    if not names:
        raise typer.BadParameter(f"name the device that times networks; the front has {', '.join(known) or 'none'}.", param_hint="--device")
    found = tuple(get_device(name, folders, ssh_config=ssh_config) for name in names)
    timed = [known.get(device.name) for device in found]
    if len(found) > 1 and (None in timed or len(set(timed)) < len(timed)):
        raise typer.BadParameter(
            f"several need a front of several precisions, one device for each; this front has {_listed(known)}.", param_hint="--device"
        )
    left = {name: precision for name, precision in known.items() if precision in front.precisions and precision not in timed}
    if left and timed != [None]:
        remark(f"the front's networks in other precisions are not timed: give their devices with --device as well: {_listed(left)}")
    return found


def _listed(known: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} ({precision})" if precision else name for name, precision in known.items()) or "none"


def verified(answer: dict[str, Any], front: Front, path: Path, budget: Budget, options: Verification, top: int) -> None:
    """Time networks on the devices, complete ``answer``, and write the measurements if the options ask for it.

    Raises:
        ImpossibleBudgetError: no network of the front keeps the budget on its device.
        SearchError: a device measures none of the front's networks.
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
            front = Front.load(path)  # read again under the lock
        for device in options.devices:
            part_measured_by(front, device.name)  # raises before any measurement if the device measures no network
        for device, table in zip(options.devices, _tables_of(options), strict=True):
            try:
                timed = _on_device(front, path, budget, device, table, options, top, stack)
            except ImpossibleBudgetError as error:  # networks in another precision may still keep the budget
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
        raise typer.BadParameter(f"that of {strange[0]} has no --device; leave it out, or give the device as well.", param_hint="--table")
    return [named.get(device.name) for device in options.devices]


def _on_device(
    front: Front, path: Path, budget: Budget, device: Device, table: Path | None, options: Verification, top: int, stack: ExitStack
) -> VerifiedAnswer:
    """The answer of one device for networks in its precision; its measurements are kept until ``stack`` is left."""
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
    """Store the measurements in front and tables; returns the names of the written files."""
    names = []
    for table, each in found:
        if table is not None and each.table is not None:
            each.table.save(table)
            names.append(str(table))
    front.save(path)
    return [*names, str(path)]


def _joined(found: Sequence[VerifiedAnswer], front: Front, conditions: dict[str, Any], top: int) -> dict[str, Any]:
    """The answers of all devices merged, as JSON values: the best networks that keep the budget, under the front's device names."""
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
