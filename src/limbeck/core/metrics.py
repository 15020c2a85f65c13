"""Metrics on NumPy arrays, fast enough for a bootstrap to call them a thousand times.

Where a metric is undefined (no positive at all, a constant prediction) its value is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from limbeck.core.entities import OUTSIDE, count_spans, scheme_of, scores_of
from limbeck.core.judged_texts import OF_SEARCHES
from limbeck.core.kinds import Kind, find
from limbeck.errors import InputError, nearest

MetricFunction: TypeAlias = Callable[[npt.ArrayLike, npt.ArrayLike], float]


@dataclass(frozen=True)
class Metric:
    """A metric and what the rest of the package has to know of it.

    Attributes:
        function: Scores predictions [rows] or [rows, labels] against labels of the same shape.
        kinds: Kinds of task that it fits.
        reads_scores: Whether it takes scores [rows, classes] instead of predictions: a ranking metric.
        share: Whether it is a share, shown in per cent; otherwise it is shown as it is, such as a correlation.
        reads_entities: Whether it takes tags as :func:`limbeck.core.entities.join_rows` codes them, for whole entities.
        counts: Whether it is the share of right rows, so that two models can be compared row by row.
        reads_distributions: Whether it takes distributions over classes [rows, classes] as labels too.
    """

    function: MetricFunction
    kinds: tuple[str, ...]
    reads_scores: bool = False
    share: bool = True
    reads_entities: bool = False
    counts: bool = False
    reads_distributions: bool = False

    def __call__(self, predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
        """Score predictions (scores, for a ranking metric) against labels."""
        return self.function(predictions, labels)


METRICS: dict[str, Metric] = {}
"""All metrics by name."""


def metric(
    *kinds: Kind,
    reads_scores: bool = False,
    share: bool = True,
    reads_entities: bool = False,
    counts: bool = False,
    reads_distributions: bool = False,
) -> Callable[[MetricFunction], MetricFunction]:
    """Register a function as a metric, under its own name.

    Args:
        *kinds: Kinds of task that it fits.
        reads_scores: Whether it takes scores instead of predictions.
        share: Whether it is shown in per cent.
        reads_entities: Whether it takes coded tags, for whole entities.
        counts: Whether it is the share of right rows.
        reads_distributions: Whether labels are distributions over classes.

    Returns:
        The decorator, which leaves the function as it is.
    """

    def register(function: MetricFunction) -> MetricFunction:
        METRICS[function.__name__] = Metric(
            function, kinds, reads_scores, share, reads_entities, counts, reads_distributions
        )
        return function

    return register


IGNORED = -100  #: label of positions that do not count (padding, special tokens, word pieces after the first)


def default_label(labels: Sequence[str]) -> int:
    """Choose the label for a word that the model did not see: 'O' where there is one, else the first.

    >>> default_label(["B-PER", "O"]), default_label(["noun", "verb"])
    (1, 0)
    """
    return list(labels).index(OUTSIDE) if OUTSIDE in labels else 0


@metric("classification", "multilabel", "tokens", counts=True)
def accuracy(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the share of correct rows; where a row has several labels, all must be correct."""
    right = np.asarray(predictions) == np.asarray(labels)
    return float(right.reshape(len(right), -1).all(axis=1).mean()) if len(right) else 0.0


