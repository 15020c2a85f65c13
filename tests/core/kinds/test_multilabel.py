"""Any number of labels."""

from __future__ import annotations

import numpy as np

from limbeck.core.kinds.multilabel import KIND


def test_each_of_several_labels_is_reviewed():
    predicted, guarded = KIND.review(np.array([5.0, -5.0, 0.1]), (0, 1, 0), 0.9)
    assert predicted == (1, 0, 1)
    assert guarded == (1, 0, 0)


def test_labels_are_those_with_a_positive_logit():
    assert KIND.decode([[0.1, 2.0], [3.0, -1.0]]).tolist() == [[1, 1], [1, 0]]
    assert KIND.answer(np.array([3.0, -1.0]), ("a", "b"), "sigmoid")["answer"] == "a"


def test_a_label_is_zeros_and_ones():
    assert KIND.encode([2, 0, 2], 3, 1) == (1, 0, 1)
    assert KIND.encode([], 3, 1) == (0, 0, 0)
    assert KIND.renumber((1, 0), [2, 0], 3) == (0, 0, 1)
    assert KIND.parts("a; b;", ";") == ["a", " b"]
    assert KIND.describe((0, 0), ("a", "b")) == "none"


def test_constants_are_the_most_frequent_labels():
    values = [value.tolist() for value, _ in KIND.constants(np.array([[0, 1], [0, 1], [1, 0]]), 2)]
    assert values == [[0, 0], [0, 1], [1, 1]]


def test_confusion_takes_every_output_for_every_label():
    tables, constant, totals = KIND.confusion(np.array([[1.0, -1.0], [1.0, -1.0]]), [(0, 1), (0, 0)], 2)
    assert tables.sum(0).tolist() == [[0, 2], [1, 1]]
    assert constant.tolist() == [1, 2]  # no label is in more than half of the rows
    assert totals.tolist() == [2, 2]
