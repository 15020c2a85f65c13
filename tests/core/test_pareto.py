from __future__ import annotations

import itertools

import numpy as np
import pytest

from limbeck.core import pareto

SENSES = ("max", "min", "min")


def slow_dominates(first, second, senses):
    better = [a > b if sense == "max" else a < b for a, b, sense in zip(first, second, senses, strict=True)]
    worse = [a < b if sense == "max" else a > b for a, b, sense in zip(first, second, senses, strict=True)]
    return any(better) and not any(worse)


def clouds(objectives):
    rng = np.random.default_rng(objectives)
    return [rng.integers(0, 5, (count, objectives)).astype(float) for count in (1, 2, 5, 8) for _ in range(10)]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_front_and_ranks_are_those_of_brute_force(objectives):
    senses = SENSES[:objectives]
    for points in clouds(objectives):
        beaten = [any(slow_dominates(other, point, senses) for other in points) for point in points]
        assert pareto.front(points, senses).tolist() == [not lost for lost in beaten]
        for first, second in itertools.product(points, points):
            assert pareto.dominates(first, second, senses) == slow_dominates(first, second, senses)
        ranks = pareto.ranks(points, senses)
        for index, point in enumerate(points):
            above = [ranks[j] for j, other in enumerate(points) if slow_dominates(other, point, senses)]
            assert ranks[index] == (max(above) + 1 if above else 0)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_hypervolume_counts_the_dominated_cells(objectives):
    senses = SENSES[:objectives]
    reference = [-1.0 if sense == "max" else 6.0 for sense in senses]
    for points in clouds(objectives):
        lower, corner = pareto.costs(points, senses), pareto.costs(reference, senses)[0].astype(int)
        cells = itertools.product(*[range(-6, end) for end in corner])
        expected = sum(any((row <= cell).all() for row in lower) for cell in map(np.array, cells))
        assert pareto.hypervolume(points, reference, senses) == pytest.approx(expected)


def test_points_beyond_the_reference_add_nothing():
    assert pareto.hypervolume([(4.0, 1.0)], (3.0, 3.0), ("min", "min")) == 0.0


def test_equal_points_share_the_front_and_none_make_none():
    assert pareto.front([(1.0, 1.0), (1.0, 1.0)], ("max", "min")).all()
    assert pareto.front([], ("max", "min")).tolist() == []


def test_the_reference_lies_beyond_every_point():
    for points in clouds(2):
        corner = pareto.beyond(points, ("max", "min"))
        assert (points[:, 0] > corner[0]).all()
        assert (points[:, 1] < corner[1]).all()


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_spread_grows_by_the_largest_volume(objectives):
    senses = SENSES[:objectives]
    for points in clouds(objectives):
        corner = pareto.beyond(points, senses)
        selected = pareto.spread(points, corner, senses, 3)
        assert len(selected) == len(set(selected)) <= 3
        assert pareto.front(points, senses)[selected].all()
        for size in range(len(selected)):
            volume = pareto.hypervolume(points[selected[: size + 1]], corner, senses)
            others = [
                pareto.hypervolume(points[[*selected[:size], other]], corner, senses) for other in range(len(points))
            ]
            assert volume == pytest.approx(max(others))
        every = pareto.spread(points, corner, senses, len(points))
        whole = pareto.hypervolume(points, corner, senses)
        assert pareto.hypervolume(points[every], corner, senses) == pytest.approx(whole)
