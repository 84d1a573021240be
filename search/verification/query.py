"""Verified queries: networks near a budget are timed on the device, the ones that break it are dropped, and the best of the rest answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from devices import Conditions, Device, TimingPolicy, describe
from latency_tables import Estimator, LatencyTable
from latency_tables.onnx_files import ModelFiles
from latency_tables.timing import PROCESSES, Known, known_networks, time_beside, timing_inputs
from latency_tables.update import learn_from
from ofa.errors import SearchError
from ofa.journal import UNKEPT, Steps
from ofa.latency import LATENCIES
from ofa.progress import Progress, silent
from ofa.space import Space
from search.budget import Bound, Budget, at_device
from search.front.front import Front
from search.front.parts import budget_of_part, part_measured_by, rejoined
from search.verification.answer import VerifiedAnswer
from search.verification.networks import part_of
from search.verification.refresh import renewed
from search.verification.rounds import Rounds

__all__ = ["MARGIN", "query_verified"]

MARGIN = 0.025
"""Default safety margin between budget and likely latency, as a share of the latency.

The speed of a shared machine drifts by 2 to 3 % from minute to minute, which no measurement of one minute can see. The margin keeps a
network within its budget then, at the cost of 2.5 % of the latency.
"""


def query_verified(
    front: Front,
    space: Space,
    budget: Budget,
    device: Device,
    *,
    rng: np.random.Generator,
    table: LatencyTable | None = None,
    top: int = 1,
    margin: float = MARGIN,
    processes: int = PROCESSES,
    most_rounds: int = 3,
    policy: TimingPolicy | None = None,
    progress: Progress = silent,
    steps: Steps = UNKEPT,
) -> VerifiedAnswer:
    """Find the best networks of a front that keep a budget when they are timed on the device.

    The upper limit of this device's latency is checked by measurement, all other limits by the front's numbers.

    1. Time networks around the budget in several processes, with calibration networks of the table as references for the machine's
       current speed.
    2. Update the posterior of all networks.
    3. Repeat until ``top`` networks keep the budget and no better one is likely to, the best is within 1 % of the limit, or
       ``most_rounds`` is reached.

    Args:
        front: the front. If it has several precisions, only the networks in the device's precision are considered.
        space: the whole space of the front's networks, not a part of it: the table's calibration networks must belong to it as well.
        budget: limits, with the front's device names. Without a limit of this device's latency the best networks are timed and none is
            dropped.
        device: a device of the front, or the device that measures it in one precision.
        rng: draws the inputs and the order of measurement.
        table: table of the device. The front's estimates are first brought up to date with it; measurements update a copy of it.
        top: number of networks to return.
        margin: safety margin between budget and likely latency, as a share of the latency (0 up to 1).
        processes: number of processes for each round.
        most_rounds: upper limit of the number of rounds.
        policy: stopping rule of a measurement, over all processes together; None for the default of ``devices``.
        progress: receives the progress of the rounds.
        steps: journal that keeps the measurements of each process of each round.

    Returns:
        The networks that keep the budget, the dropped ones, and front and table updated with the measurements.

    Raises:
        FileError: ``steps`` are of other inputs.
        SearchError: the device is none of the front's, a number is out of its range, or the budget limits a number that the front lacks.
        TableError: table or front are of other settings of the device, or the table lacks blocks.
        ImpossibleBudgetError: no network of the front keeps the budget on the device, or its other limits by the front's numbers.
        DeviceError: the device cannot measure.
    """
    if not 0 <= margin < 1:
        raise SearchError(f"a margin must be a share of at least 0 and below 1, but is {margin:g}; try {MARGIN:g}")
    whole, front = front, part_measured_by(front, device.name)
    budget = budget_of_part(budget, whole, device.name)
    _check(front, device, table, {"top": top, "processes": processes, "most_rounds": most_rounds})
    if table is not None:
        front = renewed(front, space, Estimator(space, table))
    about = front.info.latency.get(device.name)
    budget_ms, others = _divided(budget, front.device_names, device.name)
    pool = front.query(others, len(front))
    rounds = Rounds(pool, device.name, None if about is None else about.calibration, budget_ms, top, margin)
    known: Known = {} if about is None else known_networks(about, space)
    number, evidence, origin = 0, rounds.evidence, describe(device)
    about_query = {"budget": budget.to_json(), "top": top, "margin": margin}
    steps.begin({**timing_inputs(origin, [each.arch for each in pool], policy), **about_query})
    with ModelFiles(device) as files:
        while number < most_rounds and (chosen := rounds.next_networks()):
            archs = [pool[i].arch for i in chosen]
            times = time_beside(
                known,
                space,
                archs,
                device,
                rng=rng,
                progress=part_of(progress, number, most_rounds),
                policy=policy,
                processes=processes,
                files=files,
                steps=steps,
                part=f"round {number + 1}, ",
            )
            evidence.add(chosen, times)
            number += 1
    progress(1, 1, f"timed {len(evidence.timed)} networks")
    conditions = Conditions.of(device, runtime_version=origin["runtime_version"])
    kept, dropped, entries = rounds.kept(), rounds.dropped(), [found.noted(conditions) for found in rounds.found()]
    learned = None
    if table is not None and known:
        typical_ms = {pool[i].arch: evidence.typical_ms(i) for i in evidence.timed}
        learned = learn_from(table, space, typical_ms, slowdown=evidence.slowdown, processes=number * processes)
    front = front if learned is None else renewed(front, space, Estimator(space, learned))
    return VerifiedAnswer(
        device=device.name,
        budget_ms=budget_ms,
        margin=margin,
        kept=kept,
        dropped=dropped,
        slowdown=evidence.slowdown if known else None,
        rounds=number,
        conditions=conditions,
        table=learned,
        front=rejoined(whole, front.with_verified(entries)),
    )


def _check(front: Front, device: Device, table: LatencyTable | None, numbers: Mapping[str, int]) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise SearchError(f"a verified query needs a '{name}' of at least 1, but got {number}; give 1 or more")
    if device.name not in front.device_names:
        raise SearchError(
            f"a front can be verified on a device whose latencies it knows, but it knows {', '.join(front.device_names) or 'none'} and not "
            f"{device.name}; name one of them, or search with a table of {device.name}"
        )
    if table is not None:
        table.require_device(device)
    if device.name in front.info.latency:
        front.info.latency[device.name].of_device(device, "the table that the front was searched with")


def _divided(budget: Budget, devices: tuple[str, ...], device: str) -> tuple[float | None, Budget]:
    """The latency limit of the device in ms (None without one), and the rest of the budget."""
    most_ms: list[float] = []
    others: dict[str, float | Bound | None] = {}
    for name, bound in budget.bounds.items():
        columns = {limit.column for limit in Budget({name: bound}).limits(devices)}
        if bound.most is None or not columns & {at_device(latency, device) for latency in LATENCIES}:
            others[name] = bound
            continue
        most_ms.append(bound.most)
        if bound.least is not None:
            others[name] = Bound(least=bound.least)
    return min(most_ms, default=None), Budget(others, expected_latency=budget.expected_latency)
