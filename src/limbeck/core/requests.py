"""Rows that are documents of requests: those of one query stay together wherever rows are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from limbeck.core.retrieval import dcg

DEPTH = 10
"""Documents of a ranking that count in the metrics."""


class Judged(NamedTuple):
    """The label of a document for a query.

    Attributes:
        query: Index of the query; rows with the same one are a request.
        gain: Score of the document: of a judgment, or a teacher's.
        ideal: Discounted gain of the best possible first ten documents, by all judgments of the query, so also by those
            of documents that are no candidates.
    """

    query: int
    gain: float
    ideal: float


def ideal_gain(gains: Sequence[float]) -> float:
    """Return the discounted gain of the best ranking of judged documents.

    >>> round(ideal_gain([0, 1, 1, 0]), 4)
    1.6309
    """
    return dcg(sorted((gain for gain in gains if gain > 0), reverse=True)[:DEPTH])


def requests_of(labels: Sequence[Sequence[float]]) -> list[list[int]]:
    """Return the rows of each request, in the order in which queries first occur.

    >>> requests_of([(7, 1.0, 1.0), (3, 0.0, 1.0), (7, 0.0, 1.0)])
    [[0, 2], [1]]
    """
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(int(label[0]), []).append(row)
    return list(rows.values())


def choose_requests(labels: Sequence[Sequence[float]], count: int, seed: int) -> list[int]:
    """Choose whole requests at random, reproducibly in every environment.

    Args:
        labels: The label of each row.
        count: Rows to choose at most; the first request is taken even if it has more.
        seed: Seed of the choice.

    Returns:
        Indices of the rows, ascending. A smaller number gives a subset of what a larger one gives.
    """
    chosen: list[int] = []
    for rows in sorted(requests_of(labels), key=lambda rows: _rank(seed, int(labels[rows[0]][0]))):
        if chosen and len(chosen) + len(rows) > count:
            break
        chosen.extend(rows)
    return sorted(chosen)


def _rank(seed: int, query: int) -> bytes:
    # a hash instead of a random generator: the choice stays the same in every version of every library
    return hashlib.sha256(f"{seed}/{query}".encode()).digest()
