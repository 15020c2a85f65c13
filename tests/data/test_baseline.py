"""The best constant answer, and whether a model was shown to be better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.measurement import Measurement
from limbeck.core.metrics import METRICS
from limbeck.core.statistics import pack
from limbeck.core.task import Split, Task
from limbeck.data.baseline import baseline, compare


def task(kind, labels, names, metric, texts=None):
    texts = texts or tuple(f"text {row}" for row in range(len(labels)))
    split = Split(texts, tuple(labels))
    return Task("toy", kind, {"train": split, "validation": split}, names, metric)


def test_the_majority_class():
    constant = baseline(task("classification", [0] * 3 + [1] * 7, ("no", "yes"), "accuracy"))
    assert constant.answer == "always 'yes'"
    assert constant.quality["validation"].value == 0.7
    assert constant.quality["validation"].n == 10


def test_f1_of_a_rare_class_is_best_where_it_is_always_given():
    """The majority would score 0, which anything beats."""
    constant = baseline(task("classification", [0] * 9 + [1], ("no", "yes"), "f1"))
    assert constant.answer == "always 'yes'"
    assert constant.quality["validation"].value == pytest.approx(2 / 11)


def test_several_labels_may_be_none_or_the_frequent_ones():
    rows = [(1, 0, 0)] * 8 + [(0, 1, 0), (0, 0, 1)]
    frequent = baseline(task("multilabel", rows, ("a", "b", "c"), "micro_f1"))
    assert frequent.answer == "always 'a'"
    assert frequent.quality["validation"].value == pytest.approx(0.8)
    none = baseline(task("multilabel", [(0, 0)] * 9 + [(1, 0)], ("a", "b"), "accuracy"))
    assert none.answer == "always no label"


def test_the_mean_of_the_numbers_and_the_outside_tag():
    number = baseline(task("regression", [1.0, 2.0, 6.0], (), "r2"))
    assert number.value == 3.0
    assert number.quality["validation"].value == pytest.approx(0.0)
    words = task("tokens", [(0, 0, 1), (0, 0)], ("O", "X"), "accuracy", texts=(("a", "b", "c"), ("d", "e")))
    assert baseline(words).quality["validation"].value == pytest.approx(0.8)


def test_a_metric_that_ranks_gets_equal_scores():
    constant = baseline(task("classification", [0] * 97 + [1] * 3, ("no", "yes"), "average_precision"))
    assert constant.quality["validation"].value == pytest.approx(0.03)
    assert baseline(task("classification", [0, 1] * 5, ("a", "b"), "roc_auc")).quality["validation"].value == 0.5


def fact(correct):
    detail = {"metric": "accuracy", "correct": pack(correct)}
    return Measurement("quality", float(np.mean(correct)), "1", 0.0, 1.0, n=len(correct), detail=detail)


def test_one_more_right_answer_shows_nothing_and_twenty_do():
    constant = np.arange(100) < 50
    slightly = constant.copy()
    slightly[60] = True
    clearly = constant.copy()
    clearly[60:80] = True
    assert not compare(fact(slightly), fact(constant)).better
    assert compare(fact(slightly), fact(constant)).p_value == pytest.approx(0.5)
    assert compare(fact(clearly), fact(constant)).better
    assert not compare(fact(constant), fact(constant)).better


def test_other_metrics_are_judged_by_their_interval():
    constant = Measurement("quality", 0.2, "1", 0.15, 0.25, n=50, detail={"metric": "macro_f1"})
    above = Measurement("quality", 0.6, "1", 0.5, 0.7, n=50, detail={"metric": "macro_f1"})
    near = Measurement("quality", 0.25, "1", 0.1, 0.4, n=50, detail={"metric": "macro_f1"})
    assert compare(above, constant).better
    assert not compare(near, constant).better


def test_one_answer_is_tried_where_scores_are_ranked(monkeypatch):
    """Equal scores are the same whatever the class; with many classes each try would cost seconds."""
    calls = []
    plain = METRICS["roc_auc"]
    counted = replace(plain, function=lambda *arguments: calls.append(1) or plain(*arguments))
    monkeypatch.setattr("limbeck.data.baseline.METRICS", {"roc_auc": counted})
    constant = baseline(task("classification", list(range(5)) * 4, tuple("abcde"), "roc_auc"))
    assert (len(calls), constant.quality["validation"].value) == (1, 0.5)
