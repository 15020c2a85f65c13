"""Searches of a space whose best shapes are known by trying all."""

import itertools

import pytest

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.pareto import dominates
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.search import strategies
from limbeck.search.bounded_space import BoundedSpace
from limbeck.search.cached_cost import CachedCost
from limbeck.search.evolution import satisfies_rule

SPACE = Space(Range(1, 3), Range(32, 32), Range(1, 4), Range(16, 64, 4), Range(8, 8))
ALL = [
    Shape.uniform(layers, 32, heads, ffn, head_dim=8)
    for layers, heads, ffn in itertools.product(range(1, 4), range(1, 5), range(16, 65, 4))
]
COSTS = CachedCost(FunctionCost(lambda shape: Measurement("size", float(shape.weights), "B")))
HALF = BoundedSpace.near(SPACE, COSTS, COSTS(SPACE.largest).value / 2, at_least=0.1)
SETTINGS = strategies.Settings(population=8, generations=4, seed=1)


def score(shapes):
    return [sum(row.heads + row.ffn / 64 for row in shape.layers) + shape.depth for shape in shapes]


@pytest.mark.parametrize("method", ["evolution", "random", "rule", "nsga2"])
def test_every_method_scores_shapes_that_fit(method):
    scores = strategies.search(method, HALF, score, SETTINGS)
    assert scores == strategies.search(method, HALF, score, SETTINGS)
    assert list(scores.values()) == score(list(scores))
    assert all(HALF.fits(list(scores)))
    assert 0 < len(scores) <= SETTINGS.total
    if method == "rule":
        assert all(map(satisfies_rule, scores))


@pytest.mark.parametrize("method", ["evolution", "nsga2"])
def test_a_search_as_long_as_the_space_is_large_finds_the_best(method):
    settings = strategies.Settings(population=40, generations=6)
    scores = strategies.search(method, HALF, score, settings)
    best = max(score([shape for shape in ALL if HALF.fits([shape])[0]]))
    assert max(scores.values()) == pytest.approx(best, rel=0.05)


def test_winners_are_the_best_or_span_the_front():
    scores = dict(zip(ALL, score(ALL), strict=True))
    best = strategies.winners("evolution", HALF, scores, 3)
    assert [scores[shape] for shape in best] == sorted(scores.values(), reverse=True)[:3]
    messages = []
    spread = strategies.winners("nsga2", HALF, scores, 4, metric="accuracy", log=messages.append)
    points = {shape: (scores[shape], COSTS(shape).value) for shape in ALL}
    for shape in spread:
        assert not any(dominates(points[other], points[shape], ("max", "min")) for other in ALL)
    assert messages[0].startswith("front of ")


def test_nothing_that_fits_gives_no_scores():
    empty = BoundedSpace.near(SPACE, COSTS, 1.0)
    for method in ("evolution", "random", "rule", "nsga2"):
        assert strategies.search(method, empty, score, SETTINGS) == {}
    assert "no shape of the space costs between 0.85 and 1 B" in empty.why_empty()


def test_a_study_says_what_it_depends_on():
    settings = strategies.study_settings(HALF, {"metric": "f1"}, "bytes", 8)
    assert {"space", "metric", "cost", "bound", "population"} == {*settings}
    other = BoundedSpace(SPACE, COSTS, HALF.least, HALF.most, sure=False)
    assert strategies.study_settings(other, {"metric": "f1"}, "bytes", 8)["bound"] != settings["bound"]
