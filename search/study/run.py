"""A search in this process, and what every search begins and ends with."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from contextlib import nullcontext
from typing import Any

from ofa.families import space_names
from ofa.progress import Progress, silent
from ofa.schema import to_json
from search.front.build import check_possible, front_of
from search.front.front import Front
from search.problem import Problem
from search.study.claims import Memory
from search.study.effort import Counts, Effort, Share, check_sampler
from search.study.heartbeat import new_group, worker_name
from search.study.ledger import PATIENCE_S, Ledger
from search.study.searching import Search

__all__ = ["describe", "entropy_of", "run_study"]


def run_study(
    problem: Problem,
    *,
    seed: int,
    effort: Effort | None = None,
    sampler: str = "nsga2",
    storage: str | None = None,
    name: str | None = None,
    progress: Progress = silent,
    patience_s: float = PATIENCE_S,
) -> Front:
    """Search in this process, and return the front of everything that was evaluated.

    Others may work at the same study in the storage at the same time, here or on other machines.

    Args:
        problem: what to search for.
        seed: decides all choices, together with the number of trials that a study resumes from.
        effort: how much is looked at.
        sampler: one of ``SAMPLERS``.
        storage: None keeps the study in memory; a URL such as ``sqlite:///study.db`` or ``postgresql://user@host/name`` keeps it in a
            database, ``grpc://host:port`` where such a proxy of Optuna keeps it, any other text in a journal file of that path. A study
            that is already there is resumed.
        name: the study's name in the storage, by default the space's.
        progress: told how many networks are evaluated.
        patience_s: seconds without a sign of life after which a worker on another machine counts as dead, and its trials are taken over.

    Returns:
        The front over everything that keeps the problem's budget. Its ``info`` says where all of it came from.

    Raises:
        SearchError: a wrong setting, a storage that cannot be used or holds a study of another problem, or an evaluation that
            fails. What was finished before stays in the storage.
        MissingExtraError: the driver of the storage is not installed.
        ImpossibleBudgetError: no network that was evaluated keeps the budget.
    """
    effort = effort or Effort()
    check_sampler(sampler)
    start = time.perf_counter()
    check_possible(problem)
    description = describe(problem)
    worker = worker_name(new_group())
    ledger: Ledger | Memory = Memory()
    if storage is not None:
        ledger = Ledger(storage, name or problem.space.name, description, worker=worker, patience_s=patience_s)

    def report(counts: Counts) -> None:
        done = counts.trials + counts.evolved + counts.neighbours
        progress(min(done, effort.total), effort.total, f"{counts.evaluated} different networks")

    with ledger if isinstance(ledger, Ledger) else nullcontext():
        share = Share(entropy=entropy_of(ledger))
        search = Search(problem, effort, sampler=sampler, seed=seed, share=share, ledger=ledger, report=report)
        search.run()
    progress(effort.total, effort.total, f"{len(search.archive)} different networks")
    about = {"sampler": sampler, "seed": seed, "workers": 1, "died": 0, **search.counts.to_json()}
    return front_of(search.archive, {**about, "seconds": round(time.perf_counter() - start, 3)})


def entropy_of(ledger: Ledger | Memory, resumed: int | None = None) -> tuple[int, ...]:
    """What a worker's random choices depend on beside the seed and its place among its siblings.

    Args:
        ledger: the study.
        resumed: finished trials when the run began; None for as many as there are now.
    """
    finished = ledger.finished() if resumed is None else resumed
    if isinstance(ledger, Ledger) and ledger.strangers():
        return finished, zlib.crc32(ledger.worker.encode())
    return (finished,)


def describe(problem: Problem) -> dict[str, Any]:
    """What two searches must share to be one study."""
    latency = json.dumps([to_json(source.info) for source in problem.latencies], sort_keys=True)
    genes = json.dumps([[gene.name, list(gene.values)] for gene in problem.space.columns], default=str)
    whole = problem.of_whole
    # The name of a space of ofa tells all of it, and studies of earlier versions have nothing else.
    own = {} if whole.name in space_names() else {"space_digest": _digest(json.dumps(whole.to_json(), sort_keys=True))}
    return {
        "space": problem.space.name,
        **own,
        "genes_digest": _digest(genes),
        "devices": list(problem.devices),
        "objectives": list(problem.costs),
        "budget": problem.budget.to_json(),
        "expected_latency": problem.budget.expected_latency,
        "accuracy": dict(problem.accuracy.provenance),
        "latency_digest": _digest(latency),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
