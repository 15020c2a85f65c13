import numpy as np

from limbeck.benchmark.charts import front
from limbeck.benchmark.grid import depths, miniatures
from limbeck.benchmark.run import Row
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.statistics import wilson
from limbeck.core.target import Target
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.model.encoder import Style

BASE = Shape.uniform(4, 128, 2, 512)


def judged(points, ways=("alone", "shared"), forms=("float",), metric="accuracy"):
    """A layer takes a millisecond; each is right in 60 texts of 100 and 3 more for every layer, shared in 2 less."""

    def fact(point, mode):
        interval = wilson(60 + 3 * point.shape.depth - 2 * (mode == "shared"), 100)
        return Measurement("quality", *interval[:1], "1", *interval[1:], n=100, split="test", detail={"metric": metric})

    settings = [Setting(style_of(Style()), Target(), form, 32) for form in forms]
    return [
        Row(point, setting, False, (np.full(9, 1e-3 * point.shape.depth),), {mode: fact(point, mode) for mode in ways})
        for setting in settings
        for point in points
    ]


def test_deeper_is_further_right_and_higher_and_shared_is_lower():
    picture = front(judged(depths(BASE, [4, 1, 2])))
    alone, shared = picture["lines"]
    assert (alone["name"], shared["name"]) == ("trained alone", "weight-shared")
    frame = picture["frame"]
    for line in (alone, shared):
        xs, ys = [dot["x"] for dot in line["points"]], [dot["y"] for dot in line["points"]]
        assert xs == sorted(xs)
        assert ys == sorted(ys, reverse=True)
        assert all(frame.left <= x <= frame.right for x in xs)
        assert all(frame.top <= dot["high"] < dot["y"] < dot["low"] <= frame.bottom for dot in line["points"])
    for left, other in zip(alone["points"], shared["points"], strict=True):
        assert left["y"] < other["y"]
    assert [len(pair["dots"]) for pair in picture["pairs"]] == [2, 2, 2]
    assert [pair["name"] for pair in picture["pairs"] if pair["label"]] == ["1 layer", "2 layers", "4 layers"]
    assert "72.0 % [62.5, 79.9], 4 ms" in alone["points"][-1]["tip"]


def test_a_line_for_each_way_and_number_format():
    picture = front(judged(depths(BASE, [1, 2]), forms=("float", "int8")))
    assert sorted(line["name"] for line in picture["lines"]) == [
        "trained alone, float",
        "trained alone, int8",
        "weight-shared, float",
        "weight-shared, int8",
    ]
    assert len({line["color"] for line in picture["lines"]}) == 4


def test_names_keep_clear_of_each_other():
    labels = [pair["label"] for pair in front(judged(miniatures(), ("alone",)))["pairs"] if pair["label"]]
    for index, label in enumerate(labels):
        assert all(abs(label["x"] - other["x"]) > 40 or abs(label["y"] - other["y"]) > 10 for other in labels[:index])


def test_correlations_are_no_shares():
    assert front(judged(depths(BASE, [1, 2]), metric="pearson"))["y_title"] == "pearson, test"
    assert front(judged(depths(BASE, [1, 2])))["y_title"] == "accuracy, test, %"


def test_nothing_judged_nothing_drawn():
    assert front(judged(depths(BASE, [1, 2]), ways=())) is None
