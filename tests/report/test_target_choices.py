"""Several targets side by side."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
import stories

from limbeck.core.target import Budget, Target
from limbeck.report.display_names import names
from limbeck.report.html import report_html
from limbeck.report.report import front_table, headline, named_headline, run_json, to_json
from limbeck.report.table import rows
from limbeck.report.target_choices import target_choices, targets_csv, targets_html
from limbeck.report.text import front_frame, summary, summary_html


@pytest.fixture
def several():
    """One run on two targets: on the second all is three times as slow, and something else was chosen."""
    summary = stories.run_summary()
    slower = {
        key: replace(
            record,
            facts=tuple(
                replace(fact, value=3 * fact.value, low=None, high=None, detail={})
                if fact.name.startswith("latency_p")
                else fact
                for fact in record.facts
            ),
        )
        for key, record in summary.records.items()
    }
    other = next(row.key for row in rows(summary) if row.key not in summary.chosen and not row.teacher and row.p50)
    second = {"records": slower, "chosen": [other], "target": Target(threads=1), "budget": Budget(latency_ms=0.001)}
    server = replace(summary, target_name="server", target=Target(threads=8))
    laptop = replace(summary, target_name="laptop", **second)
    return replace(server, others={"laptop": laptop}), replace(laptop, others={"server": server})


def test_each_target_has_its_choice_and_a_model_has_a_latency_on_each(several):
    server, laptop = several
    (key,) = server.chosen
    first, second = target_choices(server, key)
    assert (first.name, second.name) == ("server", "laptop")
    assert (first.chosen, second.chosen) == (names(server)[key], names(laptop)[laptop.chosen[0]])
    assert first.latency == first.here != second.here
    assert second.budget.startswith("latency")
    assert "> 0.001 ms" in second.budget
    assert [line.name for line in target_choices(laptop)] == ["laptop", "server"]
    assert target_choices(replace(server, others={})) == []
    (none, _) = target_choices(replace(server, chosen=[]))
    assert (none.chosen, none.latency, none.here) == ("none", "–", "–")


def test_the_page_has_a_section_and_a_link_for_each(several):
    server, _ = several
    page = targets_html(server)
    for name in ("server", "laptop"):
        assert f'<h2 id="target-{name}">' in page
        assert f'href="report-{name}.html"' in page
    assert page.count('<caption class="hidden">Measured candidates</caption>') == 2
    assert "onnxruntime, 8 threads" in page
    assert "laptop (onnxruntime, 1 thread" in report_html(server)


def test_text_table_csv_and_json_have_all_targets(several):
    server, laptop = several
    text = summary(server, {})
    assert "latency on server (onnxruntime, 8 threads" in text
    assert named_headline(laptop) == f"laptop: {headline(laptop)}"
    for each in several:
        assert named_headline(each) in text
    assert summary_html(server, {}).count("<table>") == 2
    lines = list(csv.DictReader(io.StringIO(targets_csv(server))))
    assert len(lines) == 2 * len(rows(server))
    assert {line["target"] for line in lines} == {"server", "laptop"}
    assert next(iter(front_frame(server).columns)) == "target"
    assert str(front_table(server).title).endswith("latency on server (onnxruntime, 8 threads, batch 1, real lengths)")
    output = run_json({"server": server, "laptop": laptop})
    assert output["targets"] == {"server": to_json(server), "laptop": to_json(laptop)}
    assert output["targets"]["laptop"]["target_name"] == "laptop"
    assert output["headline"] == f"{named_headline(server)}; {named_headline(laptop)}"


def test_a_single_target_is_shown_without_a_name():
    summary = stories.run_summary()
    assert run_json({"": summary}) == to_json(summary)
    assert "target_name" not in to_json(summary)
    assert "target" not in front_frame(summary).columns
