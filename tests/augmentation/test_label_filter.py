from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from limbeck.augmentation.label_filter import LabelFilter, opinion, probabilities
from limbeck.core.candidate import Candidate
from limbeck.data.synthetic import toy_task, toy_tokenizer


def test_probabilities_are_softmax_and_sigmoid():
    values = np.array([[0.0, 1.0, -800.0], [3.0, 3.0, 800.0]])
    expected = [np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in values]
    np.testing.assert_allclose(probabilities("classification", values), expected)
    small = np.array([-30.0, 0.0, 2.0])
    np.testing.assert_allclose(probabilities("multilabel", small), 1 / (1 + np.exp(-small)), atol=1e-12)


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([0.0, 5.0], 0, (1, 1)),  # sure of another label
        ([0.0, 0.5], 0, (1, 0)),  # of another opinion, but not sure
        ([5.0, 0.0], 0, (0, 0)),
        ([0.0, np.log(9)], 0, (1, 1)),  # exactly 0.9 counts
    ],
)
def test_opinions_on_classes(logits, label, expected):
    assert opinion("classification", np.array(logits), label, 0.9 - 1e-12) == expected


def test_opinions_on_several_labels_judge_each():
    said, guarded = opinion("multilabel", np.array([5.0, -5.0, 0.1]), (0, 1, 0), 0.9)
    assert said == (1, 0, 1)
    assert guarded == (1, 0, 0)


def test_opinions_on_words_stay_aligned():
    logits = np.array([[9, 0], [0, 9], [9, 9.1], [0, 9], [0, 9]])
    # [CLS], word 0, its second piece, word 1, [SEP]; word 2 was cut off
    said, guarded = opinion("tokens", logits, (0, 1, 0), 0.9, [-100, 0, -100, 1, -100])
    assert said == (1, 1, 0)
    assert guarded == (1, 1, 0)
    assert opinion("tokens", logits, (0, 1, 0), 1.0, [-100, 0, -100, 1, -100])[1] == (0, 1, 0)


def test_numbers_are_never_objected_to():
    assert opinion("regression", np.array([2.5]), 1.0, 0.5) == (2.5, 1.0)


@dataclass
class Sure:
    """Says the same label of every row."""

    label: int = 2

    def predict(self, batch):
        logits = np.zeros((len(batch["index"]), 3))
        logits[:, self.label] = 9.0
        return logits


def test_the_teacher_is_opened_once_and_only_if_asked():
    task, opened = toy_task(train=6), []

    def teacher():
        opened.append(1)
        return Candidate(Sure(), toy_tokenizer(task), task)

    judge = LabelFilter(teacher)
    assert judge.opinions(task, task.split("train").take([])) == []
    assert not opened
    rows = task.split("train")
    assert judge.opinions(task, rows) == [(2, 2)] * 6
    judge.opinions(task, rows)
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("options", "settled", "counts"),
    [
        ({"guard": "drop"}, [None, 2, 0], {"flipped": 1, "dropped": 1}),
        ({"guard": "relabel"}, [2, 2, 0], {"flipped": 1, "relabelled": 1}),
        ({"guard": "off"}, [0, 2, 0], {"flipped": 1}),
        ({"guard": "off", "labels": "teacher"}, [2, 2, 1], {"flipped": 1}),
        ({"guard": "drop", "labels": "teacher"}, [None, 2, 1], {"flipped": 1, "dropped": 1}),
    ],
)
def test_what_follows_from_an_opinion(options, settled, counts):
    judge = LabelFilter(lambda: pytest.fail("not needed"), **options)
    opinions = [(0, (2, 2)), (2, (2, 2)), (0, (1, 0))]  # objects, agrees, is not sure
    assert [judge.settle(own, said) for own, said in opinions] == settled
    assert {name: count for name, count in judge.counts.items() if count} == counts


def test_opinions_that_came_from_json_are_labels_again():
    judge = LabelFilter(lambda: pytest.fail("not needed"), guard="relabel")
    assert judge.settle((0, 1), [[1, 1], [1, 1]]) == (1, 1)
    assert judge.settle((0, 1), [[1, 1], [0, 1]]) == (0, 1)
