"""Metrics on numpy arrays: fast enough to be called a thousand times by a bootstrap.

Where a metric is undefined (no positive at all, a constant prediction) its value is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np

from limbeck.core.logits import activate
from limbeck.errors import InputError, nearest

Kind = Literal["classification", "multilabel", "regression", "tokens"]
Metric: TypeAlias = Callable[[Any, Any], float]

IGNORED = -100  #: label of a position that does not count (padding, special tokens, word pieces after the first)
OUTSIDE = "O"  #: the tag of words that belong to nothing


def accuracy(predictions: Any, labels: Any) -> float:
    """Share of rows that are right; with several labels in a row, all of them must be."""
    right = np.asarray(predictions) == np.asarray(labels)
    return float(right.reshape(len(right), -1).all(axis=1).mean()) if len(right) else 0.0


def _f1_from_counts(hits: Any, predicted: Any, present: Any) -> Any:
    total = np.asarray(predicted + present, dtype=float)
    return np.divide(2.0 * hits, total, out=np.zeros_like(total), where=total > 0)


def f1(predictions: Any, labels: Any) -> float:
    """F1 of class 1 in a task of two classes."""
    guess, truth = np.asarray(predictions) == 1, np.asarray(labels) == 1
    return float(_f1_from_counts((guess & truth).sum(), guess.sum(), truth.sum()))


def _class_counts(predictions: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Hits, predictions and true occurrences of every class that occurs, or of every indicator column."""
    guess, truth = np.asarray(predictions), np.asarray(labels)
    if truth.ndim == 1:
        size = int(max(guess.max(initial=0), truth.max(initial=0))) + 1
        counts = [np.bincount(part, minlength=size) for part in (truth[guess == truth], guess, truth)]
        occurs = counts[1] + counts[2] > 0
        return counts[0][occurs], counts[1][occurs], counts[2][occurs]
    return (guess & truth).sum(axis=0), guess.sum(axis=0), truth.sum(axis=0)


def macro_f1(predictions: Any, labels: Any) -> float:
    """Unweighted mean of the F1 of every class that occurs in the labels or the predictions."""
    scores = _f1_from_counts(*_class_counts(predictions, labels))
    return float(scores.mean()) if scores.size else 0.0


def micro_f1(predictions: Any, labels: Any) -> float:
    """F1 over all decisions of all classes together."""
    hits, predicted, present = _class_counts(predictions, labels)
    return float(_f1_from_counts(hits.sum(), predicted.sum(), present.sum()))


def matthews(predictions: Any, labels: Any) -> float:
    """Matthews correlation for any number of classes (Gorodkin, 2004)."""
    hits, predicted, present = (np.asarray(count, dtype=float) for count in _class_counts(predictions, labels))
    rows = present.sum()
    scale = (rows**2 - (predicted**2).sum()) * (rows**2 - (present**2).sum())
    return float((hits.sum() * rows - (predicted * present).sum()) / np.sqrt(scale)) if scale > 0 else 0.0


def pearson(predictions: Any, labels: Any) -> float:
    """Linear correlation."""
    x, y = (np.asarray(part, dtype=float) for part in (predictions, labels))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else 0.0


