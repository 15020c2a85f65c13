"""The trivial baseline of a task: the best answer that looks at no text, learnt from the training labels alone.

The majority class, the mean of the targets, the most frequent labels, one tag for every word; a metric that ranks gets
equal scores. A model that is not better than this has learnt nothing, however fast it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from limbeck.core.measurement import Measurement
from limbeck.core.statistics import pack, unpack, wilson
from limbeck.data.metrics import METRICS, READS_SCORES
from limbeck.data.ranking import metric_interval
from limbeck.data.task import Task

SIGNIFICANCE = 0.05  #: one-sided; a model above it was not shown to be better than the baseline
CANDIDATES = 200  #: most frequent labels that are tried as constant answers


@dataclass(frozen=True)
class Baseline:
    """A constant answer, and its quality on every split that is not for training.

    Attributes:
        answer: The answer in words, such as ``always 'positive'``.
        value: What is predicted for every row: a class, a number, 0/1 for every label, or a tag.
        quality: One fact for each split, as the probe ``quality`` states it.
    """

    answer: str
    value: Any
    quality: Mapping[str, Measurement] = field(default_factory=dict)


@lru_cache(maxsize=4)  # table, card, page and exit status of one run all ask for it, and its intervals are resampled
def baseline(task: Task) -> Baseline:
    """Find the constant answer that the task's metric likes best on the training labels, and score it.

    Args:
        task: A task with a training split.
    """
    train = _truth(task, "train")
    if task.kind == "regression":
        value: Any = float(np.mean(train))
        answer = f"always {value:.4g}, the mean"
    else:
        values = list(_constants(task, train))
        values = values[:1] if task.metric in READS_SCORES else values  # equal scores, whatever the answer
        scores = [METRICS[task.metric](_constant(task, one, train), train) for one in values]
        value = values[int(np.argmax(scores))]
        answer = _words(task, value)
    facts = {}
    for split in task.splits:
        if split != "train":
            truth = _truth(task, split)
            facts[split] = _fact(task, split, _constant(task, value, truth), truth)
    return Baseline(answer, value, facts)


def _truth(task: Task, split: str) -> np.ndarray:
    labels = task.split(split).labels
    if task.kind == "tokens":
        return np.array([tag for row in labels for tag in row])
    return np.asarray(labels, dtype=float if task.kind == "regression" else np.int64)


def _constants(task: Task, train: np.ndarray) -> Iterator[Any]:
    """Constant answers worth trying, the likeliest first."""
    if task.kind == "multilabel":
        order = np.argsort(-train.mean(axis=0), kind="stable")
        for count in range(len(order) + 1):
            yield np.isin(np.arange(len(order)), order[:count]).astype(np.int64)
        return
    counts = np.bincount(train, minlength=task.num_labels)
    yield from np.argsort(-counts, kind="stable")[:CANDIDATES]


def _constant(task: Task, value: Any, truth: np.ndarray) -> np.ndarray:
    """The constant answer for every row; equal scores for a metric that ranks."""
    if task.metric in READS_SCORES:
        return np.zeros((len(truth), task.num_labels))
    return np.broadcast_to(np.asarray(value), truth.shape)


def _words(task: Task, value: Any) -> str:
    if task.metric in READS_SCORES:
        return "equal scores for all"
    if task.kind == "multilabel":
        names = [name for name, present in zip(task.label_names, value, strict=True) if present]
        return "always " + (", ".join(f"'{name}'" for name in names) if names else "no label")
    return f"always '{task.label_names[int(value)]}'"


def _fact(task: Task, split: str, answers: np.ndarray, truth: np.ndarray) -> Measurement:
    detail: dict[str, Any] = {"metric": task.metric}
    if task.kind == "classification" and task.metric not in READS_SCORES:
        correct = answers == truth
        detail["correct"] = pack(correct)
        if task.metric == "accuracy":
            interval = wilson(int(correct.sum()), len(correct))
            return Measurement("quality", *_flat(interval), n=len(truth), split=split, detail=detail)
    interval = metric_interval(task.metric, answers, truth)
    return Measurement("quality", *_flat(interval), n=len(truth), split=split, detail=detail)


def _flat(interval: Any) -> tuple[float, str, float, float]:
    return interval.value, "1", interval.low, interval.high


@dataclass(frozen=True)
class Comparison:
    """Whether a model was shown to be better than the baseline: a one-sided p value of a paired test."""

    model: Measurement
    constant: Measurement
    p_value: float

    @property
    def better(self) -> bool:
        """Whether the model is better by more than chance explains."""
        return self.model.value > self.constant.value and self.p_value < SIGNIFICANCE


def compare(model: Measurement, constant: Measurement) -> Comparison:
    """Compare a model with the baseline on the same rows.

    Exact McNemar for accuracy, where the answers to each row were kept; else the interval of the model's metric
    against the baseline's value, which the texts do not change.

    Args:
        model: The model's ``quality`` fact.
        constant: The baseline's, on the same split.
    """
    packed, other, count = model.detail.get("correct"), constant.detail.get("correct"), model.n
    if packed and other and count and count == constant.n and model.detail.get("metric") == "accuracy":
        from scipy.stats import binomtest

        right, baseline_right = unpack(packed, count), unpack(other, count)
        gained, lost = int((right & ~baseline_right).sum()), int((baseline_right & ~right).sum())
        p_value = float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0
        return Comparison(model, constant, p_value)
    if model.low is None:
        return Comparison(model, constant, 0.0 if model.value > constant.value else 1.0)
    # low is the 2.5 % quantile of the bootstrap: above the constant's value, at most 2.5 % of resamples are below it
    return Comparison(model, constant, 0.025 if model.low > constant.value else 1.0)
