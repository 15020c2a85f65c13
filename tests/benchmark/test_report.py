import re
from dataclasses import replace

import numpy as np

from limbeck.benchmark.grid import depths, jointly, miniatures
from limbeck.benchmark.report import cells, pictures, report, table
from limbeck.benchmark.run import Row
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.model.encoder import Style

SETTING = Setting(style_of(Style()), Target(), "int8", 32)
BASE = Shape.uniform(4, 128, 2, 512)


def rows_of(points):
    trials = (np.full(9, 1.0), np.full(9, 1.1), np.full(9, 1.2))
    return [Row(point, SETTING, False, tuple(1e-3 * point.shape.depth * each for each in trials)) for point in points]


def test_more_layers_stand_further_right_and_higher():
    (picture,) = pictures(rows_of(depths(BASE, [4, 1, 2])))
    (line,) = picture["lines"]
    xs, ys = [point["x"] for point in line.points], [point["y"] for point in line.points]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    frame = picture["frame"]
    assert all(frame.left <= x <= frame.right and frame.top <= y <= frame.bottom for x, y in zip(xs, ys, strict=True))
    assert all(point["high"] < point["y"] < point["low"] for point in line.points)


def test_a_line_for_each_width_of_the_miniatures():
    (picture,) = pictures(rows_of(miniatures()))
    assert [line.name for line in picture["lines"]] == ["H128", "H256", "H512", "H768"]


def test_the_page_stands_alone_and_has_all_figures():
    rows = rows_of(depths(BASE, [1, 2]))
    page = report(rows, "bert <base>")
    assert "bert &lt;base&gt;" in page
    assert not re.search(r"(src|href)=", page)
    assert page.count("<circle") == 2
    assert ">1.1<" in page
    assert table(rows).row_count == 2


def test_what_varies_jointly_has_its_lines_told_by_the_rest():
    (deep,) = pictures(rows_of(jointly(BASE, [1, 2], [64, 128], [], "head_num")))
    assert (deep["x_title"], [line.name for line in deep["lines"]]) == ("layers", ["H64", "H128"])
    (wide,) = pictures(rows_of(jointly(BASE, [], [64, 128], [0.5, 1.0], "head_num")))
    names = [line.name for line in wide["lines"]]
    assert (wide["x_title"], names) == ("hidden width", ["attention 0.5", "attention 1"])


def test_accuracies_stand_beside_times():
    fact = Measurement("quality", 0.75, "1", 0.7, 0.79, n=300, split="validation", detail={"metric": "accuracy"})
    shallow, other = rows_of(depths(BASE, [1, 2]))
    rows = [replace(shallow, scores={"alone": fact, "shared": fact}), replace(other, scores={"alone": fact})]
    first, second = cells(rows)
    assert first["accuracy alone"] == first["accuracy shared"] == ("75.0 %", "[70.0, 79.0]", True)
    assert second["accuracy shared"].text == "–"
    page = report(rows, "bert", "Trained <so>.")
    assert "Trained &lt;so&gt;." in page
    assert "Accuracy against latency" in page
    assert "Accuracy against latency" not in report(rows_of(depths(BASE, [1, 2])), "bert")
