"""Flips by label and by length, counted and told."""

from types import SimpleNamespace

import numpy as np
import pytest
import stories

from limbeck.report.html import report_html
from limbeck.report.prediction_flips import Flips, flips, flips_of, groups_of
from limbeck.report.table import rows

TEXTS = SimpleNamespace(
    texts=tuple("x" * (1 + i % 30) for i in range(stories.EXAMPLES)),
    labels=tuple(i % 2 for i in range(stories.EXAMPLES)),
    pairs=None,
)


def summary_of(**splits):
    return stories.tell(task=stories.task(splits=splits))


def test_every_text_is_in_one_label_and_in_one_third():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, (2, 200))
    groups = groups_of(rng.integers(0, 3, 200), ["a", "b", "c"], rng.integers(4, 20, 200), "tokens")
    whole, *parts = flips(before, after, groups)
    assert (whole.n, whole.before) == (200, before.sum())
    assert whole.won - whole.lost == after.sum() - before.sum()
    for some in (parts[:3], parts[3:]):
        for name in ("n", "before", "lost", "won"):
            assert sum(getattr(group, name) for group in some) == getattr(whole, name)


def test_flips_of_a_run_are_those_of_the_answers_that_it_kept():
    summary = summary_of(test=TEXTS)
    teacher, row = (next(row for row in rows(summary) if row.key == key) for key in ("t", "qb"))
    whole, negative, *_ = flips_of(summary, row, teacher, "test")
    assert whole == Flips("all", 200, 178, 31, 0)  # the teacher has the first 178 right, this one the first 147
    assert negative == Flips("negative", 100, 89, 15, 0)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_nothing_is_told_of_texts_that_are_not_at_hand(split):
    summary = summary_of(test=TEXTS)
    teacher, row = (next(row for row in rows(summary) if row.key == key) for key in ("t", "qb"))
    assert flips_of(summary, teacher, teacher, split) == []
    assert flips_of(summary, row, None, split) == []
    assert bool(flips_of(summary, row, teacher, split)) == (split == "test")
    short = SimpleNamespace(texts=TEXTS.texts[:9], labels=TEXTS.labels[:9], pairs=None)
    assert flips_of(summary_of(test=short), row, teacher, "test") == []


def test_the_report_tells_them():
    page = report_html(summary_of(test=TEXTS))
    assert "Where it differs from its teacher" in page
    assert "over 19 characters" in page
    assert "Where it differs from" not in report_html(summary_of())
