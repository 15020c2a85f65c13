"""Early exits and cascades in table, page, card and JSON, with the mean beside median and 99th percentile."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import pytest
import stories
from rich.console import Console

from limbeck.core.candidate import Record
from limbeck.core.measurement import CASCADE, EARLY_EXITS, Measurement
from limbeck.core.target import Budget
from limbeck.report.artefact import describe
from limbeck.report.display_names import names
from limbeck.report.early_exits import exit_lines, exit_rows, exits_json, exits_of
from limbeck.report.html import report_html
from limbeck.report.model_card import card
from limbeck.report.report import front_rows, front_table, to_json
from limbeck.report.table import predicted, rows

DETAIL = {
    "layers": [2, 4], "criterion": "confidence", "threshold": 0.9, "shares": [0.61, 0.2, 0.19], "changed": 3,
    "highest": 0.0123,
}  # fmt: skip


def exiting_story(threshold=0.9, **changes):
    """The story whose candidate a has early exits before it is exported."""
    records = stories.records()
    detail = DETAIL | {"threshold": threshold}
    fact = Measurement(EARLY_EXITS, 0.81, "1", 0.78, 0.84, n=400, split="validation", detail=detail)
    records["ea"] = replace(records["da"], key="ea", parent="da", step="early_exit", parameters={}, facts=(fact,))
    records["ea"] = replace(records["ea"], traits=records["da"].traits | {"exits"})
    records["xa"] = replace(records["xa"], parent="ea")
    for key in ("t", "tx", "tq", "xa", "qa", "xb", "qb"):
        p50 = records[key].fact("latency_p50")
        records = stories.with_facts(records, key, replace(p50, name="latency_mean", value=p50.value * 1.1))
    return stories.run_summary(records=records, **changes)


def printed(summary):
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(front_table(summary))
    return console.export_text()


def test_descendants_have_the_exits_of_the_model_they_were_made_of():
    summary = exiting_story()
    assert exits_of(summary, "qa").value == 0.81
    assert exits_of(summary, "qb") is None
    assert [row.rule for row in exit_rows(summary)] == ["confidence 0.9"] * 2
    assert set(exits_json(summary)) == {"xa", "qa"}
    assert "61 % after layer 2, 20 % after layer 4, 19 % at the end" in exit_lines(summary)[0]
    changed = {row.name: row.changed for row in exit_rows(summary)}
    for key, form in (("xa", ""), ("qa", ", before INT8")):
        expected = f"3 of 400 validation answers in floating point{form} (95 %: at most 1.23 % of all)"
        assert changed[names(summary)[key]] == expected
        assert any(line.endswith(expected) for line in exit_lines(summary))


def test_table_page_card_and_json_have_them(exported):
    summary = exiting_story()
    text, page = printed(summary), report_html(summary)
    assert "mean ms" in text
    assert "61 % after layer 2" in text
    assert "with early exits" in text
    assert "Early exits" in page
    assert "Mean, ms" in page
    assert "tall stroke: mean" in page
    written = card(summary, "qa", exported)
    assert "| latency mean | 1.43 ms |" in written
    leaving = "61 % after layer 2, 20 % after layer 4, 19 % at the end"
    assert f"| texts leave early, validation, in floating point | {leaving} |" in written
    assert to_json(summary)["early_exits"]["qa"]["shares"] == [0.61, 0.2, 0.19]
    assert front_rows(summary)[0]["latency_mean_ms"] == pytest.approx(8.8)


@pytest.mark.parametrize("summary", [stories.run_summary(), exiting_story(threshold=None)], ids=["none", "never"])
def test_without_exits_there_is_nothing_of_them(summary, exported):
    assert exit_rows(summary) == []
    assert "early_exits" not in to_json(summary)
    assert "Early exits" not in report_html(summary)
    assert "mean ms" not in printed(summary)
    assert "latency mean" not in card(summary, "qa", exported)


@pytest.mark.parametrize("statistic", ["mean", "p99"])
def test_the_budgets_statistic_decides_order_front_and_speed(statistic):
    records = exiting_story().records
    for key, seconds in (("qa", 4e-3), ("xa", 1e-3)):  # by its median the fastest, by this one slow
        old = records[key].fact(f"latency_{statistic}")
        records = stories.with_facts(records, key, replace(old, value=seconds, low=None, high=None, detail={}))
    summary = stories.run_summary(records=records, budget=Budget(latency_ms=2.0, latency_statistic=statistic))
    table = {row.key: row for row in rows(summary)}
    assert table["qa"].latency.value == 4e-3
    assert table["qa"].problems == (f"{statistic} latency 4.00 ms > 2 ms",)
    assert not table["qa"].on_front
    order = [row.latency.value for row in rows(summary)]
    assert order == sorted(order, reverse=True)
    assert f"latency {statistic}, ms (log scale)" in report_html(summary)


CASCADE_DETAIL = DETAIL | {"layers": [1], "shares": [0.7, 0.3]}


def cascade_story(**changes):
    """The story with a cascade of its two INT8 candidates a and b."""
    records = stories.records()
    fact = Measurement(CASCADE, 0.7, "1", 0.66, 0.74, n=400, split="validation", detail=CASCADE_DETAIL)
    parameters = {"criterion": "confidence", "max_changed": 1.0, "most": 3, "partner": "qb"}
    measured = stories.facts(0.9e-3, 178, 20e6)
    mean = Measurement("latency_mean", 1.0e-3, "s", n=150)
    records["c"] = Record(
        "c",
        "qa",
        "cascade",
        parameters,
        records["qa"].shape,
        records["qa"].traits | {"cascade"},
        (fact, *measured, mean),
    )
    foretold = Measurement("latency_predicted", 1.3e-3, "s", detail={"number_format": "int8"})
    records = stories.with_facts(records, "pa", foretold)
    return stories.run_summary(
        records=records, measured=(*stories.run_summary().measured, "c"), chosen=("c",), **changes
    )


def test_a_cascade_has_the_names_of_both_models():
    summary = cascade_story()
    display = names(summary)
    assert display["c"] == f"{display['qb']} → {display['qa']}"
    assert summary.records["c"].fact(CASCADE) == exits_of(summary, "c")
    assert exits_of(summary, "qa") is None
    assert exit_rows(summary) == []
    assert [row.shares for row in exit_rows(summary, CASCADE)] == ["70 % by the smaller model, 30 % by the larger"]
    assert exit_lines(summary) == [
        f"{display['c']} (confidence 0.9): 70 % by the smaller model, 30 % by the larger; the smaller model changed 3 "
        "of 400 validation answers (95 %: at most 1.23 % of all)"
    ]


def test_cascades_of_the_same_models_are_told_apart():
    records = dict(cascade_story().records)
    records["c2"] = replace(records["c"], key="c2", parameters={**records["c"].parameters, "max_changed": 2.0})
    summary = stories.run_summary(records=records, measured=(*stories.run_summary().measured, "c", "c2"))
    display = names(summary)
    assert display["c"].endswith("· max_changed 1")
    assert display["c2"].endswith("· max_changed 2")


def test_table_page_card_json_and_artefact_have_a_cascade(exported, tmp_path):
    summary = cascade_story()
    text, page = printed(summary), report_html(summary)
    assert "mean ms" in text
    assert "70 % by the smaller model" in text
    assert '<h2 id="cascades">Cascades</h2>' in page
    assert "Early exits" not in page
    folder = shutil.copytree(exported, tmp_path / "model")
    assert "there are no weights for torch" not in card(summary, "c", folder)
    (folder / "model.safetensors").unlink()
    written = card(summary, "c", folder)
    assert "| texts answered, validation | 70 % by the smaller model, 30 % by the larger |" in written
    assert "The graph holds two models" in written
    assert "there are no weights for torch" in written
    single = card(summary, "qa", folder)
    assert "There are no weights for torch." in single
    assert "two models" not in single
    plain = to_json(summary)
    assert "early_exits" not in plain
    assert (plain["cascades"]["c"]["small"], plain["cascades"]["c"]["large"]) == ("qb", "qa")
    described = describe(summary, "c", exported)["cascade"]
    assert described["steps"][-1]["step"] == "quantize"
    assert described["shares"] == [0.7, 0.3]
    assert "cascade" not in describe(summary, "qa", exported)


def test_what_was_predicted_for_the_larger_model_is_not_said_of_both():
    summary = cascade_story()
    assert predicted(summary, "qa").value == 1.3e-3
    assert predicted(summary, "c") is None
