"""Flips and drift against a slow count, decision by decision."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core import answer_changes
from limbeck.core.answer_changes import EXCERPT, SHOWN, Answers, compare
from limbeck.core.kinds import KINDS
from limbeck.core.metrics import IGNORED
from limbeck.core.statistics import wilson

NAMES = ("a", "b", "c")


def answers(logits, labels):
    return Answers(logits, labels, np.arange(len(labels)) + 3)


def softmax(row):
    return np.exp(row) / np.exp(row).sum()


@pytest.fixture
def classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60).tolist()
    return labels, rng.normal(size=(60, 3)), rng.normal(size=(60, 3))


def test_classes_against_a_slow_count(classes):
    labels, before, after = classes
    changes = compare(KINDS["classification"], NAMES, answers(before, labels), answers(after, labels))
    flips, drift = changes.facts("test", "key", np.arange(60), [f"text {row}" for row in range(60)])
    old, new = before.argmax(1), after.argmax(1)
    moved = [abs(softmax(b)[b.argmax()] - softmax(a)[b.argmax()]) for b, a in zip(before, after, strict=True)]
    assert flips.value == np.mean(old != new)
    assert (flips.low, flips.high) == wilson(int((old != new).sum()), 60)[1:]
    assert flips.detail["lost"] == sum(o == label != n for o, n, label in zip(old, new, labels, strict=True))
    assert flips.detail["won"] == sum(n == label != o for o, n, label in zip(old, new, labels, strict=True))
    for index, group in enumerate(flips.detail["by_answer"]):
        assert group["group"] == NAMES[index]
        assert (group["n"], group["changed"]) == ((old == index).sum(), ((old == index) & (new != index)).sum())
    assert drift.value == pytest.approx(np.mean(moved))
    assert drift.detail["largest"] == pytest.approx(max(moved))
    assert drift.detail["p95"] == pytest.approx(np.quantile(moved, 0.95))
    listed = drift.detail["most_changed"]
    assert [entry["row"] for entry in listed] == np.argsort(-np.array(moved)).tolist()[:SHOWN]
    row = listed[0]["row"]
    assert listed[0] == {
        "row": row,
        "text": f"text {row}",
        "before": NAMES[old[row]],
        "after": NAMES[new[row]],
        "label": NAMES[labels[row]],
        "drift": pytest.approx(moved[row]),
    }
    assert (flips.split, flips.n, flips.detail["reference"]) == ("test", 60, "key")


def test_lengths_fall_into_thirds_that_keep_equal_ones_together(classes):
    labels, before, after = classes
    changes = compare(KINDS["classification"], NAMES, answers(before, labels), answers(after, labels))
    lengths = np.repeat([4, 4, 7, 9], 15)
    groups = changes.by_length(lengths)
    assert [(group["group"], group["n"]) for group in groups] == [
        ("up to 4 tokens", 30),
        ("5 to 7 tokens", 15),
        ("over 7 tokens", 15),
    ]
    assert sum(group["changed"] for group in groups) == changes.changed.sum()


def test_of_several_labels_the_one_that_changed_most_counts():
    before, after = np.array([[2.0, -2.0], [1.0, -1.0]]), np.array([[2.0, 2.0], [1.0, -1.5]])
    labels = [(1, 0), (1, 0)]
    changes = compare(KINDS["multilabel"], NAMES[:2], answers(before, labels), answers(after, labels))
    expected = [1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(2)), 1 / (1 + np.exp(1)) - 1 / (1 + np.exp(1.5))]
    np.testing.assert_allclose(changes.drift, expected)
    assert changes.changed.tolist() == [True, False]
    assert [(group["group"], group["n"], group["lost"]) for group in changes.by_answer()] == [("a", 2, 1)]
    assert changes.most_changed(["x", "y"])[0]["after"] == "a, b"


def test_numbers_drift_and_have_no_flips():
    labels = [1.0, 2.0]
    changes = compare(KINDS["regression"], (), answers([[1.0], [2.0]], labels), answers([[1.5], [2.0]], labels))
    (drift,) = changes.facts("test", "key", [3, 3], ["one", "two"])
    assert (drift.name, drift.value, drift.detail["largest"]) == ("drift", 0.25, 0.5)
    assert [entry["row"] for entry in drift.detail["most_changed"]] == [0]  # the other did not change


def test_words_are_counted_one_by_one_and_their_interval_is_over_texts():
    rng = np.random.default_rng(1)
    labels = [[IGNORED, 0, 1, 1, IGNORED]] * 30
    before = [np.eye(2)[[0, 0, 1, 1, 0]] * 4.0 for _ in labels]
    wrong = rng.random(30) < 0.3  # in some texts all words change, in the others none
    after = [row[:, ::-1] if bad else row for row, bad in zip(before, wrong, strict=True)]
    changes = compare(KINDS["tokens"], NAMES[:2], answers(before, labels), answers(after, labels))
    share = changes.share()
    assert (share.value, len(changes.rows)) == (wrong.mean(), 90)
    independent = wilson(int(changes.changed.sum()), 90)
    assert share.high - share.low > 1.3 * (independent.high - independent.low)
    assert len(changes.most_changed(["t"] * 30)) == min(SHOWN, int(wrong.sum()))


def test_texts_that_two_tokenizers_divide_differently_are_left_out():
    first, second = [[0, 1], [0, 1]], [[0, 1], [0, IGNORED]]
    rows = [np.eye(2) * 3.0] * 2
    changes = compare(KINDS["tokens"], NAMES[:2], answers(rows, first), answers(rows, second))
    assert (changes.left_out, changes.rows.tolist()) == (1, [0, 0])
    flips, _ = changes.facts("test", "key", [2, 2], ["one", "two"])
    assert flips.detail["left_out"] == 1
    nothing = compare(KINDS["tokens"], NAMES[:2], answers(rows[1:], first[1:]), answers(rows[1:], second[1:]))
    assert list(nothing.facts("test", "key", [2], ["two"])) == []


def test_rare_answers_are_counted_together(classes, monkeypatch):
    monkeypatch.setattr(answer_changes, "GROUPS", 2)
    labels, before, after = classes
    changes = compare(KINDS["classification"], NAMES, answers(before, labels), answers(after, labels))
    groups = changes.by_answer()
    assert groups[-1]["group"] == "1 other answers"
    assert sum(group["n"] for group in groups) == 60
    assert sum(group["changed"] for group in groups) == changes.changed.sum()


def test_a_listed_text_is_short(classes):
    labels, before, after = classes
    changes = compare(KINDS["classification"], NAMES, answers(before, labels), answers(after, labels))
    assert all(len(entry["text"]) == EXCERPT for entry in changes.most_changed(["long " * 200] * 60))
