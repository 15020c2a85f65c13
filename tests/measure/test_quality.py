from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.candidate import Candidate, Reference
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.statistics import mcnemar, unpack
from limbeck.core.step import RunContext
from limbeck.core.task import Split, Task
from limbeck.measure.quality import Quality, assess


def measure(candidates, **options):
    probe = Quality(**options)
    return list(probe.measure(candidates, RestrictedContext(RunContext(), probe.info)))


class Oracle:
    """Knows the number of words of a text, and answers yes when it is above a bound."""

    runtime = "torch"
    int8 = False

    def __init__(self, bound):
        self.bound = bound

    def predict(self, batch):
        longer = batch["attention_mask"].sum(1).numpy() - 2 > self.bound
        return np.stack([~longer, longer], axis=1).astype(float)


@pytest.fixture
def counting(task, tokenizer):
    texts = task.split("test").texts
    labels = tuple(int(len(text.split()) > 20) for text in texts)
    split = Split(texts, labels)
    return Candidate(Oracle(20), tokenizer, replace(task, splits={"validation": split, "test": split}))


def test_quality_has_an_interval_and_counts(counting):
    worse = replace(counting, model=Oracle(15))
    (_, right), (index, fact) = measure([counting, worse], batch=8)
    assert right.value == 1.0
    assert right.low < 0.95  # forty right answers do not prove that none will be wrong
    assert right.high == pytest.approx(1.0)
    assert (index, fact.name, fact.unit, fact.n, fact.split) == (1, "quality", "1", 40, "validation")
    assert fact.value == 35 / 40
    assert 0.7 < fact.low < fact.value < fact.high < 1
    assert fact.detail["metric"] == "accuracy"
    assert fact.detail["per_label"]["yes"] == {"examples": 20, "predicted": 25, "correct": 20}


def test_who_was_right_where_is_kept_for_paired_tests(counting):
    (_, first), (_, second) = measure([counting, replace(counting, model=Oracle(10))])
    flags = [unpack(fact.detail["correct"], fact.n) for fact in (first, second)]
    assert [each.mean() for each in flags] == [first.value, second.value]
    assert mcnemar(*flags) == 2 / 2**10


def test_the_batch_does_not_matter(counting):
    assert measure([counting], batch=3) == measure([counting], batch=40)


def test_another_split(counting):
    assert measure([counting], split="test")[0][1].split == "test"


def toy(kind, labels, metric, names=("a", "b")):
    split = Split(("x",) * len(labels), tuple(labels))
    return Task("toy", kind, {"test": split}, names, metric)


@pytest.mark.parametrize(
    ("kind", "metric", "labels", "logits", "names"),
    [
        ("classification", "f1", [0, 1, 1, 0], [[2, 1], [0, 1], [3, 1], [1, 0]], ("a", "b")),
        ("classification", "matthews", [0, 1, 1, 0], [[2, 1], [0, 1], [3, 1], [1, 0]], ("a", "b")),
        ("multilabel", "micro_f1", [(0, 1), (1, 1), (1, 0)], [[-1, 1], [1, -1], [1, -1]], ("a", "b")),
        ("regression", "pearson", [0.5, 1.0, 3.0, 2.0], [[0.4], [1.2], [2.0], [2.5]], ()),
        ("tokens", "accuracy", [[0, 1, -100], [1]], [[[1, 0], [1, 0], [0, 9]], [[0, 1]]], ("a", "b")),
    ],
)
def test_every_kind_is_scored_as_the_task_scores_it(kind, metric, labels, logits, names):
    task = toy(kind, labels, metric, names)
    rows = [np.array(row, dtype=float) for row in logits]
    assessed = assess(task, rows, labels)
    assert assessed.quality.value == pytest.approx(task.score(rows if kind == "tokens" else np.stack(rows), labels))
    assert assessed.quality.low <= assessed.quality.value <= assessed.quality.high
    assert ("correct" in assessed.detail) == (kind == "classification")
    assert ("per_label" in assessed.detail) == (kind != "regression")


def test_answers_are_compared_with_those_of_the_reference(counting):
    probe = Quality(split="test")
    models = [counting, replace(counting, model=Oracle(15)), replace(counting, model=Oracle(20))]
    context = RestrictedContext(RunContext(reference=Reference("whole", 0)), probe.info)
    facts = {(index, fact.name): fact for index, fact in probe.measure(models, context)}
    assert [facts[index, "flips"].value for index in range(3)] == [0.0, 5 / 40, 0.0]
    assert [facts[index, "drift"].value == 0.0 for index in range(3)] == [True, False, True]
    flips = facts[1, "flips"]
    assert (flips.n, flips.split, flips.detail["reference"], flips.detail["lost"]) == (40, "test", "whole", 5)
    listed = facts[1, "drift"].detail["most_changed"]
    assert sorted(len(entry["text"].split()) for entry in listed) == sorted(
        count for count in (len(text.split()) for text in counting.task.split("test").texts) if 15 < count <= 20
    )
    assert not any(fact.name in ("flips", "drift") for _, fact in measure(models, split="test"))
