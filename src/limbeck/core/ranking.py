"""Bootstrap intervals of ranking metrics: every class is sorted once, not once per resample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from limbeck.core.metrics import METRICS, class_columns
from limbeck.core.statistics import RESAMPLES, Interval, Resampled, resample, resampled_score

MAX_VALUES = 400_000_000  #: upper bound of rows x classes x resamples, as long as it allows MIN_RESAMPLES resamples
MIN_RESAMPLES = 200  #: minimum resamples of a bootstrap


def metric_interval(metric: str, readings: np.ndarray, labels: np.ndarray) -> Interval:
    """Compute a metric with its bootstrap interval.

    Args:
        metric: Name of the metric.
        readings: What the metric takes: predictions [rows], or scores [rows, classes] for a ranking metric.
        labels: [rows], or 0/1 [rows, labels].

    Returns:
        The value with its 95 % interval over 1,000 resamples. For ranking metrics there are fewer where rows times
        classes exceed 400,000: ``MAX_VALUES`` / (rows * classes), at least 200.
    """
    return resampled_quality(metric, readings, labels).interval


def resampled_quality(metric: str, readings: np.ndarray, labels: np.ndarray) -> Resampled:
    """Compute a metric as :func:`metric_interval` does, and keep its values on the resamples.

    Args:
        metric: Name of the metric.
        readings: As for :func:`metric_interval`.
        labels: As for :func:`metric_interval`.
    """
    if not METRICS[metric].reads_scores:
        return resampled_score(METRICS[metric], readings, labels)
    values, _ = class_columns(readings, labels)
    resamples = max(MIN_RESAMPLES, min(RESAMPLES, MAX_VALUES // max(1, values.size)))
    resampled = resampled_metric(metric, readings, labels)
    interval, on_resamples = resample(resampled, len(values), resamples=resamples)
    return Resampled(interval._replace(value=METRICS[metric](readings, labels)), on_resamples)


def resampled_metric(metric: str, readings: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], float]:
    """Prepare a ranking metric for many resamples of the same rows.

    Args:
        metric: A ranking metric.
        readings: Scores [rows, classes].
        labels: [rows], or 0/1 [rows, labels].

    Returns:
        A function from row indices (with repetitions) to the metric of these rows.
    """
    values, truth = class_columns(readings, labels)
    count = len(values)
    rows = np.arange(count)
    if metric == "micro_average_precision":
        rows, values, truth = np.repeat(rows, values.shape[1]), values.reshape(-1, 1), truth.reshape(-1, 1)
    columns = [_Column(values[:, i], truth[:, i], rows) for i in range(values.shape[1]) if truth[:, i].any()]
    area, undefined = (_roc_auc, 0.5) if metric == "roc_auc" else (_average_precision, 0.0)

    def resampled(chosen: np.ndarray) -> float:
        weights = np.bincount(chosen, minlength=count)
        areas = [value for column in columns if (value := area(column, weights)) is not None]
        return float(np.mean(areas)) if areas else undefined

    return resampled


class _Column:
    """One class, sorted by falling score, with the rows behind it and the bounds of ties.

    Attributes:
        rows: Row of every cell [cells].
        positives: Rows that have the class [positives].
        first: Where the cells with the score of each positive begin [positives].
        last: Where they end, exclusive [positives].
        ahead: Number of positives with at least that score [positives].
        behind: Number of positives with a higher score [positives].
    """

    def __init__(self, values: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> None:
        """Sort the rows of a column by falling score.

        Args:
            values: Scores of the rows [rows].
            truth: Whether each row is positive [rows].
            rows: Indices of the rows [rows].
        """
        order = np.argsort(-values, kind="stable")
        falling, true = -values[order], truth[order] > 0
        self.rows = rows[order]
        self.positives = self.rows[true]
        self.first = np.searchsorted(falling, falling[true], side="left")
        self.last = np.searchsorted(falling, falling[true], side="right")
        before = np.concatenate([[0], np.cumsum(true)])
        self.behind, self.ahead = before[self.first], before[self.last]


def _sums(weights: np.ndarray) -> np.ndarray:
    """Return the sum of the weights before each position [cells + 1]."""
    sums = np.zeros(len(weights) + 1)
    np.cumsum(weights, out=sums[1:])
    return sums


def _average_precision(column: _Column, weights: np.ndarray) -> float | None:
    """Compute the mean precision at the score of each positive; None without positives."""
    positive_weights = weights[column.positives]
    hits = _sums(positive_weights)
    if not hits[-1]:
        return None
    predicted = _sums(weights[column.rows])[column.last]
    precision = hits[column.ahead] / np.maximum(predicted, 1)  # 0 only where the positive has no weight itself
    return float(positive_weights @ precision / hits[-1])


def _roc_auc(column: _Column, weights: np.ndarray) -> float | None:
    """Compute the share of (positive, negative) pairs in the right order, ties counting half; None without pairs."""
    positive_weights = weights[column.positives]
    hits, predicted = _sums(positive_weights), _sums(weights[column.rows])
    positives, negatives = hits[-1], predicted[-1] - hits[-1]
    if not positives or not negatives:
        return None
    above = predicted[column.first] - hits[column.behind]
    down_to = predicted[column.last] - hits[column.ahead]
    return float(positive_weights @ (negatives - (above + down_to) / 2) / (positives * negatives))
