"""A vector for a text: pairs of texts with scores, texts whose vectors are to be like a teacher's, or a search.

The logits of a model are its vectors: [rows, width], or both vectors of each pair joined [rows, 2 * width]. A label is
a score of a pair (of any scale: metrics and the usual loss read its order), the vector of a text as a tuple, or the
part of a text in a search or in a probe, by which a model can be judged but not trained (``core/judged_texts.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.judged_texts import (
    BY_ROW,
    Document,
    Example,
    Query,
    by_row,
    column,
    is_judged,
    metrics_for,
    most_ranked,
    rows_of,
)
from limbeck.core.kinds.rerank import ndcg_at_10
from limbeck.core.logits import Activation
from limbeck.core.metrics import METRICS, Metric, metric, metrics_of
from limbeck.core.statistics import Resampled, pack_numbers, resampled_mean, resampled_score
from limbeck.core.task_kind import OWN_LENGTH, Label, LabelForm, Logits, TaskKind
from limbeck.core.vector_storage import stored_forms

NEIGHBORS = 10
"""Nearest texts that are compared."""
RECALLED = 100
"""Nearest documents among which ``recall_at_100`` looks for the relevant ones."""
ALIKE = 0.99
"""Cosine from which two vectors of a text count as the same answer."""


@metric("embedding", share=False)
def mean_cosine(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean cosine of vectors and a teacher's vectors of the same texts [texts, width]."""
    return float(_cosines(predictions, labels).mean())