def _ranks(values: Any) -> Any:
    """Rank of every value; ties share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def spearman(predictions: Any, labels: Any) -> float:
    """Correlation of the ranks."""
    return pearson(_ranks(predictions), _ranks(labels))


def pearson_spearman(predictions: Any, labels: Any) -> float:
    """Mean of the two correlations, as GLUE reports STS-B."""
    return (pearson(predictions, labels) + spearman(predictions, labels)) / 2


def token_f1(predictions: Any, labels: Any) -> float:
    """Micro F1 over words whose tag is not class 0, the place that a task gives to the tag 'O'.

    Words are counted one by one, not as whole entities, so that tags need no B- and I- prefixes.
    """
    guess, truth = np.asarray(predictions), np.asarray(labels)
    return float(_f1_from_counts(((guess == truth) & (truth > 0)).sum(), (guess > 0).sum(), (truth > 0).sum()))


def balanced_accuracy(predictions: Any, labels: Any) -> float:
    """Compute the mean recall of the classes that occur in the labels; 1 / classes for a constant answer.

    Where a row has several labels: the mean over labels, each as a task of two classes.
    """
    truth = np.asarray(labels)
    if truth.ndim == 2:
        columns = zip(np.asarray(predictions).T, truth.T, strict=True)
        return float(np.mean([balanced_accuracy(guess, column) for guess, column in columns])) if truth.size else 0.0
    hits, _, present = _class_counts(predictions, labels)
    occurs = present > 0
    return float((hits[occurs] / present[occurs]).mean()) if occurs.any() else 0.0


def rmse(predictions: Any, labels: Any) -> float:
    """Compute the root of the mean squared error, in the unit of the labels; reported, never chosen by."""
    x, y = (np.asarray(part, dtype=float) for part in (predictions, labels))
    return float(np.sqrt(((x - y) ** 2).mean())) if len(y) else 0.0


def r2(predictions: Any, labels: Any) -> float:
    """Compute the coefficient of determination: 0 for the mean of the labels, negative for worse."""
    x, y = (np.asarray(part, dtype=float) for part in (predictions, labels))
    total = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
    return 1.0 - float(((x - y) ** 2).sum()) / total if total > 0 else 0.0


def class_columns(scores: Any, labels: Any) -> tuple[Any, Any]:
    """Lay scores and 0/1 labels side by side, [rows, classes]; of two classes the second alone, as is customary."""
    values, truth = np.asarray(scores, dtype=float), np.asarray(labels)
    if truth.ndim == 1:
        truth = truth[:, None] == np.arange(values.shape[-1])
        if values.shape[-1] == 2:
            values, truth = values[:, 1:], truth[:, 1:]
    return values, truth.astype(np.int64)


def average_precision(scores: Any, labels: Any) -> float:
    """Compute the area under the precision-recall curve, averaged over the classes that occur (scikit-learn's)."""
    from sklearn.metrics import average_precision_score

    values, truth = class_columns(scores, labels)
    some = np.flatnonzero(truth.any(axis=0))
    return float(np.mean([average_precision_score(truth[:, i], values[:, i]) for i in some])) if some.size else 0.0


def micro_average_precision(scores: Any, labels: Any) -> float:
    """Compute the area under the precision-recall curve of all decisions together (scikit-learn's)."""
    from sklearn.metrics import average_precision_score

    values, truth = class_columns(scores, labels)
    return float(average_precision_score(truth.ravel(), values.ravel())) if truth.any() else 0.0


def roc_auc(scores: Any, labels: Any) -> float:
    """Compute the area under the ROC curve, averaged over classes with both answers (scikit-learn's); 0.5 is chance."""
    from sklearn.metrics import roc_auc_score

    values, truth = class_columns(scores, labels)
    both = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    return float(np.mean([roc_auc_score(truth[:, i], values[:, i]) for i in both])) if both.size else 0.5


READS_SCORES = frozenset({"average_precision", "micro_average_precision", "roc_auc"})
"""Metrics that rank by scores [rows, classes]; all others compare answers."""

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            accuracy,
            f1,
            macro_f1,
            micro_f1,
            matthews,
            pearson,
            spearman,
            pearson_spearman,
            token_f1,
            balanced_accuracy,
            average_precision,
            micro_average_precision,
            roc_auc,
            r2,
        )
    }
)

METRICS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(  # the first one is the default
    {
        "classification": (
            "accuracy",
            "f1",
            "macro_f1",
            "micro_f1",
            "matthews",
            "balanced_accuracy",
            "average_precision",
            "micro_average_precision",
            "roc_auc",
        ),
        "multilabel": (
            "micro_f1",
            "macro_f1",
            "accuracy",
            "balanced_accuracy",
            "average_precision",
            "micro_average_precision",
            "roc_auc",
        ),
        "regression": ("pearson_spearman", "pearson", "spearman", "r2"),
        "tokens": ("token_f1", "accuracy", "macro_f1", "micro_f1", "balanced_accuracy"),
    }
)


def check_metric(kind: str, metric: str, label_names: Sequence[str]) -> None:
    """Refuse a metric that this kind of task has no use for."""
    allowed = METRICS_OF[kind]
    if metric not in allowed:
        raise InputError(f"metric '{metric}' does not fit a {kind} task; {nearest(metric, allowed)}")
    if metric == "f1" and len(label_names) != 2:
        raise InputError(
            f"metric 'f1' is for two labels, the task has {len(label_names)}; choose 'macro_f1' or 'micro_f1'"
        )
    if metric == "token_f1" and (not label_names or label_names[0] != OUTSIDE):
        raise InputError(
            f"metric 'token_f1' leaves out the tag '{OUTSIDE}', which must be the first label name; "
            "choose 'accuracy' or 'macro_f1' for tags that cover every word"
        )


def decode(kind: Kind, logits: Any) -> Any:
    """Turn logits into predictions that metrics compare with labels.

    Shapes: classification [row, label] -> [row]; multilabel [row, label] -> 0/1 [row, label];
    regression [row, 1] -> [row]; tokens [row, position, label] -> [row, position].
    """
    values = np.asarray(logits)
    if kind == "regression":
        return values.reshape(len(values)).astype(float)
    if kind == "multilabel":
        return (values > 0).astype(np.int64)
    return values.argmax(axis=-1)


def readings(kind: Kind, metric: str, logits: Any) -> Any:
    """Turn logits into what a metric compares with the labels: answers, or scores for a metric that ranks.

    Args:
        kind: The kind of task.
        metric: Name of the metric.
        logits: [rows, labels], or [row, position, label] for tokens.

    Returns:
        Answers as :func:`decode` gives them, or probabilities [rows, labels].
    """
    if metric not in READS_SCORES:
        return decode(kind, logits)
    return activate(logits, "sigmoid" if kind == "multilabel" else "softmax")


def score(kind: Kind, metric: str, logits: Any, labels: Any) -> float:
    """The metric of logits; positions labelled ``IGNORED`` in a token task do not count."""
    if kind == "tokens":
        predictions = np.concatenate([decode(kind, row).reshape(-1) for row in logits])
        truth = np.concatenate([np.asarray(row).reshape(-1) for row in labels])
        counted = truth != IGNORED
        return METRICS[metric](predictions[counted], truth[counted])
    truth = np.asarray(labels, dtype=float if kind == "regression" else np.int64)
    return METRICS[metric](readings(kind, metric, logits), truth)
