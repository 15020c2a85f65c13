from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import stories

from limbeck.core.target import Budget
from limbeck.report.ablation import gains
from limbeck.report.charts import (
    FRONT,
    LETTER,
    LINE,
    Box,
    front_picture,
    gain_axis,
    linear_ticks,
    log_ticks,
    strip_axis,
    tree_picture,
)
from limbeck.report.table import rows


def picture(**changes):
    summary = stories.run_summary(**changes)
    return front_picture(summary, rows(summary))


def test_points_lie_inside_and_in_order():
    chart = picture()
    by_key = {point["row"].key: point for point in chart["points"]}
    for point in chart["points"]:
        assert FRONT.left <= point["x"] <= FRONT.right
        assert FRONT.top <= point["y"] <= FRONT.bottom
    assert by_key["qb"]["x"] < by_key["qa"]["x"] < chart["budget"]["at"] < by_key["t"]["x"]
    assert by_key["qb"]["y"] > chart["floor"]["at"] > by_key["qa"]["y"]
    assert by_key["qa"]["kind"] == "chosen"
    assert by_key["t"]["kind"] == "teacher"


def test_equal_ratios_are_equally_far_apart():
    by_key = {point["row"].key: point["x"] for point in picture()["points"]}
    assert by_key["t"] - by_key["tx"] == pytest.approx(by_key["tx"] - by_key["xa"])


def test_labels_do_not_overlap():
    boxes = []
    for point in picture()["points"]:
        label, half = point["label"], LETTER * len(point["row"].name) / 2
        assert label is not None or point["kind"] == "dominated"
        if label:
            center = label["anchor_y"]
            boxes.append(Box(label["x"] - half, center - LINE / 2, label["x"] + half, center + LINE / 2))
    assert max(a.overlap(b) for a, b in combinations(boxes, 2)) < 30


def test_picture_lives_without_budget_intervals_or_points():
    chart = picture(budget=Budget())
    assert chart["budget"] is None
    assert chart["floor"] is None
    assert picture(measured=()) == {}
    records = stories.records()
    bare = tuple(replace(fact, low=None, high=None) for fact in records["qa"].facts)
    only = picture(records={**records, "qa": replace(records["qa"], facts=bare)}, measured=("qa",))
    assert only["points"][0]["y_bar"] is None
    assert math.isfinite(only["points"][0]["y"])


def test_ticks_are_round_and_inside():
    assert log_ticks(0.3, 7) == [0.5, 1.0, 2.0, 5.0]
    for low, high in ((0.811, 0.893), (0.1, 0.99), (-0.2, 0.4)):
        ticks = linear_ticks(low, high)
        assert 3 <= len(ticks) <= 11
        assert all(low <= tick <= high for tick in ticks)


def test_tree_shows_every_ancestor_once_and_the_failure():
    tree = tree_picture(stories.run_summary())
    keys = [node["record"].key for node in tree["nodes"] if node["record"] is not None]
    assert sorted(keys) == sorted(stories.records())
    failed = [node for node in tree["nodes"] if node["kind"] == "failed"]
    assert [node["title"] for node in failed] == ["quantize"]
    assert len(tree["edges"]) == len(tree["nodes"]) - 1
    width, height = tree["node"]
    boxes = [Box(n["x"], n["y"], n["x"] + width, n["y"] + height) for n in tree["nodes"]]
    assert max(a.overlap(b) for a, b in combinations(boxes, 2)) == 0
    assert all(box.right <= tree["width"] and box.bottom <= tree["height"] for box in boxes)


def test_axes_hold_their_values():
    summary = stories.run_summary()
    scale = gain_axis(gains(summary))["scale"]
    assert all(0 <= scale(gain.speed.value) <= 300 for gain in gains(summary))
    assert 0 <= strip_axis(rows(summary))["scale"](8.0) <= 640
    assert strip_axis([]) == {}
    assert gain_axis([])["ticks"]
