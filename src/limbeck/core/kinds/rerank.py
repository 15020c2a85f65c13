"""A score for a query with a document: the documents of a query are ranked by it, as cross-encoders do.

A row is one document of a request; a label says which query it belongs to, its gain, and what the best ranking would
reach (``core.requests.Judged``). Metrics are means over queries, so queries are what intervals resample. A query
without any relevant document says nothing and is left out of nDCG and of the reciprocal rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.logits import Activation
from limbeck.core.metrics import metric
from limbeck.core.requests import DEPTH, Judged, requests_of
from limbeck.core.retrieval import dcg, order, overlap, reciprocal_rank
from limbeck.core.single_number import SingleNumber
from limbeck.core.statistics import Interval, Resampled, pack_numbers, resampled_score
from limbeck.core.task_kind import Label, LabelForm, Logits

Request = Callable[[np.ndarray, np.ndarray, float], float | None]
"""Scores a request, given scores [documents], gains [documents] and the ideal gain; None where it says nothing."""


@metric("rerank")
def ndcg_at_10(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean normalized discounted cumulative gain of the first ten documents; gains count as they are."""
    return _mean(by_request("ndcg_at_10", predictions, labels))


@metric("rerank")
def mrr_at_10(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean reciprocal rank of the first relevant document among the first ten."""
    return _mean(by_request("mrr_at_10", predictions, labels))


@metric("rerank")
def overlap_at_10(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the share of the first ten documents in common with a ranking by the labels: by a teacher's scores."""
    return _mean(by_request("overlap_at_10", predictions, labels))


def by_request(name: str, predictions: npt.ArrayLike, labels: npt.ArrayLike) -> np.ndarray:
    """Compute a metric of each request.

    Args:
        name: A key of ``BY_REQUEST``.
        predictions: Scores [rows].
        labels: Query, gain and ideal gain of each row [rows, 3].

    Returns:
        The values, without those of requests that say nothing.
    """
    scores, truth = np.asarray(predictions, dtype=float), np.asarray(labels, dtype=float).reshape(-1, 3)
    values = (
        BY_REQUEST[name](scores[rows], truth[rows, 1], float(truth[rows[0], 2])) for rows in requests_of(truth.tolist())
    )
    return np.array([value for value in values if value is not None], dtype=float)


def _ndcg(scores: np.ndarray, gains: np.ndarray, ideal: float) -> float | None:
    return dcg(np.maximum(gains[order(scores)[:DEPTH]], 0.0).tolist()) / ideal if ideal > 0 else None


def _reciprocal_rank(scores: np.ndarray, gains: np.ndarray, ideal: float) -> float | None:
    relevant = set(np.flatnonzero(gains > 0).tolist())
    return reciprocal_rank(order(scores).tolist(), relevant, DEPTH) if ideal > 0 else None


def _overlap(scores: np.ndarray, gains: np.ndarray, ideal: float) -> float | None:
    if len(scores) <= DEPTH:  # then it is 1 for any order
        return None
    return overlap(order(scores).tolist(), order(gains).tolist(), DEPTH)


BY_REQUEST: Mapping[str, Request] = {
    "ndcg_at_10": _ndcg,
    "mrr_at_10": _reciprocal_rank,
    "overlap_at_10": _overlap,
}
"""The metrics of one request."""


def _mean(values: npt.ArrayLike, same: npt.ArrayLike = ()) -> float:
    numbers = np.asarray(values, dtype=float)
    return float(numbers.mean()) if numbers.size else 0.0


def _resampled(values: np.ndarray) -> Resampled:
    """Return the mean over requests with its interval; 0 without requests."""
    if not values.size:
        return Resampled(Interval(0.0, 0.0, 0.0), np.zeros(0))
    return resampled_score(_mean, values, values)


class Rerank(SingleNumber):
    """The rank of documents for a query. A label is a tuple as ``Judged``; there are no label names."""

    name = "rerank"
    problem_type = "rerank"  # transformers has no name for it
    config_mark = "reranker"
    grouped = True
    default_metric = "ndcg_at_10"
    pipeline = "text-ranking"

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the score.

        Args:
            logits: [1].
            labels: Ignored.
            activation: Ignored: none changes the order.
        """
        return {"answer": float(np.asarray(logits).reshape(-1)[0]), "scores": {}}

    def describe(self, label: Label, names: Sequence[str]) -> str:
        """Format the gain."""
        return f"{label[1]:g}"

    def form_of(self, labels: Sequence[Label]) -> LabelForm | None:
        """Return that labels are scores alone, where no document is relevant; a model's answers are such labels."""
        if not labels or any(label[2] > 0 for label in labels):
            return None
        return LabelForm("scores by which no document is relevant", ("overlap_at_10",))

    def says_nothing(self, metric: str, labels: Sequence[Label]) -> str:
        """Return that requests have too few documents for an overlap.

        Args:
            metric: Name of the metric.
            labels: The labels of a split.
        """
        if metric != "overlap_at_10" or any(len(rows) > DEPTH for rows in requests_of(labels)):
            return ""
        return (
            f"no query has more than {DEPTH} documents, so overlap_at_10, the share of the first {DEPTH} in common, is "
            "1 for any order; give more documents for each query"
        )

    def truth(self, labels: Sequence[Label] | np.ndarray) -> np.ndarray:
        """Return query, gain and ideal gain [rows, 3]."""
        return np.asarray(labels, dtype=float).reshape(-1, 3)

    def fidelity_metric(self, names: Sequence[str]) -> str:
        """Return the overlap of the first ten documents with the model's."""
        return "overlap_at_10"

    def decisions(self, logits: Logits, labels: Sequence[Label] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits and the gains, row by row.

        Args:
            logits: [rows, 1].
            labels: [rows, 3].
        """
        return np.asarray(logits), self.truth(labels)[:, 1]

    def score(self, metric: str, names: Sequence[str], logits: Logits, labels: Sequence[Label] | np.ndarray) -> float:
        """Compute a metric, request by request.

        Args:
            metric: Name of the metric.
            names: Empty.
            logits: [rows, 1].
            labels: [rows, 3].
        """
        return _mean(by_request(metric, self.decode(np.asarray(logits)), self.truth(labels)))

    def same_answers(self, first: Logits, second: Logits, labels: Sequence[npt.ArrayLike]) -> np.ndarray:
        """Return whether two models agree that a document is among the first ten of its request, or is not [rows].

        Args:
            first: Logits of one model.
            second: Logits of the other.
            labels: The rows' labels, which say which rows belong together.
        """
        sides = (self.decode(np.stack(list(side))) for side in (first, second))
        truth = self.truth(labels)  # type: ignore[arg-type]  # numbers, as nested sequences
        inside = [_first(scores, truth) for scores in sides]
        return np.asarray(inside[0] == inside[1])

    def likeness(self, before: Logits, after: Logits, labels: Sequence[Label]) -> dict[str, Interval]:
        """Return the overlap of the first ten documents of two models.

        Args:
            before: Logits of the reference.
            after: Logits of another model.
            labels: The rows' labels.
        """
        ranking = self.truth(labels).copy()
        ranking[:, 1] = self.decode(np.stack(list(before)))
        values = by_request("overlap_at_10", self.decode(np.stack(list(after))), ranking)
        return {"overlap_at_10": _resampled(values).interval}

    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[UnseenWord]] = (),
    ) -> Assessment:
        """Score with a bootstrap interval over queries, whose values are kept; of judgments, the other metric beside.

        Args:
            metric: Name of the metric.
            names: Empty.
            logits: [rows, 1].
            labels: [rows, 3].
            unseen: Empty.
        """
        scores, truth = self.decode(np.stack(list(logits))), self.truth(labels)
        values = by_request(metric, scores, truth)
        others = [name for name in ("ndcg_at_10", "mrr_at_10") if name != metric and metric != "overlap_at_10"]
        beside = {name: _resampled(by_request(name, scores, truth)).interval for name in others}
        quality, resampled = _resampled(values)
        return Assessment(quality, {"resampled": pack_numbers(resampled)}, beside, examples=len(values))

    def review(self, logits: npt.ArrayLike, label: Label, confidence: float) -> tuple[Label, Label]:
        """Return the prediction, and the label as it is.

        Args:
            logits: [1].
            label: The label of the row.
            confidence: Ignored: a score has none.
        """
        return tuple(Judged(label[0], float(np.asarray(logits).reshape(-1)[0]), label[2])), label

    def constants(self, truth: np.ndarray, width: int) -> Iterator[tuple[float | np.ndarray, Sequence[int]]]:
        """Yield equal scores, which leave the documents in the order in which they come.

        Args:
            truth: Ignored.
            width: Ignored.
        """
        yield 0.0, ()


def _first(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return whether each document is among the first of its request [rows]."""
    inside = np.zeros(len(scores), dtype=bool)
    for rows in requests_of(truth.tolist()):
        inside[np.asarray(rows)[order(scores[rows])[:DEPTH]]] = True
    return inside


KIND = Rerank()
