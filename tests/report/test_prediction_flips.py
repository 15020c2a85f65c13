"""How answers differ from the reference's, in the table, on the page, in the card, in CSV and JSON."""

import csv
import io
from dataclasses import replace

import numpy as np
import stories

from limbeck.core.answer_changes import Answers, compare
from limbeck.core.kinds import KINDS
from limbeck.report.html import report_html
from limbeck.report.model_card import figures
from limbeck.report.prediction_flips import changed_column, changed_words, groups, most_changed
from limbeck.report.report import front_csv, front_table, slim, to_json
from limbeck.report.table import rows

SECRET = "a text of the user's"


def facts(kind, before, after, labels, names=("negative", "positive")):
    lengths = np.arange(len(labels)) + 3
    changes = compare(KINDS[kind], names, Answers(before, labels, lengths), Answers(after, labels, lengths))
    return [
        fact for split in ("validation", "test") for fact in changes.facts(split, "t", lengths, [SECRET] * len(labels))
    ]


def summary_of(kind="classification", chosen="qa"):
    """The run in which every tenth answer of one model has changed, from a right one to a wrong one."""
    count = 200
    labels = [row % 2 for row in range(count)]
    before = np.eye(2)[labels] * 4.0
    after = np.where(np.arange(count)[:, None] % 10 == 0, before[:, ::-1], before)
    if kind == "regression":
        before, after, labels = before[:, :1], after[:, :1] + 0.25, [float(label) for label in labels]
    records = stories.with_facts(stories.records(), chosen, *facts(kind, before, after, labels))
    records = stories.with_facts(records, "t", *facts(kind, before, before, labels))
    return stories.run_summary(records=records)


def row_of(summary, key):
    return next(row for row in rows(summary) if row.key == key)


def test_flips_are_said_in_words_and_numbers():
    summary = summary_of()
    row = row_of(summary, "qa")
    words = changed_words(row, "test")
    assert words.startswith(
        "10.0 % [6.6 %, 14.9 %] of 200 answers differ: 20 right ones became wrong, 0 wrong ones right."
    )
    assert "0.096 on average" in words
    assert groups(row, "test")[0] == {"group": "negative", "n": 100, "changed": 20, "lost": 20, "won": 0}
    assert len(most_changed(row, "test")) == 20
    assert changed_words(row_of(summary, "t"), "test") == changed_words(row_of(summary, "xa"), "test") == ""


def test_the_table_has_a_column_where_something_was_compared():
    summary = summary_of()
    assert changed_column(rows(summary), "validation") == ("flips", {"qa": "10.0 %"})
    assert [column.header for column in front_table(summary).columns][2:6] == ["validation", "test", "flips", "p50 ms"]
    old = stories.run_summary()
    assert changed_column(rows(old), "validation") is None
    assert "flips" not in [column.header for column in front_table(old).columns]


def test_numbers_have_a_column_of_drift():
    summary = summary_of("regression")
    heading, cells = changed_column(rows(summary), "validation")
    assert (heading, set(cells)) == ("drift", {"qa"})
    assert "answers differ" not in changed_words(row_of(summary, "qa"), "test")


def test_csv_and_json_have_the_same_figures():
    summary = summary_of()
    lines = {line["key"]: line for line in csv.DictReader(io.StringIO(front_csv(summary)))}
    assert float(lines["qa"]["flips_test"]) == 0.1
    assert float(lines["t"]["flips_test"]) == 0.0
    assert lines["xa"]["flips_test"] == ""
    changes = to_json(summary)["changes"]
    assert set(changes) == {"t", "qa"}
    assert changes["qa"]["flips"]["test"]["value"] == 0.1
    assert changes["qa"]["drift"]["validation"]["detail"]["most_changed"][0]["text"] == SECRET
    assert to_json(stories.run_summary())["changes"] == {}
    assert "flips_test" not in front_csv(stories.run_summary())


def test_the_page_shows_them_and_quotes_texts_only_where_it_is_not_published():
    page = report_html(summary_of())
    assert "Where it differs from its teacher" in page
    assert "The 20 texts that changed most" in page
    assert "user&#39;s" in page
    assert "user&#39;s" not in report_html(summary_of(), texts=False)
    assert "Where it differs from" not in report_html(stories.run_summary())


def test_card_and_description_have_figures_and_no_text():
    summary = summary_of()
    row = row_of(summary, "qa")
    lines = {line.label: line for line in figures(summary, row, row_of(summary, "t"))}
    assert lines["answers that changed, test"].value == "10.0 % (20 now wrong, 0 now right)"
    assert lines["drift of the score, test"].value.startswith("0.096 on average")
    assert not any(SECRET in str(slim(fact)) for fact in summary.records["qa"].facts)


def test_flips_against_another_model_are_not_shown():
    summary = replace(summary_of(), reference="tx")
    assert row_of(summary, "qa").changes == {}


def test_too_many_flips_break_the_budget():
    summary = summary_of()
    summary = replace(summary, budget=replace(summary.budget, max_flips=5.0))
    assert row_of(summary, "qa").problems == ("10.0 % of the answers changed > 5 %",)
