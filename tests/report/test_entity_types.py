"""Figures by type of entity reach the page, the card and the JSON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import stories

from limbeck.core.kinds.tokens import KIND
from limbeck.core.measurement import Measurement
from limbeck.report.entity_types import type_rows, types_of
from limbeck.report.html import report_html
from limbeck.report.model_card import card
from limbeck.report.report import errors_line, to_json
from limbeck.report.table import rows

NAMES = ("O", "B-place", "I-place", "B-person")


def fact(wrong, split):
    """Two places and a person in each of 60 sentences; the person is missed in some, and a place in one of four."""
    truth = [1, 2, 0, 3, 0, 1]
    guesses = [[1, 2, 0, 0 if row < wrong else 3, 0, 1 if row % 4 else 0] for row in range(60)]
    assessed = KIND.assess("entity_f1", NAMES, [np.eye(4)[guess] for guess in guesses], [truth] * 60)
    value, low, high = assessed.quality
    detail = {"metric": "entity_f1", **assessed.detail}
    quality = Measurement("quality", value, "1", low, high, n=60, split=split, detail=detail)
    beside = [Measurement(name, *each[:1], "1", *each[1:], n=60, split=split) for name, each in assessed.beside.items()]
    return (quality, *beside)


def entity_story():
    records = stories.records()
    for key, wrong in (("t", 6), ("qa", 30)):
        rest = [each for each in records[key].facts if each.name != "quality"]
        records[key] = replace(records[key], facts=(*rest, *fact(wrong, "validation"), *fact(wrong, "test")))
    task = stories.task(kind="tokens", metric="entity_f1", label_names=NAMES)
    return stories.run_summary(records=records, task=task, measured=("t", "qa"))


def test_types_are_sorted_by_frequency_and_have_the_reference_beside():
    table = {row.key: row for row in rows(entity_story())}
    type_table = type_rows(table["qa"], table["t"], "test")
    assert [(row.type, row.n) for row in type_table] == [("place", 120), ("person", 60)]
    assert type_table[0][2:] == ("100.0%", "87.5%", "93.3%", "93.3%")
    assert type_table[1][2:] == ("100.0%", "50.0%", "66.7%", "94.7%")
    assert types_of(None) == {}
    assert type_rows(None, None, "test") == []


def test_page_card_and_json_have_them(exported):
    summary = entity_story()
    assert "Entities by type" in report_html(summary)
    text = card(summary, "qa", exported)
    assert "| person | 60 | 100.0% | 50.0% | 66.7% | 94.7% |" in text
    assert "| recall, test |" in text
    content = to_json(summary)["entities"]
    assert content["qa"]["test"]["person"]["correct"] == 30
    assert "chosen, test: precision 1.000 [1.000, 1.000], recall " in errors_line(summary)


def test_other_tasks_have_none(exported):
    summary = stories.run_summary()
    assert "entities" not in to_json(summary)
    assert "Entities by type" not in report_html(summary)
    assert "| entities," not in card(summary, "qa", exported)
