"""Metrics of ranked documents, query by query: nDCG, reciprocal rank, recall, and overlap of two rankings.

Gains are those of the judgments as they are, without the exponent that some define (as trec_eval and BEIR do:
Järvelin and Kekäläinen, 2002, equation 3 with base 2). Documents without a judgment count as irrelevant. Equal scores
keep the order of the documents.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Document = TypeVar("Document", bound=Hashable)


def order(scores: npt.ArrayLike) -> np.ndarray:
    """Return the indices of documents from the best to the worst score [documents]."""
    return np.argsort(-np.asarray(scores, dtype=float), kind="stable")


def ndcg(ranked: Sequence[Document], gains: Mapping[Document, float], k: int = 10) -> float:
    """Compute the normalized discounted cumulative gain of the first documents of one query.

    Args:
        ranked: Documents, best first.
        gains: Gain of every judged document; those that are not positive are irrelevant.
        k: Documents that count.

    Returns:
        From 0 to 1; 0 where no document is relevant.

    >>> ndcg(["a", "b", "c"], {"a": 1, "c": 1}), round(ndcg(["b", "a"], {"a": 1}), 3)
    (0.9197207891481876, 0.631)
    """
    ideal = sorted((gain for gain in gains.values() if gain > 0), reverse=True)[:k]
    best = dcg(ideal)
    return dcg([max(0.0, gains.get(document, 0.0)) for document in ranked[:k]]) / best if best else 0.0


def reciprocal_rank(ranked: Sequence[Document], relevant: Collection[Document], k: int = 10) -> float:
    """Compute one over the rank of the first relevant document of a query; 0 if none is among the first ``k``.

    Args:
        ranked: Documents, best first.
        relevant: The relevant ones.
        k: Documents that count.

    >>> reciprocal_rank(["b", "a"], {"a"})
    0.5
    """
    return next((1 / rank for rank, document in enumerate(ranked[:k], 1) if document in relevant), 0.0)


def recall(ranked: Sequence[Document], relevant: Collection[Document], k: int = 100) -> float:
    """Compute the share of a query's relevant documents that are among the first ``k``.

    Args:
        ranked: Documents, best first.
        relevant: The relevant ones.
        k: Documents that count.
    """
    return len(set(ranked[:k]) & set(relevant)) / len(set(relevant)) if relevant else 0.0


def overlap(first: Sequence[Document], second: Sequence[Document], k: int = 10) -> float:
    """Compute the share of the first ``k`` documents that two rankings of a query have in common.

    Args:
        first: One ranking, best first.
        second: The other.
        k: Documents that count; fewer where there are fewer.
    """
    count = min(k, len(first), len(second))
    return len(set(first[:k]) & set(second[:k])) / count if count else 1.0


def dcg(gains: Sequence[float]) -> float:
    """Compute the discounted cumulative gain of documents in their order."""
    return float(np.sum(np.asarray(gains, dtype=float) / np.log2(np.arange(2, len(gains) + 2))))
