from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from limbeck.augmentation.label_filter import LabelFilter
from limbeck.core.candidate import Candidate
from limbeck.data.synthetic import toy_task, toy_tokenizer


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
