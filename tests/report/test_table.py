from __future__ import annotations

import re
from dataclasses import replace

import pytest
import stories

from limbeck.core.measurement import Measurement
from limbeck.report.display_names import names
from limbeck.report.table import int8_reference, rows, volume


def test_rows_hold_the_figures():
    by_key = {row.key: row for row in rows(stories.run_summary())}
    assert list(by_key) == ["t", "tx", "tq", "xa", "qa", "xb", "qb"]  # slowest first
    chosen = by_key["qa"]
    assert chosen.chosen
    assert chosen.meets_budget
    assert chosen.speedup.value == pytest.approx(8 / 1.3)
    assert chosen.speedup_int8.value == pytest.approx(3 / 1.3)
    assert chosen.drop == pytest.approx(1.5)
    assert set(chosen.quality) == {"validation", "test"}
    assert by_key["t"].teacher
    assert by_key["t"].speedup is None
    assert by_key["t"].problems == ("latency 8.00 ms > 2 ms",)
    assert any("quality" in problem for problem in by_key["qb"].problems)


def test_front_equals_brute_force():
    summary = stories.run_summary()
    points = {row.key: (row.p50.value, row.quality["validation"].value) for row in rows(summary)}

    def beaten(key):
        own = points[key]
        return any(p[0] <= own[0] and p[1] >= own[1] and p != own for p in points.values())

    assert {row.key for row in rows(summary) if row.on_front} == {key for key in points if not beaten(key)}


def test_replicas_and_missing_facts_do_not_disturb():
    records = stories.records()
    records["r"] = replace(records["qa"], key="r")
    records["xb"] = replace(records["xb"], facts=())
    by_key = {
        row.key: row
        for row in rows(stories.run_summary(records=records, measured=("t", "qa", "r", "xb"), replicas={"qa": ["r"]}))
    }
    assert "r" not in by_key
    assert by_key["xb"].p50 is None
    assert not by_key["xb"].on_front


def test_nothing_measured_gives_no_rows():
    assert rows(stories.run_summary(measured=(), chosen=())) == ()


def test_a_super_network_in_int8_is_not_the_teacher_in_int8():
    records = stories.records()
    traits = records["t"].traits | {"elastic"}
    records["s"] = replace(records["t"], key="s", parent="t", step="supernet", traits=traits)
    records["tx"] = replace(records["tx"], parent="s", traits=records["tx"].traits | {"elastic"})
    records["tq"] = replace(records["tq"], traits=records["tq"].traits | {"elastic"})
    summary = stories.run_summary(records=records)
    assert names(summary)["tq"] == "made elastic · INT8"
    assert int8_reference(summary) is None
    assert int8_reference(stories.run_summary()) == "tq"
    for key in ("aa", "zz"):  # a static or a smooth twin never takes its place
        for parameters in ({"mode": "static"}, {"smooth": True}):
            records = stories.records()
            records[key] = replace(records["tq"], key=key, parameters=parameters)
            assert int8_reference(stories.run_summary(records=records, measured=("t", "tq", key))) == "tq"


def prediction(value, low, high, number_format="int8", **detail):
    detail = {"number_format": number_format, **detail}
    return Measurement("latency_predicted", value, "s", low, high, detail=detail)


def predicted(records):
    return {row.key: (row.predicted, row.as_predicted) for row in rows(stories.run_summary(records=records))}


def test_what_was_foretold_of_a_shape_holds_for_what_comes_of_it():
    """pa is the winner of a search, told its INT8 latency: its INT8 descendant (1.3 ms) has it, no other row."""
    fact = prediction(1.2e-3, 1.1e-3, 1.4e-3)
    predictions = predicted(stories.with_facts(stories.records(), "pa", fact))
    assert predictions.pop("qa") == (fact, True)
    assert set(predictions.values()) == {(None, None)}
    missed = prediction(1.0e-3, 0.9e-3, 1.1e-3)
    assert predicted(stories.with_facts(stories.records(), "pa", missed))["qa"] == (missed, False)
    bare = prediction(1.2e-3, None, None)
    assert predicted(stories.with_facts(stories.records(), "pa", bare))["qa"] == (bare, None)
    floating = prediction(2.0e-3, 1.9e-3, 2.1e-3, "float")
    predictions = predicted(stories.with_facts(stories.records(), "pa", floating))
    assert predictions["xa"] == (floating, True)
    assert predictions["qa"] == (None, None)


def test_what_was_foretold_does_not_outlive_the_shape_or_leave_the_machine():
    records = stories.with_facts(stories.records(), "pa", prediction(1.2e-3, 1.1e-3, 1.4e-3))
    for key in ("da", "xa", "qa"):
        records[key] = replace(records[key], shape=records["pb"].shape)
    assert predicted(records)["qa"] == (None, None)
    other = stories.with_facts(stories.records(), "pa", prediction(1.2e-3, 1.1e-3, 1.4e-3, elsewhere=True))
    assert predicted(other)["qa"] == (None, None)


def test_the_volume_is_the_area_below_the_stairs():
    """Counted in small cells between the front and the reference point."""
    summary = stories.run_summary()
    front = volume(summary)
    points = [(row.p50.value, row.quality["validation"].value) for row in rows(summary)]
    assert front.latency > max(latency for latency, _ in points)
    assert front.quality < min(quality for _, quality in points)
    cells, inside = 400, 0
    for x in range(cells):
        for y in range(cells):
            latency = front.latency * (x + 0.5) / cells
            quality = front.quality + (1 - front.quality) * (y + 0.5) / cells
            inside += any(point[0] <= latency and point[1] >= quality for point in points)
    area = inside / cells**2 * front.latency * (1 - front.quality)
    assert front.value == pytest.approx(area, rel=0.02)
    assert volume(stories.run_summary(measured=("t",))) is None


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (Measurement("portability", 1.0, "1", 1.0, 1.0, detail={"pairs": 0}), "compute the same sums"),
        (
            Measurement(
                "portability", 1.0, "1", n=50, split="test", detail={"pairs": 9, "differ": 0, "largest": 0.1234}
            ),
            r"answers to 50 test texts stay the same \(logits move by up to 0\.12\)",
        ),
        (
            Measurement("portability", 0.96, "1", n=50, split="test", detail={"pairs": 9, "differ": 2, "largest": 1.0}),
            "Warning: .* answer 2 of 50 test texts differently .* reduce_range: true",
        ),
    ],
)
def test_a_row_says_what_becomes_of_it_without_vnni(fact, words):
    by_key = {
        row.key: row for row in rows(stories.run_summary(records=stories.with_facts(stories.records(), "qa", fact)))
    }
    assert re.search(words, by_key["qa"].without_vnni)
    assert by_key["tq"].without_vnni == ""
