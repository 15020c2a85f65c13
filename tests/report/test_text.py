"""A run where a person looks at the value: text, HTML, data frame."""

from __future__ import annotations

from pathlib import Path

import stories

from limbeck.report.table import rows
from limbeck.report.text import front_frame, summary, summary_html

WRITTEN = {"artefact": Path("runs/<b>/artefact")}


def test_the_text_has_the_table_the_headline_and_the_paths():
    text = summary(stories.run_summary(), WRITTEN)
    assert "★" in text
    assert "faster than PyTorch" in text
    assert "artefact: runs/<b>/artefact" in text
    assert "\x1b" not in text


def test_the_html_has_a_row_for_each_candidate_and_is_escaped():
    summary = stories.run_summary()
    page = summary_html(summary, WRITTEN)
    assert page.count("<tr") == 1 + len(rows(summary))
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_the_frame_has_a_row_for_each_candidate():
    summary = stories.run_summary()
    frame = front_frame(summary)
    assert list(frame["key"]) == [row.key for row in rows(summary)]
    assert frame["chosen"].sum() == 1
