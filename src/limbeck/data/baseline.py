"""The trivial baseline of a task: the best answer that ignores the text, learned from the training labels alone.

It is the majority class, the mean of the targets, the most frequent labels, or one tag for every word; a ranking metric
gets equal scores. Documents are left in the order that they come in, which is that of a first stage. A model that does
not beat it has learned nothing, however fast it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from limbeck.core.judged_texts import BY_ROW
from limbeck.core.measurement import Measurement
from limbeck.core.metrics import METRICS, counts_rows
from limbeck.core.ranking import metric_interval
from limbeck.core.soft_label import distributions
from limbeck.core.statistics import Interval, pack, resampled_score, unpack, unpack_numbers, wilson
from limbeck.core.task import Task

SIGNIFICANCE = 0.05  #: one-sided; a model with a larger p value was not shown to beat the baseline


Value = float | np.ndarray
"""A class or a tag (by index), a number, 0/1 for every label, or the probability of every class [labels]."""


@dataclass(frozen=True)
class Baseline:
    """A constant answer and its quality on every split but the training one.

    Attributes:
        answer: A description of the answer, such as ``always 'positive'``.
        value: The prediction for every row: a class, a number, 0/1 for every label, or a tag.
        quality: One measurement per split, in the form of the ``quality`` probe.
    """

    answer: str
    value: Value
    quality: Mapping[str, Measurement] = field(default_factory=dict)


@lru_cache(maxsize=4)  # a run's table, card, page and exit status all need it, and its intervals are resampled
def baseline(task: Task) -> Baseline:
    """Find the constant answer that scores best on the training labels, and score it on the other splits.

    Args:
        task: A task with a training split.
    """
    if METRICS[task.metric].reads_distributions:
        return _mean_distribution(task)
    train = task.task_kind.truth(_known_labels(task))
    ranking = METRICS[task.metric].reads_scores  # scores all constants alike
    constants = list(islice(task.task_kind.constants(train, task.num_labels), 1 if ranking else None))
    scores = [score_constant(task, value) for value, _ in constants]
    value, classes = constants[int(np.argmax(scores))]
    answer = _describe(task, value, classes)
    quality = {}
    for split in task.splits:
        if split != "train":
            if _judged_together(task):
                quality[split] = _measure_together(task, split, value)
                continue
            truth = task.task_kind.truth(task.split(split).labels)
            quality[split] = _measure(task, split, _constant(task, value, truth), truth)
    return Baseline(answer, value, quality)


def _mean_distribution(task: Task) -> Baseline:
    """Return the mean of the training labels' distributions, as the answer to every text."""
    mean = distributions(task.split("train").labels, task.num_labels).mean(axis=0)
    quality = {}
    for split, rows in task.splits.items():
        if split != "train":
            wanted = distributions(rows.labels, task.num_labels)
            interval = resampled_score(METRICS[task.metric], np.broadcast_to(mean, wanted.shape), wanted).interval
            detail = {"metric": task.metric}
            quality[split] = Measurement("quality", *_fields(interval), n=len(rows), split=split, detail=detail)
    return Baseline("always the mean probabilities", mean, quality)


def score_constant(task: Task, value: Value) -> float:
    """Score a constant answer on the labels that it is chosen by."""
    kind, labels = task.task_kind, _known_labels(task)
    if _judged_together(task):
        return kind.score(task.metric, task.label_names, _constant_logits(task, value, labels), labels)
    train = kind.truth(labels)
    return METRICS[task.metric](_constant(task, value, train), train)


def _judged_together(task: Task) -> bool:
    """Return whether the metric is one of rows that depend on each other: entities, requests, a search."""
    return METRICS[task.metric].reads_entities or task.task_kind.grouped or _searched(task)


def _searched(task: Task) -> bool:
    """Return whether vectors are judged by a search or a probe."""
    return task.task_kind.vectors and task.metric in BY_ROW


def _known_labels(task: Task) -> Sequence[Any]:
    """Return the labels of training, or of validation where only held-out texts have vectors or are judged."""
    labels = task.split("train").labels
    elsewhere = (labels and labels[0] == ()) or _searched(task)
    return task.split("validation").labels if elsewhere else labels


