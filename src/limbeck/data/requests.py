"""Make rows of queries and documents into requests: triples become rows, and labels know their query."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from limbeck.core.requests import Judged, ideal_gain, requests_of
from limbeck.core.task import Split
from limbeck.data.readers import Table, plural
from limbeck.errors import InputError

QUERIES = ("query", "question", "anchor")
"""Customary names of the first column of triples."""
POSITIVE, NEGATIVE = "positive", "negative"
"""Names of their other columns; there may be several of negatives (negative_1, negative_2, …)."""


def expand_triples(table: Table) -> Table:
    """Turn rows of a query, a relevant document and irrelevant ones into a row for each document.

    Args:
        table: Any table; one without columns of positives and negatives stays as it is.

    Returns:
        A table with the columns query, document and score, of 1 and 0.
    """
    names = {name.lower(): index for index, name in enumerate(table.columns)}
    query = next((names[name] for name in QUERIES if name in names), None)
    negatives = [index for name, index in names.items() if name == NEGATIVE or name.startswith(f"{NEGATIVE}_")]
    if query is None or POSITIVE not in names or not negatives:
        return table
    columns = [(names[POSITIVE], 1), *((index, 0) for index in negatives)]
    rows: list[Sequence[Any]] = []
    numbers: list[int] = []
    for number, row in zip(table.numbers, table.rows, strict=True):
        rows += [(row[query], row[index], score) for index, score in columns]
        numbers += [number] * len(columns)
    return replace(table, columns=("query", "document", "score"), rows=rows, numbers=numbers)


def gather(split: Split, where: str, notes: list[str]) -> Split:
    """Bring the documents of each query together and give every row its label (``Judged``).

    The documents of a query come in an order that has nothing to do with their scores, because equal scores of a model
    leave documents in their order: files often list the relevant ones first.

    Args:
        split: Rows with a query, a document and a score as label.
        where: Source of the rows, for messages.
        notes: Receives a note about repeated documents.

    Raises:
        InputError: There are no second texts.
    """
    if split.pairs is None:
        raise InputError(
            f"{where}: a reranker needs a query and a document in each row, and there is one text; "
            "name both columns (text: QUERY, pair: DOCUMENT)"
        )
    gains: dict[str, dict[str, float]] = {}
    for query, document, score in zip(split.texts, split.pairs, split.labels, strict=True):
        documents = gains.setdefault(query, {})
        documents[document] = max(score, documents.get(document, score))
    ordered = {query: sorted(documents, key=_digest) for query, documents in gains.items()}
    rows = request_rows(ordered, gains, str, str)
    if repeated := len(split) - len(rows):
        notes.append(f"{where}: {plural(repeated, 'repeat')} of a document for the same query left out")
    notes.append(f"{where}: {plural(len(gains), 'request')}, a query with its documents each")
    return rows


def request_rows(
    candidates: Mapping[str, Sequence[str]],
    gains: Mapping[str, Mapping[str, float]],
    query_text: Callable[[str], str],
    document_text: Callable[[str], str],
) -> Split:
    """Return a row for each document of each query.

    Args:
        candidates: Documents of each query, in their order.
        gains: Gain of every judged document of each query, also of those that are no candidates; others have 0.
        query_text: Returns the text of a query.
        document_text: Returns the text of a document.
    """
    texts, pairs, labels = [], [], []
    for index, (query, documents) in enumerate(candidates.items()):
        judged = gains[query]
        ideal = ideal_gain(list(judged.values()))
        for document in documents:
            texts.append(query_text(query))
            pairs.append(document_text(document))
            labels.append(tuple(Judged(index, float(judged.get(document, 0.0)), ideal)))
    return Split(tuple(texts), tuple(labels), tuple(pairs))


def check_contrast(split: Split, where: str) -> None:
    """Refuse rows that no ranking can be learned from: no query has documents of different gains.

    Args:
        split: Rows of requests.
        where: Source of the rows, for messages.
    """
    if not any(len({split.labels[row][1] for row in rows}) > 1 for rows in requests_of(split.labels)):
        raise InputError(
            f"{where}: no query has documents with different scores, so there is no order to learn; each row should "
            "have a query, a document and a score, and a query several rows"
        )


def _digest(document: str) -> bytes:
    return hashlib.sha256(document.encode()).digest()
