from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest

from limbeck.core.shape import LayerShape, Shape
from limbeck.cost_models.boosted_fit import check_extra
from limbeck.cost_models.features import SHAPE_FEATURES
from limbeck.cost_models.latency_dataset import Group, Series, TimedShape
from limbeck.cost_models.latency_predictor import FEWEST, Errors, Predictor
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.errors import InputError, MissingExtra

NOISE = 0.01


@pytest.fixture(scope="module")
def taught(setting, space, pretended):
    """A predictor of a pretended machine, by the number of shapes it was taught."""

    @cache
    def teach(count=200, **changes):
        drawn_from = replace(space, **changes)
        shapes = sample_shapes(drawn_from, count)
        rng = np.random.default_rng(0)
        seconds = [float(pretended(shape) * np.exp(rng.normal(0, NOISE))) for shape in shapes]
        return Predictor(setting, tuple(shapes), tuple(seconds))

    return teach


@pytest.fixture(scope="module")
def unseen(space, pretended, taught):
    """Shapes that no predictor has seen, and what they take, with noise."""
    shapes = sample_shapes(space, 400, method="uniform", seed=11, without=set(taught().shapes))
    rng = np.random.default_rng(1)
    return shapes, np.array([pretended(shape) * np.exp(rng.normal(0, NOISE)) for shape in shapes])


def test_shapes_never_seen_are_predicted_well_and_it_knows_how_well(taught, unseen):
    predictor, (shapes, seconds) = taught(), unseen
    errors = Errors.of(predictor.seconds_of(shapes), seconds)
    assert errors.median < 0.02
    assert errors.p95 < 0.06
    assert errors.within_10 > 0.99
    assert errors.tau > 0.95
    assert errors.count == 400
    assert predictor.boosted
    assert predictor.errors.median < 0.8 * predictor.errors_additive.median
    assert predictor.errors.median == pytest.approx(errors.median, rel=0.5)
    assert predictor.errors.p95 == pytest.approx(errors.p95, rel=0.6)


def test_where_time_is_additive_trees_are_left_out(setting, space):
    def additive(shape):
        return 1e-4 + sum(
            1e-5 + 1e-9 * shape.hidden * (row.heads * shape.head_dim + row.ffn) for row in shape.layers[:-1]
        )

    shapes, rng = sample_shapes(space, 80), np.random.default_rng(3)
    seconds = [float(additive(shape) * np.exp(rng.normal(0, NOISE))) for shape in shapes]
    predictor = Predictor(setting, tuple(shapes), tuple(seconds))
    assert not predictor.boosted
    assert predictor.errors == predictor.errors_additive
    assert predictor.errors.p95 < 4 * NOISE
    assert predictor.seconds_of(shapes) == pytest.approx([additive(shape) for shape in shapes], rel=2 * NOISE)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
def test_a_bound_holds_with_its_probability(taught, setting, space, pretended, level):
    """For shapes drawn as those it learned from."""
    shapes = sample_shapes(space, 400, seed=21, without=set(taught().shapes))
    seconds = np.array([pretended(shape) for shape in shapes])
    seconds *= np.exp(np.random.default_rng(2).normal(0, NOISE, len(shapes)))
    holds = (seconds <= taught().uppers(shapes, level)).mean()
    assert level - 0.07 <= holds <= min(level + 0.1, 1)


def test_the_interval_holds_19_times_in_20(taught, unseen):
    shapes, seconds = unseen
    facts = list(map(taught(), shapes[:200]))
    inside = np.mean([fact.low <= real <= fact.high for fact, real in zip(facts, seconds, strict=False)])
    assert 0.9 <= inside <= 1
    assert all(fact.low < fact.value < fact.high for fact in facts)
    widths = np.array([(fact.high - fact.low) / fact.value for fact in facts])
    assert widths.max() < 0.3


def test_bounds_grow_with_the_level(taught, space):
    shapes = sample_shapes(space, 20, seed=3)
    bounds = np.array([taught().uppers(shapes, level) for level in (0.05, 0.5, 0.8, 0.95, 0.999)])
    assert (np.diff(bounds, axis=0) > 0).all()
    assert (bounds[0] < taught().seconds_of(shapes)).all()
    with pytest.raises(InputError, match="level"):
        taught().upper(shapes[0], 1.0)


def test_many_at_once_are_the_same_as_one_by_one(taught, unseen):
    shapes = unseen[0][:40]
    predictor = taught()
    assert predictor.seconds_of(shapes).tolist() == [predictor(shape).value for shape in shapes]
    assert predictor.uppers(shapes, 0.9).tolist() == [predictor.upper(shape, 0.9) for shape in shapes]
    assert predictor.seconds_of([]).shape == predictor.uppers([]).shape == (0,)


def test_stored_and_learned_again_it_predicts_the_same_to_the_bit(taught, unseen):
    predictor = taught()
    again = Predictor.from_json(json.loads(json.dumps(predictor.to_json())))
    assert again == predictor
    assert hash(again) == hash(predictor)
    assert again.key == predictor.key != replace(predictor, seed=1).key
    assert again.seconds_of(unseen[0]).tolist() == predictor.seconds_of(unseen[0]).tolist()
    assert again.errors == predictor.errors
    assert again.uppers(unseen[0]).tolist() == predictor.uppers(unseen[0]).tolist()