@metric("classification", "multilabel", "tokens", counts=True)
def agreement(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the share of answers that equal a model's, where the labels are that model's answers."""
    return accuracy(predictions, labels)


def _f1_from_counts(hits: np.ndarray, predicted: np.ndarray, present: np.ndarray) -> np.ndarray:
    total = np.asarray(predicted + present, dtype=float)
    scores: np.ndarray = np.divide(2.0 * hits, total, out=np.zeros_like(total), where=total > 0)
    return scores


@metric("classification")
def f1(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the F1 of class 1 of two classes."""
    predicted, truth = np.asarray(predictions) == 1, np.asarray(labels) == 1
    return float(_f1_from_counts((predicted & truth).sum(), predicted.sum(), truth.sum()))


def _class_counts(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count hits, predictions and labels of every class that occurs, or of every indicator column."""
    predicted, truth = np.asarray(predictions), np.asarray(labels)
    if truth.ndim == 1:
        size = int(max(predicted.max(initial=0), truth.max(initial=0))) + 1
        counts = [np.bincount(part, minlength=size) for part in (truth[predicted == truth], predicted, truth)]
        occurs = counts[1] + counts[2] > 0
        return counts[0][occurs], counts[1][occurs], counts[2][occurs]
    return (predicted & truth).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0)


@metric("classification", "multilabel", "tokens")
def macro_f1(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the unweighted mean F1 of the classes that occur in the labels or the predictions."""
    scores = _f1_from_counts(*_class_counts(predictions, labels))
    return float(scores.mean()) if scores.size else 0.0


@metric("classification", "multilabel", "tokens")
def micro_f1(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the F1 over all decisions of all classes together."""
    hits, predicted, present = _class_counts(predictions, labels)
    return float(_f1_from_counts(hits.sum(), predicted.sum(), present.sum()))


@metric("classification", share=False)
def matthews(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the Matthews correlation for any number of classes (Gorodkin, 2004)."""
    hits, predicted, present = (np.asarray(count, dtype=float) for count in _class_counts(predictions, labels))
    rows = present.sum()
    scale = (rows**2 - (predicted**2).sum()) * (rows**2 - (present**2).sum())
    return float((hits.sum() * rows - (predicted * present).sum()) / np.sqrt(scale)) if scale > 0 else 0.0


@metric("regression", "embedding", share=False)
def pearson(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the Pearson correlation."""
    x, y = (np.asarray(part, dtype=float) for part in (predictions, labels))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else 0.0


def _ranks(values: npt.ArrayLike) -> np.ndarray:
    """Rank the values; ties share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ranks: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
    return ranks[inverse]


@metric("regression", "embedding", share=False)
def spearman(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the Spearman correlation."""
    return pearson(_ranks(predictions), _ranks(labels))


@metric("regression", "embedding", share=False)
def pearson_spearman(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean of the Pearson and Spearman correlations, as GLUE does for STS-B."""
    return (pearson(predictions, labels) + spearman(predictions, labels)) / 2


@metric("tokens", reads_entities=True)
def entity_f1(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the micro F1 over whole entities, right in bounds and type, as seqeval does."""
    return scores_of(count_spans(predictions, labels)).f1


@metric("tokens", reads_entities=True)
def entity_precision(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the share of predicted entities that are right in bounds and type."""
    return scores_of(count_spans(predictions, labels)).precision


@metric("tokens", reads_entities=True)
def entity_recall(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the share of entities that were predicted with the right bounds and type."""
    return scores_of(count_spans(predictions, labels)).recall


@metric("tokens")
def token_f1(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the micro F1 over words whose tag is not class 0, which in a task is the tag 'O'.

    Words are counted one by one, not as whole entities, so tags need no B- and I- prefixes.
    """
    predicted, truth = np.asarray(predictions), np.asarray(labels)
    return float(_f1_from_counts(((predicted == truth) & (truth > 0)).sum(), (predicted > 0).sum(), (truth > 0).sum()))


@metric("classification", "multilabel", "tokens")
def balanced_accuracy(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean recall of the classes that occur in the labels; 1 / classes for a constant answer.

    Where a row has several labels, it is the mean over labels, each a task of two classes.
    """
    truth = np.asarray(labels)
    if truth.ndim == 2:
        columns = zip(np.asarray(predictions).T, truth.T, strict=True)
        return (
            float(np.mean([balanced_accuracy(predicted, column) for predicted, column in columns]))
            if truth.size
            else 0.0
        )
    hits, _, present = _class_counts(predictions, labels)
    occurs = present > 0
    return float((hits[occurs] / present[occurs]).mean()) if occurs.any() else 0.0


def rmse(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the root mean squared error, in the unit of the labels; it is reported but never used for selection."""
    x, y = (np.asarray(part, dtype=float) for part in (predictions, labels))
    return float(np.sqrt(((x - y) ** 2).mean())) if len(y) else 0.0


@metric("regression", share=False)
def r2(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the coefficient of determination: 0 for the mean of the labels, negative for worse."""
    x, y = (np.asarray(part, dtype=float) for part in (predictions, labels))
    total = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
    return 1.0 - float(((x - y) ** 2).sum()) / total if total > 0 else 0.0


def class_columns(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and 0/1 labels, each [rows, classes]; of two classes, only the second."""
    values, truth = np.asarray(scores, dtype=float), np.asarray(labels)
    if truth.ndim == 1:
        truth = truth[:, None] == np.arange(values.shape[-1])
        if values.shape[-1] == 2:
            values, truth = values[:, 1:], truth[:, 1:]
    return values, truth.astype(np.int64)


@metric("classification", "multilabel", reads_scores=True)
def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the area under the precision-recall curve, averaged over the classes that occur (by scikit-learn)."""
    from sklearn.metrics import average_precision_score

    values, truth = class_columns(scores, labels)
    some = np.flatnonzero(truth.any(axis=0))
    return float(np.mean([average_precision_score(truth[:, i], values[:, i]) for i in some])) if some.size else 0.0


@metric("classification", "multilabel", reads_scores=True)
def micro_average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the area under the precision-recall curve of all decisions together (by scikit-learn)."""
    from sklearn.metrics import average_precision_score

    values, truth = class_columns(scores, labels)
    return float(average_precision_score(truth.ravel(), values.ravel())) if truth.any() else 0.0


@metric("classification", "multilabel", reads_scores=True)
def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the area under the ROC curve, averaged over classes with positives and negatives (by scikit-learn)."""
    from sklearn.metrics import roc_auc_score

    values, truth = class_columns(scores, labels)
    both = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    return float(np.mean([roc_auc_score(truth[:, i], values[:, i]) for i in both])) if both.size else 0.5


def kl_divergences(probabilities: npt.ArrayLike, reference: npt.ArrayLike) -> np.ndarray:
    """Compute the Kullback-Leibler divergence of probabilities from those of a reference, in nats.

    Args:
        probabilities: Of the model [rows, classes].
        reference: Of the reference [rows, classes].

    Returns:
        ``sum(reference * log(reference / probabilities))`` over classes [rows]; at least 0.
    """
    ours, wanted = (np.maximum(np.asarray(part, dtype=float), 1e-12) for part in (probabilities, reference))
    return np.asarray(np.maximum((wanted * np.log(wanted / ours)).sum(axis=-1), 0.0))


@metric("classification", reads_scores=True, share=False, reads_distributions=True)
def neg_kl_divergence(probabilities: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Compute minus the mean KL divergence from a model's probabilities, in nats; 0 is the best.

    Where labels are those of the data, each is certain, and this is minus the mean log loss.
    """
    return -float(kl_divergences(probabilities, reference).mean())


def metrics_of(kind: str) -> tuple[str, ...]:
    """Return the names of the metrics of a kind of task, the default first."""
    default, others = find(kind).default_metric, find(kind).metrics
    fitting = (name for name, info in METRICS.items() if kind in info.kinds or name in others)
    return default, *(name for name in fitting if name != default)


def counts_rows(name: object) -> bool:
    """Return whether a metric, as a stored fact names it, is the share of right rows."""
    return isinstance(name, str) and name in METRICS and METRICS[name].counts


def counts_queries(name: object) -> bool:
    """Return whether a metric, as a stored fact names it, is a mean over queries."""
    if not isinstance(name, str) or name not in METRICS:
        return False
    return name in OF_SEARCHES or any(find(kind).grouped for kind in METRICS[name].kinds)


def check_form(kind: str, metric: str, labels: Sequence[Any]) -> None:
    """Refuse a metric that does not fit the form of the labels.

    Args:
        kind: Kind of task.
        metric: Name of the metric.
        labels: The labels that it is to read.

    Raises:
        InputError: It reads labels of another form.
    """
    form = find(kind).form_of(labels)
    if form is not None and metric not in form.metrics:
        raise InputError(f"metric '{metric}' does not fit labels that are {form.name}; {nearest(metric, form.metrics)}")


def check_informative(kind: str, metric: str, split: str, labels: Sequence[Any]) -> None:
    """Refuse a metric that has the same value for every model.

    Args:
        kind: Kind of task.
        metric: Name of the metric.
        split: Name of the split.
        labels: The labels of the split.

    Raises:
        InputError: The labels leave nothing to compare.
    """
    if labels and (reason := find(kind).says_nothing(metric, labels)):
        raise InputError(f"split {split}: {reason}")


def check_metric(kind: str, metric: str, label_names: Sequence[str]) -> None:
    """Refuse a metric that does not fit the task.

    Args:
        kind: Kind of task.
        metric: Name of the metric.
        label_names: Names of the labels, in order.

    Raises:
        InputError: The metric is not for this kind of task, or not for these labels.
    """
    allowed = metrics_of(kind)
    if metric not in allowed:
        raise InputError(f"metric '{metric}' does not fit a {kind} task; {nearest(metric, allowed)}")
    if metric == "f1" and len(label_names) != 2:
        raise InputError(
            f"metric 'f1' is for two labels, the task has {len(label_names)}; choose 'macro_f1' or 'micro_f1'"
        )
    if METRICS[metric].reads_entities and scheme_of(tuple(label_names)) is None:
        raise InputError(
            f"metric '{metric}' counts entities, which needs tags such as B-PER, I-PER and {OUTSIDE}, got "
            f"{', '.join(label_names)[:80]}; choose 'token_f1', 'accuracy' or 'macro_f1'"
        )
    if metric == "token_f1" and (not label_names or label_names[0] != OUTSIDE):
        raise InputError(
            f"metric 'token_f1' leaves out the tag '{OUTSIDE}', which must be the first label name; "
            "choose 'accuracy' or 'macro_f1' for tags that cover every word"
        )