def _constant_logits(task: Task, value: Value, labels: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Return logits of one tag for every word, for each row [words, labels]; or equal scores or vectors [1]."""
    if not task.task_kind.per_token:
        return [np.ones(1)] * len(labels)
    scores = np.eye(task.num_labels)[int(np.asarray(value))]
    return [np.broadcast_to(scores, (len(row), task.num_labels)) for row in labels]


def _measure_together(task: Task, split: str, value: Value) -> Measurement:
    """Score a constant tag by whole entities, the order of documents by requests, or one vector by a search."""
    labels = task.split(split).labels
    logits = _constant_logits(task, value, labels)
    assessment = task.task_kind.assess(task.metric, task.label_names, logits, labels)
    detail = {"metric": task.metric, **({} if task.task_kind.per_token else assessment.detail)}
    count = assessment.examples_of(len(labels))
    return Measurement("quality", *_fields(assessment.quality), n=count, split=split, detail=detail)


def _constant(task: Task, value: Value, truth: np.ndarray) -> np.ndarray:
    """Repeat the answer for every row; a ranking metric gets equal scores."""
    if METRICS[task.metric].reads_scores:
        return np.zeros((len(truth), task.num_labels))
    return np.broadcast_to(np.asarray(value), truth.shape)


def _describe(task: Task, value: Value, classes: Sequence[int]) -> str:
    if METRICS[task.metric].reads_scores:
        return "equal scores for all"
    if task.task_kind.grouped:
        return "always the given order"
    if task.task_kind.vectors:
        return "always the same vector" if _searched(task) else "always the mean"
    if task.task_kind.numeric:
        return f"always {float(value):.4g}, the mean"
    return "always " + (", ".join(f"'{task.label_names[index]}'" for index in classes) or "no label")


def _measure(task: Task, split: str, answers: np.ndarray, truth: np.ndarray) -> Measurement:
    detail: dict[str, object] = {"metric": task.metric}
    if task.task_kind.single_class and not METRICS[task.metric].reads_scores:
        correct = answers == truth
        detail["correct"] = pack(correct)
        if METRICS[task.metric].counts:
            interval = wilson(int(correct.sum()), len(correct))
            return Measurement("quality", *_fields(interval), n=len(truth), split=split, detail=detail)
    interval = metric_interval(task.metric, answers, truth)
    return Measurement("quality", *_fields(interval), n=len(truth), split=split, detail=detail)


def _fields(interval: Interval) -> tuple[float, str, float, float]:
    return interval.value, "1", interval.low, interval.high


@dataclass(frozen=True)
class Comparison:
    """A one-sided test of whether a model beats the baseline."""

    model: Measurement
    constant: Measurement
    p_value: float

    @property
    def better(self) -> bool:
        """Whether the model is significantly better."""
        return self.model.value > self.constant.value and self.p_value < SIGNIFICANCE


def compare(model: Measurement, constant: Measurement) -> Comparison:
    """Compare a model with the baseline on the same rows.

    The test is exact McNemar for accuracy where the answer to every row was recorded, and a paired bootstrap over
    queries where documents are ranked. Otherwise the interval of the
    model's metric is compared with the baseline's value, which does not depend on the texts.

    Args:
        model: The model's ``quality`` measurement.
        constant: The baseline's ``quality`` on the same split.
    """
    packed, baseline_packed, count = model.detail.get("correct"), constant.detail.get("correct"), model.n
    if packed and baseline_packed and count and count == constant.n and counts_rows(model.detail.get("metric")):
        from scipy.stats import binomtest

        right, baseline_right = unpack(packed, count), unpack(baseline_packed, count)
        gained, lost = int((right & ~baseline_right).sum()), int((baseline_right & ~right).sum())
        p_value = float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0
        return Comparison(model, constant, p_value)
    values, constants = model.detail.get("resampled"), constant.detail.get("resampled")
    if values and constants and len(values) == len(constants):  # of the same queries
        gains = unpack_numbers(values) - unpack_numbers(constants)
        return Comparison(model, constant, max(float(np.mean(gains <= 0)), 0.5 ** (count or 1)))  # as a sign test
    if model.low is None:
        return Comparison(model, constant, 0.0 if model.value > constant.value else 1.0)
    # low is the 2.5 % quantile of the bootstrap: if it exceeds the constant's value, at most 2.5 % of resamples do not
    return Comparison(model, constant, 0.025 if model.low > constant.value else 1.0)
