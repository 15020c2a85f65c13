from __future__ import annotations

import re
from dataclasses import replace

import pytest
import stories

from limbeck.core.measurement import Measurement
from limbeck.report.display_names import names
from limbeck.report.table import int8_reference, rows, volume


def test_rows_hold_the_figures():
    made = {row.key: row for row in rows(stories.tell())}
    assert list(made) == ["t", "tx", "tq", "xa", "qa", "xb", "qb"]  # slowest first
    chosen = made["qa"]
    assert chosen.chosen
    assert chosen.meets_budget
    assert chosen.speedup.value == pytest.approx(8 / 1.3)
    assert chosen.speedup_int8.value == pytest.approx(3 / 1.3)
    assert chosen.drop == pytest.approx(1.5)
    assert set(chosen.quality) == {"validation", "test"}
    assert made["t"].teacher
    assert made["t"].speedup is None
    assert made["t"].problems == ("latency 8.00 ms > 2 ms",)
    assert any("quality" in problem for problem in made["qb"].problems)


def test_front_equals_brute_force():
    summary = stories.tell()
    points = {row.key: (row.p50.value, row.quality["validation"].value) for row in rows(summary)}

    def beaten(key):
        mine = points[key]
        return any(p[0] <= mine[0] and p[1] >= mine[1] and p != mine for p in points.values())

    assert {row.key for row in rows(summary) if row.on_front} == {key for key in points if not beaten(key)}


def test_replicas_and_missing_facts_do_not_disturb():
    made = stories.records()
    made["r"] = replace(made["qa"], key="r")
    made["xb"] = replace(made["xb"], facts=())
    found = {
        row.key: row
        for row in rows(stories.tell(records=made, measured=("t", "qa", "r", "xb"), replicas={"qa": ["r"]}))
    }
    assert "r" not in found
    assert found["xb"].p50 is None
    assert not found["xb"].on_front


def test_nothing_measured_gives_no_rows():
    assert rows(stories.tell(measured=(), chosen=())) == []


def test_a_super_network_in_int8_is_not_the_teacher_in_int8():
    made = stories.records()
    traits = made["t"].traits | {"elastic"}
    made["s"] = replace(made["t"], key="s", parent="t", step="supernet", traits=traits)
    made["tx"] = replace(made["tx"], parent="s", traits=made["tx"].traits | {"elastic"})
    made["tq"] = replace(made["tq"], traits=made["tq"].traits | {"elastic"})
    summary = stories.tell(records=made)
    assert names(summary)["tq"] == "made elastic · INT8"
    assert int8_reference(summary) is None
    assert int8_reference(stories.tell()) == "tq"
    for key in ("aa", "zz"):  # a static or a smooth twin never takes its place
        for parameters in ({"mode": "static"}, {"smooth": True}):
            made = stories.records()
            made[key] = replace(made["tq"], key=key, parameters=parameters)
            assert int8_reference(stories.tell(records=made, measured=("t", "tq", key))) == "tq"


def foretold(value, low, high, number_format="int8", **detail):
    detail = {"number_format": number_format, **detail}
    return Measurement("latency_predicted", value, "s", low, high, detail=detail)


def predicted(made):
    return {row.key: (row.predicted, row.as_predicted) for row in rows(stories.tell(records=made))}


def test_what_was_foretold_of_a_shape_holds_for_what_comes_of_it():
    """pa is the winner of a search, told its INT8 latency: its INT8 descendant (1.3 ms) has it, no other row."""
    fact = foretold(1.2e-3, 1.1e-3, 1.4e-3)
    found = predicted(stories.with_facts(stories.records(), "pa", fact))
    assert found.pop("qa") == (fact, True)
    assert set(found.values()) == {(None, None)}
    missed = foretold(1.0e-3, 0.9e-3, 1.1e-3)
    assert predicted(stories.with_facts(stories.records(), "pa", missed))["qa"] == (missed, False)
    bare = foretold(1.2e-3, None, None)
    assert predicted(stories.with_facts(stories.records(), "pa", bare))["qa"] == (bare, None)
    floating = foretold(2.0e-3, 1.9e-3, 2.1e-3, "float")
    found = predicted(stories.with_facts(stories.records(), "pa", floating))
    assert found["xa"] == (floating, True)
    assert found["qa"] == (None, None)


def test_what_was_foretold_does_not_outlive_the_shape_or_leave_the_machine():
    made = stories.with_facts(stories.records(), "pa", foretold(1.2e-3, 1.1e-3, 1.4e-3))
    for key in ("da", "xa", "qa"):
        made[key] = replace(made[key], shape=made["pb"].shape)
    assert predicted(made)["qa"] == (None, None)
    other = stories.with_facts(stories.records(), "pa", foretold(1.2e-3, 1.1e-3, 1.4e-3, elsewhere=True))
    assert predicted(other)["qa"] == (None, None)


def test_the_volume_is_the_area_below_the_stairs():
    """Counted in small cells between the front and the reference point."""
    summary = stories.tell()
    found = volume(summary)
    points = [(row.p50.value, row.quality["validation"].value) for row in rows(summary)]
    assert found.latency > max(latency for latency, _ in points)
    assert found.quality < min(quality for _, quality in points)
    cells, inside = 400, 0
    for x in range(cells):
        for y in range(cells):
            latency = found.latency * (x + 0.5) / cells
            quality = found.quality + (1 - found.quality) * (y + 0.5) / cells
            inside += any(mine <= latency and theirs >= quality for mine, theirs in points)
    area = inside / cells**2 * found.latency * (1 - found.quality)
    assert found.value == pytest.approx(area, rel=0.02)
    assert volume(stories.tell(measured=("t",))) is None


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
    made = {row.key: row for row in rows(stories.tell(records=stories.with_facts(stories.records(), "qa", fact)))}
    assert re.search(words, made["qa"].without_vnni)
    assert made["tq"].without_vnni == ""