def test_wider_and_deeper_takes_longer(taught, space):
    """Trees are not monotone, so only where a difference exceeds the error."""
    predictor, rng = taught(), Random(5)
    for _ in range(20):
        shape = space.sample(rng)
        wider = [LayerShape(min(row.heads + 4, 12), min(row.ffn + 512, 1536)) for row in shape.layers]
        bigger = replace(shape, layers=tuple(wider))
        more, less = predictor.seconds_of([bigger, shape])
        assert more > 0.97 * less
    order = predictor.seconds_of([space.smallest, *(space.sample(rng) for _ in range(20)), space.largest])
    assert order[0] == order.min()
    assert order[-1] == order.max()


def test_uniform_shapes_are_predicted_by_who_was_taught_ragged_ones_and_not_the_reverse(taught, space, pretended):
    shapes = sample_shapes(replace(space, per_layer=False), 100, method="uniform", seed=4)
    errors = Errors.of(taught().seconds_of(shapes), np.array(list(map(pretended, shapes))))
    assert errors.median < 0.03
    assert errors.tau > 0.95
    assert not taught().extrapolates(shapes).any()
    uniform, ragged = taught(80, per_layer=False), space.sample(Random(1))
    assert uniform.extrapolates([ragged, space.largest]).tolist() == [True, False]
    assert set(uniform(ragged).detail["extrapolates"]) == {"unevenness of heads", "unevenness of neurons"}


def test_it_says_where_it_extrapolates_and_widens_the_interval(taught, space):
    predictor = taught()
    inside = predictor(space.largest)
    assert "extrapolates" not in inside.detail
    deep = replace(space.largest, layers=space.largest.layers * 2)
    outside = predictor(deep)
    assert outside.detail["extrapolates"] == ["layers", "operations"]
    wide = replace(space.largest, hidden=512)
    assert predictor(wide).detail["extrapolates"] == ["hidden", "operations"]
    reach = [np.log(fact.high / fact.value) for fact in (inside, outside)]
    assert reach[1] > 2 * reach[0]
    assert predictor.upper(deep) / predictor.seconds_of([deep])[0] > predictor.upper(space.largest) / inside.value
    empty = Shape(384, 32, (LayerShape(0, 0),))
    assert {"fewest heads", "fewest neurons"} <= {*predictor(empty).detail["extrapolates"]} <= {*SHAPE_FEATURES}
    assert predictor(empty).value < predictor(space.largest).value


def test_as_a_fact(taught, setting, space):
    fact = taught()(space.smallest)
    assert (fact.name, fact.unit, fact.n) == ("latency_p50", "s", 200)
    assert fact.target == str(setting.target)
    assert fact.detail == {"source": "predictor", "number_format": "float", "seq_len": 32}


def test_it_is_taught_by_a_series(setting, space, pretended, taught):
    shapes = sample_shapes(space, 30)
    timed = tuple(TimedShape(shape, pretended(shape), 0.01, (1.0, 1.0)) for shape in shapes)
    series = Series("here", setting, (Group("here", setting, "first", timed[0], timed[1:]),))
    predictor = Predictor.of(series, seed=3)
    assert dict(zip(predictor.shapes, predictor.seconds, strict=True)) == {each.shape: each.seconds for each in timed}
    assert (predictor.machine, predictor.seed, predictor.setting) == ("here", 3, setting)


def test_number_formats_have_predictors_of_their_own(taught, setting, space):
    predictor = taught(60)
    int8 = replace(predictor, setting=replace(setting, number_format="int8"))
    halved = replace(int8, seconds=tuple(second / 2 for second in predictor.seconds))
    assert halved(space.largest).detail["number_format"] == "int8"
    assert halved.seconds_of([space.largest])[0] == pytest.approx(predictor.seconds_of([space.largest])[0] / 2)
    assert halved != predictor
    assert halved(space.largest, number_format="int8") == halved(space.largest)
    with pytest.raises(InputError, match="measured in int8, so it cannot tell that in float"):
        halved(space.largest, number_format="float")


def test_what_it_cannot_learn_from_is_refused(taught, setting):
    learned = taught()
    with pytest.raises(InputError, match=f"at least {FEWEST} measured shapes, got 3"):
        Predictor(setting, learned.shapes[:3], learned.seconds[:3])
    with pytest.raises(InputError, match="shapes that all differ"):
        Predictor(setting, learned.shapes[:20] * 2, learned.seconds[:40])
    with pytest.raises(InputError, match="'linear'"):
        learned(Shape.uniform(2, 128, 4, 128, attention="linear"))


def test_a_core_that_it_has_not_learned_is_refused_and_not_free(taught, space):
    learned = taught(60)
    linear = Shape(128, 32, (LayerShape(4, 128), LayerShape(4, 128, "linformer:64")))
    for ask in (learned, lambda shape: learned.seconds_of([space.largest, shape]), learned.upper):
        with pytest.raises(InputError, match="has not learned attention 'linformer'; choose from 'softmax'"):
            ask(linear)
    assert learned(Shape(128, 32, (LayerShape(0, 128, "kernel"),))).value > 0  # without heads there is none


def test_without_scikit_learn_the_extra_is_named(monkeypatch, taught, space):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingExtra, match=r"limbeck\[search\]"):
        check_extra()
    fresh = replace(taught(60), seed=9)
    with pytest.raises(MissingExtra, match="scikit-learn"):
        fresh(space.largest)
