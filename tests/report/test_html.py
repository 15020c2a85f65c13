"""The page of a run: well formed, readable without seeing it, safe against text that others wrote."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import stories
from rich.console import Console

from limbeck.core.measurement import Measurement
from limbeck.core.target import Budget
from limbeck.report.html import front_svg, replicas, report_html
from limbeck.report.report import front_csv, front_table, to_json, volume_line

VOID = {"meta", "line", "circle", "rect", "path", "polyline", "br", "link", "img"}


class Page(HTMLParser):
    """Collects what a browser would see: tags, text, and whether tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_front_is_a_picture_of_its_own():
    summary = stories.run_summary()
    picture = ElementTree.fromstring(front_svg(summary))
    labels = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "pruned 2.0x · distilled · INT8" in labels
    timeless = {key: replace(record, facts=()) for key, record in stories.records().items()}
    assert front_svg(stories.run_summary(records=timeless)) == ""


def test_page_is_one_well_formed_file_that_needs_no_network():
    page = Page(report_html(stories.run_summary(replicas={"qa": ["xa"]}), example="print('hello')"))
    assert page.open == []
    assert not [attrs for _, attrs in page.tags if {"src", "href", "srcset", "action"} & set(attrs)]
    assert "url(" not in page.text.replace("url(#inside)", "")
    for words in (
        "Latency and quality",
        "What each step gained",
        "pruned 2.0x · distilled · INT8",
        "print('hello')",
        "Toy CPU",
    ):
        assert words in page.text
    assert "3 empty texts were left out" in page.text
    assert "finetune: {epochs: 3}" in page.text
    assert "Traceback\n  boom" in page.text


def test_page_can_be_read_without_seeing_it():
    tags = Page(report_html(stories.run_summary())).tags
    names = [tag for tag, _ in tags]
    assert "title" in names
    assert ("html", {"lang": "en"}) in tags
    assert all("scope" in attrs for tag, attrs in tags if tag == "th")
    assert all("aria-label" in attrs or "aria-hidden" in attrs for tag, attrs in tags if tag == "svg")
    identifiers = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))
    assert {attrs["aria-labelledby"] for _, attrs in tags if "aria-labelledby" in attrs} <= set(identifiers)


def test_page_escapes_everything_that_others_wrote():
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    records = stories.records()
    records["root"] = replace(records["root"], parameters={"source": evil})
    records["pa"] = replace(records["pa"], parameters={"note": evil, evil: 1}, notes=(evil,), step=evil)
    summary = stories.run_summary(
        records=records,
        recipe=evil,
        environment={"processor": evil, "versions": {evil: evil}},
        failed=[{"step": evil, "key": "xb", "error": evil, "traceback": evil}],
        task=stories.task(name=evil, notes=(evil,)),
        replicas={"qa": ["xa"]},
    )
    page = Page(report_html(summary, example=evil))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


@pytest.mark.parametrize(
    "changes",
    [
        {"measured": (), "chosen": (), "failed": ()},
        {"chosen": (), "teacher": None, "task": None, "budget": Budget()},
        {"measured": ("qa",), "environment": {}, "recipe": "", "seeds": ()},
        {"chosen": ("t",)},
    ],
)
def test_page_lives_with_little(changes):
    assert Page(report_html(stories.run_summary(**changes))).open == []


def test_page_lives_without_some_facts():
    records = stories.records()
    records["qa"] = replace(records["qa"], facts=())
    facts = (Measurement("latency_p50", 0.001, "s"), Measurement("size", 1.0, "B"))
    records["xa"] = replace(records["xa"], facts=facts)
    assert Page(report_html(stories.run_summary(records=records))).open == []
    assert front_csv(stories.run_summary(records=records))


def test_correlations_are_not_per_cent():
    records = stories.records()
    for key, record in records.items():
        named = [replace(f, detail={"metric": "pearson_spearman"}) if f.name == "quality" else f for f in record.facts]
        records[key] = replace(record, facts=tuple(named))
    text = Page(report_html(stories.run_summary(records=records, task=stories.task(metric="pearson_spearman")))).text
    assert "0.885" in text
    assert "88.5 %" not in text


def test_replicas_have_mean_and_spread():
    groups = replicas(stories.run_summary(replicas={"qa": ["xa", "qb"]}))
    assert groups[0]["mean"] == pytest.approx((0.885 + 0.89 + 0.745) / 3)
    assert groups[0]["spread"] == pytest.approx(0.0823, abs=1e-3)


def test_what_was_done_to_the_rows_is_told_in_tables():
    assert "Augmented texts" not in report_html(stories.run_summary())
    samples = [{"original": "a film", "new": "<img src=x> [MASK]", "label": "good"}]
    first = {"title": "Augmented texts", "summary": "method x", "counts": {"samples drawn": 12_345}, "samples": samples}
    page = Page(
        report_html(
            stories.run_summary(histories=[first, {"title": "Augmented texts", "summary": "again"}, {"step": "bare"}])
        )
    )
    assert not page.open
    assert [tag for tag, _ in page.tags].count("img") == 0
    assert page.text.count("Augmented texts") == 3  # one heading, two captions
    for words in ("method x", "again", "Samples drawn", "12,345", "Original", "<img src=x> [MASK]", "What was done"):
        assert words in page.text


def test_failures_may_be_dataclasses():
    failure = SimpleNamespace(path="steps[1]", step="prune", key="t", error="Boom", traceback="")
    text = report_html(stories.run_summary(failed=[failure]))
    assert re.search(r"<strong>prune</strong>: Boom", text)


def test_predicted_and_measured_stand_side_by_side():
    fact = Measurement("latency_predicted", 1.2e-3, "s", 1.1e-3, 1.25e-3, detail={"number_format": "int8"})
    summary = stories.run_summary(records=stories.with_facts(stories.records(), "pa", fact))
    console = Console(width=240, record=True, quiet=False, file=io.StringIO())
    console.print(front_table(summary))
    text = console.export_text()
    assert "1.20 [1.10, 1.25] ✗" in text
    page = Page(report_html(summary))
    assert "Predicted, ms" in page.text
    assert "1.20 ✗[1.10, 1.25]" in page.text
    line = next(line for line in csv.DictReader(io.StringIO(front_csv(summary))) if line["key"] == "qa")
    assert (float(line["latency_predicted_ms"]), line["latency_as_predicted"]) == (pytest.approx(1.2), "False")
    assert "predicted" not in front_csv(stories.run_summary())
    assert "Predicted" not in Page(report_html(stories.run_summary())).text


def test_the_hypervolume_has_its_reference_point():
    summary = stories.run_summary()
    line = volume_line(summary)
    reference = r"[\d.]+ % accuracy \(validation\) and [\d.]+ ms"
    assert re.fullmatch(rf"Hypervolume of the front: [\d.]+ points x ms, from the reference point {reference}", line)
    assert line in Page(report_html(summary)).text
    assert to_json(summary)["hypervolume"].keys() == {"value", "quality", "latency"}
    assert volume_line(stories.run_summary(measured=("t",))) == ""
    assert to_json(stories.run_summary(measured=("t",)))["hypervolume"] is None