@metric("embedding")
def neighbor_overlap(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the share of a text's ten nearest texts that vectors and a teacher's vectors have in common."""
    return float(_shared_neighbors(predictions, labels).mean())


@metric("embedding")
def recall_at_100(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean share of a query's relevant documents among the hundred nearest."""
    return _mean_by_row("recall_at_100", predictions, labels)


@metric("embedding")
def probe_accuracy(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the share of texts that a logistic regression on vectors of other texts answers right."""
    return _mean_by_row("probe_accuracy", predictions, labels)


def _mean_by_row(name: str, vectors: npt.ArrayLike, labels: Any) -> float:
    values = by_row(name, np.asarray(vectors), labels)
    return float(values.mean()) if values.size else 0.0


def _unit(vectors: npt.ArrayLike) -> np.ndarray:
    values = np.asarray(vectors, dtype=float)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12))


def _cosines(first: npt.ArrayLike, second: npt.ArrayLike) -> np.ndarray:
    return np.asarray((_unit(first) * _unit(second)).sum(-1))


def _shared_neighbors(first: npt.ArrayLike, second: npt.ArrayLike) -> np.ndarray:
    """Return for each text the share of its nearest texts that two sets of vectors have in common [texts]."""
    near = (_nearest(_unit(vectors)).tolist() for vectors in (first, second))
    return np.array([len(set(a) & set(b)) / len(a) if a else 1.0 for a, b in zip(*near, strict=True)])


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """Return the indices of the nearest other texts [texts, at most NEIGHBORS]."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    count = min(NEIGHBORS, len(vectors) - 1)
    return np.asarray(np.argsort(-similar, axis=1, kind="stable")[:, :count])


OF_VECTORS: Mapping[str, Callable[[npt.ArrayLike, npt.ArrayLike], np.ndarray]] = {
    "mean_cosine": _cosines,
    "neighbor_overlap": _shared_neighbors,
}
"""Metrics that compare vectors, row by row; others compare the cosines of pairs with scores."""


class Embedding(TaskKind):
    """A vector. A label is a float, the score of a pair; or a tuple of floats, the vector of a text."""

    name = "embedding"
    problem_type = "embedding"  # transformers has no name for it
    activation = "identity"
    numeric = True
    vectors = True
    auto_class = "AutoModel"
    answer_code = "logits.tolist()"
    default_metric = "spearman"
    metrics = (ndcg_at_10.__name__,)
    label_dtype = "float32"
    label_noun = None
    pipeline = "sentence-similarity"
    usual_length = OWN_LENGTH

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the vector.

        Args:
            logits: [width].
            labels: Ignored.
            activation: Ignored.
        """
        return {"answer": [float(value) for value in logits], "scores": {}}

    def label_of(self, answer: Mapping[str, Any], names: Sequence[str]) -> Label:
        """Return the cosine of a pair, or the vector of a text."""
        value = answer["answer"]
        return tuple(value) if isinstance(value, (list, tuple)) else float(value)

    def classes_in(self, label: Label) -> Iterable[int]:
        """Return nothing: there are no label names."""
        return ()

    def describe(self, label: Label, names: Sequence[str]) -> str:
        """Format the score, the width of the vector, or the part of the text."""
        if isinstance(label, Document):
            return "a document"
        if isinstance(label, Query):
            return f"a query with {sum(gain > 0 for _, gain in label.gains)} relevant documents"
        if isinstance(label, Example):
            return f"class {label.label}"
        return f"a vector of {len(label)}" if isinstance(label, (list, tuple)) else f"{label:g}"

    def form_of(self, labels: Sequence[Label]) -> LabelForm | None:
        """Return whether labels are scores of pairs, vectors, a search or a probe."""
        if not labels:
            return None
        if is_judged(labels[0]):
            name = "texts of classes, for a probe" if isinstance(labels[0], Example) else "the judgments of a search"
            return LabelForm(name, metrics_for(labels[0]))
        if isinstance(labels[0], (list, tuple)):
            return LabelForm("the vectors of a model", tuple(OF_VECTORS))
        scores = (name for name in metrics_of(self.name) if name not in {*OF_VECTORS, *BY_ROW})
        return LabelForm("scores of pairs", tuple(scores))

    def says_nothing(self, metric: str, labels: Sequence[Label] | np.ndarray) -> str:
        """Return that there are too few texts for a share of the nearest ones.

        Args:
            metric: Name of the metric.
            labels: The labels of a split.
        """
        if metric == "neighbor_overlap" and len(labels) <= NEIGHBORS + 1:
            return (
                f"neighbor_overlap, the share of the {NEIGHBORS} nearest texts in common, is 1 for any vectors of at "
                f"most {NEIGHBORS + 1} texts, got {len(labels)}; give more texts, or choose mean_cosine"
            )
        if metric == "recall_at_100" and most_ranked(labels) <= RECALLED:
            return (
                f"no query searches more than {RECALLED} documents, so recall_at_100, the share of the relevant ones "
                f"among the {RECALLED} nearest, is 1 for any vectors; give more documents, or choose ndcg_at_10"
            )
        return ""

    def truth(self, labels: Sequence[Label] | np.ndarray) -> np.ndarray:
        """Return the scores [rows], vectors [rows, width], or parts in a search or a probe as objects [rows]."""
        return column(labels) if len(labels) and is_judged(labels[0]) else np.asarray(labels, dtype=float)

    def decode(self, logits: npt.ArrayLike) -> np.ndarray:
        """Return the cosines [rows] of joined vectors [rows, 2 * width]."""
        return _cosines(*np.split(np.asarray(logits, dtype=float), 2, axis=-1))

    def readings(self, metric: str, logits: npt.ArrayLike) -> np.ndarray:
        """Return what a metric takes: vectors, or the cosines of pairs.

        Args:
            metric: Name of the metric.
            logits: Vectors [rows, width], or joined ones [rows, 2 * width].
        """
        return np.asarray(logits, dtype=float) if metric in {*OF_VECTORS, *BY_ROW} else self.decode(logits)

    def score(self, metric: str, names: Sequence[str], logits: Logits, labels: Sequence[Label] | np.ndarray) -> float:
        """Compute a metric of vectors.

        Args:
            metric: Name of the metric.
            names: Empty.
            logits: Vectors [rows, width], or joined ones [rows, 2 * width].
            labels: Labels in one of the forms [rows].
        """
        if metric in BY_ROW:
            return _mean_by_row(metric, np.asarray(logits), labels)
        return super().score(metric, names, logits, labels)

    def same_answers(self, first: Logits, second: Logits, labels: Sequence[npt.ArrayLike]) -> np.ndarray:
        """Return whether two models give almost the same vectors [rows].

        Args:
            first: Vectors of one model.
            second: Vectors of the other.
            labels: Ignored.
        """
        return _cosines(np.stack(list(first)), np.stack(list(second))) >= ALIKE

    def fidelity_metric(self, names: Sequence[str]) -> str:
        """Return the mean cosine to the model's vectors."""
        return "mean_cosine"

    def answers(self, logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return the cosines of pairs [rows], or the vectors of single texts [rows, width].

        Args:
            logits: Joined vectors [rows, 2 * width], or single ones.
            truth: The labels.
        """
        return self.decode(logits) if _of_pairs(truth) else logits

    def drift(self, before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return how far the cosines of pairs have moved, or the vectors of single texts [rows].

        A vector has moved by what its cosine with the one before lacks to 1.

        Args:
            before: Vectors of the reference [rows, width], or joined ones [rows, 2 * width].
            after: Those of another model.
            truth: The labels.
        """
        if _of_pairs(truth):
            return np.asarray(np.abs(self.decode(before) - self.decode(after)))
        return np.asarray(1 - _cosines(before, after))

    def answer_name(self, answer: Any, names: Sequence[str]) -> str:  # a row of what ``decode`` returns
        """Format the cosine, or the width of a vector.

        Args:
            answer: The cosine, or the vector.
            names: Empty.
        """
        return self.describe(answer.tolist() if isinstance(answer, np.ndarray) else answer, names)

    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[UnseenWord]] = (),
    ) -> Assessment:
        """Score with a bootstrap interval over the rows; of vectors, the other fidelity stands beside it.

        ``detail["stored"]`` says what is lost where vectors are stored in fewer bytes (``core/vector_storage.py``).

        Args:
            metric: Name of the metric.
            names: Empty.
            logits: Vectors [rows, width], or joined ones [rows, 2 * width].
            labels: Scores [rows], or vectors [rows, width].
            unseen: Empty.
        """
        stacked, truth = np.stack(list(logits)), self.truth(labels)
        if metric in BY_ROW:
            return _judged_together(metric, stacked, truth)
        if metric not in OF_VECTORS:
            quality, values = resampled_score(METRICS[metric], self.decode(stacked), truth)
            compared = partial(_pair_metric, METRICS[metric], self, truth)
            whole = Resampled(quality, values)
            stored = _stored(metric, labels, stacked.reshape(2 * len(truth), -1), whole, compared)
            return Assessment(quality, {"resampled": pack_numbers(values), "stored": stored})
        rows = {name: by_row(stacked, truth) for name, by_row in OF_VECTORS.items()}
        results = {name: resampled_mean(values) for name, values in rows.items()}
        whole, chosen = results["neighbor_overlap"], results.pop(metric)
        beside = {name: result.interval for name, result in results.items() if not self.says_nothing(name, labels)}
        stored = _stored("neighbor_overlap", labels, stacked, whole, partial(_overlap, truth))
        return Assessment(chosen.interval, {"resampled": pack_numbers(chosen.values), "stored": stored}, beside)

    def review(self, logits: npt.ArrayLike, label: Label, confidence: float) -> tuple[Label, Label]:
        """Return the prediction, and the label as it is.

        Args:
            logits: Vectors of the row.
            label: The label of the row.
            confidence: Ignored: a vector has none.
        """
        if isinstance(label, (list, tuple)):  # also the part of a text in a search
            return tuple(np.asarray(logits, dtype=float).tolist()), label
        return float(self.decode(np.asarray(logits)[None])[0]), label

    def constants(self, truth: np.ndarray, width: int) -> Iterator[tuple[float | np.ndarray, Sequence[int]]]:
        """Yield the mean.

        Args:
            truth: Scores [rows], or vectors [rows, width].
            width: Ignored.
        """
        if truth.dtype == object:  # the same vector for every text
            yield 1.0, ()
        else:
            yield truth.mean(axis=0) if truth.ndim > 1 else float(truth.mean()), ()


def _of_pairs(truth: np.ndarray) -> bool:
    """Return whether labels are scores of pairs, so that rows are joined vectors."""
    return truth.ndim == 1 and truth.dtype != object


def _judged_together(metric: str, vectors: np.ndarray, labels: np.ndarray) -> Assessment:
    """Score vectors in a search or in a probe, with an interval over queries, or over the texts of the probe."""
    rows = rows_of(vectors, labels)
    others = (name for name in rows if name != metric and not KIND.says_nothing(name, labels))
    beside = {name: resampled_mean(rows[name]).interval for name in others}
    whole = resampled_mean(rows[metric])
    stored = _stored(metric, labels, vectors, whole, lambda read: resampled_mean(by_row(metric, read, labels)))
    detail = {"resampled": pack_numbers(whole.values), "stored": stored}
    return Assessment(whole.interval, detail, beside, examples=len(rows[metric]))


def _pair_metric(metric: Metric, kind: Embedding, truth: np.ndarray, vectors: np.ndarray) -> Resampled:
    """Score the cosines of pairs, whose vectors follow each other [2 * rows, width]."""
    return resampled_score(metric, kind.decode(vectors.reshape(len(truth), -1)), truth)


def _overlap(truth: np.ndarray, vectors: np.ndarray) -> Resampled:
    """Compare the nearest texts of vectors [rows, width] with those of the teacher's."""
    return resampled_mean(_shared_neighbors(vectors, truth))


def _stored(
    metric: str,
    labels: Sequence[Label] | np.ndarray,
    vectors: np.ndarray,
    whole: Resampled,
    score: Callable[[np.ndarray], Resampled],
) -> dict[str, dict[str, Any]]:
    """Measure a metric of vectors that are stored in fewer bytes, and what that loses, on the same resamples.

    Args:
        metric: Name of the metric.
        labels: The labels.
        vectors: The vectors [texts, width].
        whole: The metric of these.
        score: Computes the metric of vectors.

    Returns:
        The figures by the form in which vectors are stored; none where the metric is the same for all vectors.
    """
    if KIND.says_nothing(metric, labels):
        return {}
    results = {}
    for name, form in stored_forms(vectors.shape[1]).items():
        (value, low, high), values = score(form.read(vectors))
        lost = whole.values - values
        least, most = np.quantile(lost[np.isfinite(lost)], [0.025, 0.975]).tolist()
        results[name] = {
            "metric": metric,
            "bytes": form.bytes,
            "value": value,
            "low": low,
            "high": high,
            "loss": whole.interval.value - value,
            "loss_low": least,
            "loss_high": most,
        }
    return results


KIND = Embedding()
