from __future__ import annotations

import numpy as np

from search.budget import Budget
from search.evolution.archive import Archive
from search.evolution.islands import Islands, sample_of_all_sizes, targets_along_front
from tests.search.fakes import SMALL, SPACE, FakeLatency, every_arch, fake_problem


def founded(archive: Archive, count: int = 500, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return archive.evaluate(sample_of_all_sizes(archive.problem.space, count, np.random.default_rng(seed)))


def test_islands_find_the_best_network_of_a_budget() -> None:
    budget = Budget({"latency_ms": 0.4})
    everything = Archive(fake_problem(budget=budget, objectives=()))
    everything.evaluate(SMALL.encode_all(every_arch(SMALL)))
    archive = Archive(fake_problem(budget=budget, objectives=()))
    rng = np.random.default_rng(0)
    islands = Islands(archive, targets_along_front(archive, 4, rng), founded(archive, 200), rng)
    islands.evolve(1500)
    assert archive.accuracies[islands.best].max() == everything.accuracies[everything.allowed].max()
    assert archive.allowed[islands.best].all()


def test_islands_evaluate_no_more_than_they_may_and_nothing_twice() -> None:
    archive = Archive(fake_problem(SPACE))
    rng = np.random.default_rng(0)
    founders = founded(archive)
    before = len(archive)
    islands = Islands(archive, targets_along_front(archive, 8, rng), founders, rng)
    assert islands.evolve(700) == 700 == len(archive) - before
    assert len(np.unique(archive.rows, axis=0)) == len(archive)


def test_islands_end_when_the_space_does() -> None:
    tiny = SMALL.restrict(depth=[0], kernel=[3])
    archive = Archive(fake_problem(tiny))
    rng = np.random.default_rng(0)
    islands = Islands(
        archive, targets_along_front(archive, 2, rng) if len(archive) else np.array([[1.0], [9.0]]), founded(archive, 20), rng
    )
    islands.evolve(10**6)
    assert len(archive) <= tiny.size


def test_islands_keep_their_targets() -> None:
    archive = Archive(fake_problem(SPACE))
    rng = np.random.default_rng(0)
    founders = founded(archive)
    targets_IK = targets_along_front(archive, 6, rng)
    islands = Islands(archive, targets_IK, founders, rng)
    islands.evolve(2000)
    costs_IK = archive.costs(archive.problem.costs)[islands.best]
    assert (costs_IK <= targets_IK).all()
    assert (np.diff(archive.accuracies[islands.best]) > 0).all()


def test_while_nothing_keeps_the_budget_islands_go_towards_it() -> None:
    budget = Budget({"latency_ms": 0.26})
    archive = Archive(fake_problem(SPACE, budget=budget, objectives=()))
    rng = np.random.default_rng(0)
    large = SPACE.encode_all([SPACE.largest()])
    islands = Islands(archive, np.empty((1, 0)), archive.evaluate(large), rng)
    islands.evolve(3000)
    assert archive.allowed[islands.best].all()


def test_the_seed_decides() -> None:
    def run(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
        archive = Archive(fake_problem(SPACE))
        rng = np.random.default_rng(seed)
        Islands(archive, np.array([[0.5], [1.0]]), founded(archive, 100), rng).evolve(300)
        return archive.rows.copy()

    assert (run(1) == run(1)).all()
    assert (run(1) != run(2)).any()


def test_the_sample_has_all_sizes() -> None:
    rows_NC = sample_of_all_sizes(SPACE, 1000, np.random.default_rng(0))
    assert (SPACE.canonical(rows_NC) == rows_NC).all()
    macs = fake_problem(SPACE).costs_of_rows(rows_NC, ["macs"])["macs"]
    ends = fake_problem(SPACE).costs_of_rows(SPACE.encode_all([SPACE.smallest(), SPACE.largest()]), ["macs"])["macs"]
    assert macs.min() < 1.3 * ends[0]
    assert macs.max() > 0.8 * ends[1]


def test_targets_of_several_costs_are_those_of_networks() -> None:
    archive = Archive(fake_problem(SPACE, latencies=[FakeLatency(), FakeLatency(device="pi", wide=16)]))
    founded(archive)
    targets_IK = targets_along_front(archive, 10, np.random.default_rng(0))
    assert all(any((row == costs).all() for costs in archive.costs(archive.problem.costs)) for row in targets_IK)
