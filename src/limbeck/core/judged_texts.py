"""Texts by which vectors are judged together: documents that queries search for, and examples of classes.

The rows of such a split depend on each other, so a metric is one of all its vectors: retrieval ranks the documents by
their cosine with each query, and a probe learns classes from some vectors and answers the others (logistic regression,
as in SentEval, Conneau and Kiela, 2018, arXiv:1803.05449).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from limbeck.core.retrieval import ndcg, order, recall


class Document(NamedTuple):
    """The label of a text to be found: its number among the documents of the split."""

    number: int


class Query(NamedTuple):
    """The label of a text that searches.

    Attributes:
        gains: Number and gain of each document that was judged for it.
        itself: Number of the document that is this text, which is not to be found; None if there is none.
    """

    gains: tuple[tuple[int, float], ...]
    itself: int | None = None


class Example(NamedTuple):
    """The label of a text of a class: the index of the class, and whether the probe learns from it."""

    label: int
    learned: bool


OF_SEARCHES, OF_PROBES = ("ndcg_at_10", "recall_at_100"), ("probe_accuracy",)
"""Metrics of a search and of a probe, the usual one first."""
BY_ROW = (*OF_SEARCHES, *OF_PROBES)
"""The metrics of vectors that are judged together."""
Judged = Document | Query | Example
"""A label of a text by which vectors are judged."""
FORMS: Mapping[str, type[Document] | type[Query] | type[Example]] = {
    "document": Document,
    "query": Query,
    "example": Example,
}
"""Each kind of label by its name in files."""


def is_judged(label: object) -> TypeGuard[Judged]:
    """Return whether a label is one of a text by which vectors are judged."""
    return isinstance(label, (Document, Query, Example))


def to_plain(label: Judged) -> dict[str, Any]:
    """Return a label as JSON holds it.

    >>> to_plain(Query(((4, 1.0),)))
    {'query': [[4, 1.0]]}
    """
    name = next(name for name, form in FORMS.items() if isinstance(label, form))
    if isinstance(label, Query):
        plain: dict[str, Any] = {name: [list(gain) for gain in label.gains]}
        return plain if label.itself is None else {**plain, "itself": label.itself}
    return {name: label.number if isinstance(label, Document) else [label.label, label.learned]}


def from_plain(value: Mapping[str, Any]) -> Judged:
    """Invert :func:`to_plain`.

    >>> from_plain({"query": [[4, 1.0]]})
    Query(gains=((4, 1.0),), itself=None)
    """
    if "document" in value:
        return Document(int(value["document"]))
    if "query" in value:
        itself = value.get("itself")
        gains = tuple((int(number), float(gain)) for number, gain in value["query"])
        return Query(gains, None if itself is None else int(itself))
    index, learned = value["example"]
    return Example(int(index), bool(learned))


def is_asked(label: Judged) -> bool:
    """Return whether a metric counts the text: a query, or an example that the probe answers."""
    return isinstance(label, Query) or (isinstance(label, Example) and not label.learned)


def column(labels: Sequence[Judged] | np.ndarray) -> np.ndarray:
    """Return labels as an array of objects [texts]."""
    values = np.empty(len(labels), dtype=object)
    values[:] = list(labels)
    return values


def rows_of(vectors: np.ndarray, labels: Sequence[Judged] | np.ndarray) -> dict[str, np.ndarray]:
    """Compute each metric of each query, or of each example that the probe answers.

    Args:
        vectors: The texts' vectors [texts, width].
        labels: Their labels [texts].

    Returns:
        The values [queries] or [examples], by metric; queries without a relevant document are left out.
    """
    values = np.asarray(vectors, dtype=float).reshape(len(labels), -1)
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    if len(labels) and isinstance(labels[0], Example):
        return {"probe_accuracy": _right_answers(unit, labels)}
    scores: dict[str, list[float]] = {name: [] for name in OF_SEARCHES}
    for ranked, gains in _rankings(unit, labels):
        scores["ndcg_at_10"].append(ndcg(ranked, gains))
        scores["recall_at_100"].append(recall(ranked, {number for number, gain in gains.items() if gain > 0}))
    return {name: np.array(row, dtype=float) for name, row in scores.items()}


def by_row(name: str, vectors: np.ndarray, labels: Sequence[Judged] | np.ndarray) -> np.ndarray:
    """Compute one metric as :func:`rows_of` does.

    Args:
        name: Name of the metric.
        vectors: The texts' vectors [texts, width].
        labels: Their labels [texts].
    """
    return rows_of(vectors, labels)[name]


def most_ranked(labels: Sequence[Judged] | np.ndarray) -> int:
    """Return how many documents a query of a search ranks at most; one that is a document does not find itself.

    >>> most_ranked([Document(0), Document(1), Query(((0, 1.0),), itself=1)])
    1
    """
    documents = sum(isinstance(label, Document) for label in labels)
    return max((documents - (label.itself is not None) for label in labels if isinstance(label, Query)), default=0)


def _rankings(
    vectors: np.ndarray, labels: Sequence[Judged] | np.ndarray
) -> Iterator[tuple[list[int], dict[int, float]]]:
    """Yield the numbers of all other documents, nearest first, and the gains, of queries that have a relevant one."""
    documents = vectors[[isinstance(label, Document) for label in labels]]
    numbers = np.array([label.number for label in labels if isinstance(label, Document)], dtype=np.int64)
    for vector, label in zip(vectors, labels, strict=True):
        if isinstance(label, Query) and any(gain > 0 for _, gain in label.gains):
            ranked = numbers[order(documents @ vector)]
            yield ranked[ranked != (-1 if label.itself is None else label.itself)].tolist(), dict(label.gains)


def _right_answers(vectors: np.ndarray, labels: Sequence[Judged] | np.ndarray) -> np.ndarray:
    """Learn classes from the vectors of some examples; return whether the answers to the others are right."""
    from sklearn.linear_model import LogisticRegression

    classes, learned = (np.array(values) for values in zip(*labels, strict=True))
    probe = LogisticRegression(max_iter=1000).fit(vectors[learned], classes[learned])
    return np.asarray(probe.predict(vectors[~learned]) == classes[~learned], dtype=float)


def metrics_for(label: Judged) -> tuple[str, ...]:
    """Return the metrics of a split with such labels, the usual one first."""
    return OF_PROBES if isinstance(label, Example) else OF_SEARCHES
