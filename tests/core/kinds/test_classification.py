"""One of several classes."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.kinds.classification import KIND
from limbeck.core.statistics import unpack


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([0.0, 5.0], 0, (1, 1)),  # sure of another label
        ([0.0, 0.5], 0, (1, 0)),  # of another label, but not sure
        ([5.0, 0.0], 0, (0, 0)),
        ([0.0, np.log(9)], 0, (1, 1)),  # exactly 0.9 counts
    ],
)
def test_confident_predictions_overrule_classes(logits, label, expected):
    assert KIND.review(np.array(logits), label, 0.9 - 1e-12) == expected


def test_the_most_probable_class_is_the_answer():
    logits = np.array([[0.1, 2.0], [3.0, -1.0]])
    assert KIND.decode(logits).tolist() == [1, 0]
    answer = KIND.answer(logits[0], ("no", "yes"), "softmax")
    assert answer["answer"] == "yes"
    assert answer["scores"]["yes"] == pytest.approx(1 / (1 + np.exp(-1.9)))


def test_right_rows_are_recorded_for_paired_tests():
    assessment = KIND.assess("accuracy", ("a", "b"), np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0]]), [0, 1, 0])
    assert unpack(assessment.detail["correct"], 3).tolist() == [True, True, False]
    assert assessment.detail["per_label"]["b"] == {"examples": 1, "predicted": 2, "correct": 1}


def test_confusion_counts_by_label_and_output():
    tables, constant, totals = KIND.confusion([np.array([0.0, 1.0])] * 3, [0, 1, 1], 2)
    assert tables.sum(0).tolist() == [[0, 1], [0, 2]]
    assert constant.tolist() == [0, 1, 1]  # class 1 is the more frequent
    assert totals.tolist() == [1, 1, 1]
