"""Early exits in table, page, card and JSON, with the mean beside median and 99th percentile."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import stories
from rich.console import Console

from limbeck.core.measurement import EARLY_EXITS, Measurement
from limbeck.core.target import Budget
from limbeck.report.early_exits import exit_lines, exit_rows, exits_json, exits_of
from limbeck.report.html import report_html
from limbeck.report.model_card import card
from limbeck.report.report import front_rows, front_table, to_json
from limbeck.report.table import rows

DETAIL = {
    "layers": [2, 4], "criterion": "confidence", "threshold": 0.9, "shares": [0.61, 0.2, 0.19], "changed": 3,
    "highest": 0.0123,
}  # fmt: skip


def exiting_story(threshold=0.9, **changes):
    """The story whose candidate a has early exits before it is exported."""
    made = stories.records()
    detail = DETAIL | {"threshold": threshold}
    fact = Measurement(EARLY_EXITS, 0.81, "1", 0.78, 0.84, n=400, split="validation", detail=detail)
    made["ea"] = replace(made["da"], key="ea", parent="da", step="early_exit", parameters={}, facts=(fact,))
    made["ea"] = replace(made["ea"], traits=made["da"].traits | {"exits"})
    made["xa"] = replace(made["xa"], parent="ea")
    for key in ("t", "tx", "tq", "xa", "qa", "xb", "qb"):
        p50 = made[key].fact("latency_p50")
        made = stories.with_facts(made, key, replace(p50, name="latency_mean", value=p50.value * 1.1))
    return stories.tell(records=made, **changes)


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
    assert "3 of 400 validation answers (95 %: at most 1.23 % of all)" in exit_lines(summary)[0]


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
    assert "| texts leave early, validation | 61 % after layer 2, 20 % after layer 4, 19 % at the end |" in written
    assert to_json(summary)["early_exits"]["qa"]["shares"] == [0.61, 0.2, 0.19]
    assert front_rows(summary)[0]["latency_mean_ms"] == pytest.approx(8.8)


@pytest.mark.parametrize("summary", [stories.tell(), exiting_story(threshold=None)], ids=["none", "never"])
def test_without_exits_there_is_nothing_of_them(summary, exported):
    assert exit_rows(summary) == []
    assert "early_exits" not in to_json(summary)
    assert "Early exits" not in report_html(summary)
    assert "mean ms" not in printed(summary)
    assert "latency mean" not in card(summary, "qa", exported)


@pytest.mark.parametrize("statistic", ["mean", "p99"])
def test_the_budgets_statistic_decides_order_front_and_speed(statistic):
    made = exiting_story().records
    for key, seconds in (("qa", 4e-3), ("xa", 1e-3)):  # by its median the fastest, by this one slow
        old = made[key].fact(f"latency_{statistic}")
        made = stories.with_facts(made, key, replace(old, value=seconds, low=None, high=None, detail={}))
    summary = stories.tell(records=made, budget=Budget(latency_ms=2.0, latency_statistic=statistic))
    table = {row.key: row for row in rows(summary)}
    assert table["qa"].latency.value == 4e-3
    assert table["qa"].problems == (f"{statistic} latency 4.00 ms > 2 ms",)
    assert not table["qa"].on_front
    order = [row.latency.value for row in rows(summary)]
    assert order == sorted(order, reverse=True)
    assert f"latency {statistic}, ms (log scale)" in report_html(summary)
