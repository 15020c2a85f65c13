"""Makespan and critical path of graphs of work."""

from __future__ import annotations

import random

import pytest

from limbeck.engine.workers.makespan import Work, critical_path, makespan, remaining


def test_a_chain_takes_its_sum_on_any_number_of_workers():
    chain = [Work(3.0), Work(1.0, (0,)), Work(2.0, (1,))]
    assert remaining(chain) == [6.0, 3.0, 2.0]
    assert {makespan(chain, workers) for workers in (1, 2, 9)} == {6.0}


def test_what_does_not_wait_runs_side_by_side():
    graph = [Work(1.0), *[Work(2.0, (0,))] * 4]
    assert [makespan(graph, workers) for workers in (1, 2, 4, 9)] == [9.0, 5.0, 3.0, 3.0]


def test_the_longest_chain_is_begun_first():
    graph = [Work(1.0), Work(1.0), Work(1.0), Work(5.0, (2,))]
    assert makespan(graph, 1) == 8.0
    assert makespan(graph, 2) == 6.0


def test_the_run_itself_measures_one_after_another_beside_the_workers():
    graph = [Work(4.0), Work(1.0), Work(2.0, (1,), own=True), Work(2.0, (1,), own=True)]
    assert makespan(graph, 2) == 5.0


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_is_shorter_than_its_bounds_or_longer_than_their_sum(seed):
    rng = random.Random(seed)
    graph = []
    for number in range(60):
        after = tuple(rng.sample(range(number), min(number, rng.randrange(3))))
        graph.append(Work(rng.random(), after))
    total, longest = sum(work.seconds for work in graph), critical_path(graph)
    for workers in (1, 2, 4, 16, 64):
        taken = makespan(graph, workers)
        assert max(longest, total / workers) - 1e-9 <= taken <= longest + total / workers + 1e-9
    assert makespan(graph, 1) == pytest.approx(total)


def test_nothing_takes_no_time():
    assert (makespan([], 3), critical_path([])) == (0.0, 0.0)
