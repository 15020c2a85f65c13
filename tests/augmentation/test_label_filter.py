from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from limbeck.augmentation.label_filter import LabelFilter, review_label
from limbeck.core.candidate import Candidate
from limbeck.data.synthetic import toy_task, toy_tokenizer


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
    assert review_label("classification", np.array(logits), label, 0.9 - 1e-12) == expected


def test_each_of_several_labels_is_reviewed():
    predicted, guarded = review_label("multilabel", np.array([5.0, -5.0, 0.1]), (0, 1, 0), 0.9)
    assert predicted == (1, 0, 1)
    assert guarded == (1, 0, 0)


def test_reviews_of_words_stay_aligned():
    logits = np.array([[9, 0], [0, 9], [9, 9.1], [0, 9], [0, 9]])
    # [CLS], word 0, its second piece, word 1, [SEP]; word 2 was cut off
    predicted, guarded = review_label("tokens", logits, (0, 1, 0), 0.9, [-100, 0, -100, 1, -100])
    assert predicted == (1, 1, 0)
    assert guarded == (1, 1, 0)
    assert review_label("tokens", logits, (0, 1, 0), 1.0, [-100, 0, -100, 1, -100])[1] == (0, 1, 0)


def test_numbers_are_never_overruled():
    assert review_label("regression", np.array([2.5]), 1.0, 0.5) == (2.5, 1.0)


@dataclass
class Sure:
    """A teacher that predicts the same label for every row."""

    label: int = 2
    int8: bool = False

    def predict(self, batch):
        logits = np.zeros((len(batch["index"]), 3))
        logits[:, self.label] = 9.0
        return logits


def test_the_teacher_is_opened_once_and_only_if_asked():
    task, opened = toy_task(train=6), []

    def teacher():
        opened.append(1)
        return Candidate(Sure(), toy_tokenizer(task), task)

    label_filter = LabelFilter(teacher)
    assert label_filter.review(task, task.split("train").take([])) == []
    assert not opened
    rows = task.split("train")
    assert label_filter.review(task, rows) == [(2, 2)] * 6
    label_filter.review(task, rows)
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("options", "resolved", "counts"),
    [
        ({"guard": "drop"}, [None, 2, 0], {"flipped": 1, "dropped": 1}),
        ({"guard": "relabel"}, [2, 2, 0], {"flipped": 1, "relabelled": 1}),
        ({"guard": "off"}, [0, 2, 0], {"flipped": 1}),
        ({"guard": "off", "labels": "teacher"}, [2, 2, 1], {"flipped": 1}),
        ({"guard": "drop", "labels": "teacher"}, [None, 2, 1], {"flipped": 1, "dropped": 1}),
    ],
)
def test_what_follows_from_an_review_label(options, resolved, counts):
    label_filter = LabelFilter(lambda: pytest.fail("not needed"), **options)
    reviews = [(0, (2, 2)), (2, (2, 2)), (0, (1, 0))]  # objects, agrees, is not sure
    assert [label_filter.resolve(own, review) for own, review in reviews] == resolved
    assert {name: count for name, count in label_filter.counts.items() if count} == counts


def test_reviews_read_from_json_are_labels_again():
    label_filter = LabelFilter(lambda: pytest.fail("not needed"), guard="relabel")
    assert label_filter.resolve((0, 1), [[1, 1], [1, 1]]) == (1, 1)
    assert label_filter.resolve((0, 1), [[1, 1], [0, 1]]) == (0, 1)
