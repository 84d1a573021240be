"""A budget settled on the device: networks near it are timed, those that break it are dropped, the best that keep it are the answer."""

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
"""Between the budget and what a network probably takes, as a share of the latter.

A machine that others use as well is 2 to 3 % slower or faster in another minute, which no measurement of one minute can see. The
margin keeps a network within its budget then, and costs a fortieth of it.
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

    Of a front with several precisions those are asked for that the device measures; the budget names devices as the front does.

    The most of the device's latency is held against what is measured; all other limits are kept by what the front says. Networks from
    somewhat above to somewhat below the budget are exported and timed in several processes, together with some that the table was
    calibrated by, which tell whether the machine is slower or faster than usual at the moment. What they say of the table shifts the
    estimates of all others, from which the next round is chosen, until there are ``top`` that keep the budget and none that is better
    is left, or the best is nearly as slow as it may be.

    Args:
        front: the front.
        space: the whole one of its networks, not a part of it: networks of the table's calibration must be of it as well.
        budget: limits; without one on this device's latency the best networks are timed, and none is dropped.
        device: one of the front's, or what measures it in a precision.
        rng: inputs and order of measurement.
        table: of the device; what is learned goes into a copy of it. The front's estimates are first brought to what it says.
        top: how many networks.
        margin: between the budget and what a network probably takes, as a share of the latter.
        processes: in which each round is timed.
        most_rounds: of measurements.
        policy: when a measurement is enough, of all processes together; the device room's default if None.
        progress: told how far the rounds are.
        steps: keeps what each process of each round measured.

    Raises:
        FileError: ``steps`` are of other inputs.
        SearchError: the device is none of the front's, a number is below 1, or the budget limits what the front does not know.
        TableError: the table or the front is of other settings of the device, or lacks blocks.
        ImpossibleBudgetError: no network of the front keeps the budget on the device, or its other limits on paper.
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
    """The most that a network may take on the device, None for no limit, and the rest of the budget."""
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
