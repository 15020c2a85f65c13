"""What stored vectors lose reaches the page, the card and the JSON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import stories

from limbeck.core.kinds.embedding import KIND
from limbeck.core.measurement import Measurement
from limbeck.report.html import report_html
from limbeck.report.model_card import card
from limbeck.report.report import to_json
from limbeck.report.stored_vectors import stored_figures, stored_rows
from limbeck.report.table import rows


def fact(split):
    rng = np.random.default_rng(0)
    assessed = KIND.assess("spearman", (), rng.normal(size=(40, 160)), rng.normal(size=40))
    value, low, high = assessed.quality
    detail = {"metric": "spearman", **assessed.detail}
    return Measurement("quality", value, "1", low, high, n=40, split=split, detail=detail)


def vector_story():
    records = stories.records()
    for key in ("t", "qa"):
        rest = [each for each in records[key].facts if each.name != "quality"]
        records[key] = replace(records[key], facts=(*rest, fact("validation"), fact("test")))
    task = stories.task(kind="embedding", metric="spearman", label_names=())
    return stories.run_summary(records=records, task=task, measured=("t", "qa"))


def test_every_form_has_bytes_value_and_loss():
    table = {row.key: row for row in rows(vector_story())}
    stored = stored_rows(table["qa"], "test")
    assert [(row.form, row.bytes) for row in stored] == [
        ("int8 (range of each component)", 80),
        ("one bit (sign)", 10),
        ("first 64 components", 256),
    ]
    assert all(row.metric == "spearman" and "[" in row.loss for row in stored)
    assert stored_figures(None) == {}
    assert stored_rows(None, "test") == []


def test_page_card_and_json_have_them(exported):
    summary = vector_story()
    assert "Stored vectors" in report_html(summary)
    assert "| one bit (sign) | 10 | spearman |" in card(summary, "qa", exported)
    assert to_json(summary)["stored_vectors"]["qa"]["test"]["binary"]["bytes"] == 10


def test_other_tasks_have_none(exported):
    summary = stories.run_summary()
    assert "stored_vectors" not in to_json(summary)
    assert "Stored vectors" not in report_html(summary)
    assert "| vectors stored as" not in card(summary, "qa", exported)
