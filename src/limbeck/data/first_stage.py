"""The documents that a reranker ranks: the best of a first stage for each query, found once and kept.

A first stage is BM25 (Robertson et al., 1994, by the library bm25s), an embedding model, or a file with the results of
any other, as TREC's programs write it or with the columns query, document and score.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from limbeck.core.digests import content
from limbeck.core.finite import load_json
from limbeck.core.paths import default_root, exists, is_path, user_path
from limbeck.data.beir import Retrieval
from limbeck.data.corpus.documents import numbered_lines
from limbeck.data.readers import missing_file
from limbeck.errors import InputError, MissingExtra, nearest, shown
from limbeck.storage.atomic import replacing

BM25 = "bm25"
VERSION = 1  #: bump it when the same options give other candidates
Ranked = dict[str, list[str]]
"""Ids of the best documents of each query, best first."""


class Ranker(Protocol):
    """Ranks documents by an embedding model: ``limbeck.measure.vector_search.by_vectors``."""

    def __call__(
        self, model: str, documents: Sequence[str], queries: Sequence[str], count: int
    ) -> Sequence[Sequence[int]]:
        """Return the indices of the best documents of each query [queries, count]."""
        ...


def candidates_of(
    retrieval: Retrieval, first_stage: str, count: int, base: Path = Path(), rank: Ranker | None = None
) -> Ranked:
    """Return the best documents of a first stage for each query, without those that have no text or are the query.

    Results are kept beside the store, so that a large corpus is searched once.

    Args:
        retrieval: Documents and queries.
        first_stage: 'bm25', a file of results, or an embedding model.
        count: Documents for each query.
        base: Folder that a path is relative to.
        rank: Ranks by an embedding model; data open no model themselves.

    Raises:
        InputError: There is no such file or model, or a result names an unknown document.
        MissingExtra: BM25 needs a package that is not installed.
    """
    itself = {query: retrieval.itself(query) for query in retrieval.queries}
    depth = count + any(document is not None for document in itself.values())
    ranked = _ranked(retrieval, first_stage, depth, base, rank)
    return {
        query: [document for document in documents if document != itself[query]][:count]
        for query, documents in ranked.items()
    }


def _ranked(retrieval: Retrieval, first_stage: str, count: int, base: Path, rank: Ranker | None) -> Ranked:
    """Return the best documents of a first stage that have a text.

    Args:
        retrieval: Documents and queries.
        first_stage: As for :func:`candidates_of`.
        count: Documents for each query.
        base: Folder that a path is relative to.
        rank: Ranks by an embedding model.
    """
    file = base / user_path(first_stage)
    if first_stage != BM25 and exists(file) and file.is_file():
        return _from_file(retrieval, file, count)
    ids = [key for key, text in retrieval.documents.items() if text]
    documents = [retrieval.documents[key] for key in ids]
    model = str(file) if exists(file) else first_stage

    ranker = _bm25 if first_stage == BM25 else rank
    if ranker is None:
        raise InputError(
            f"data option 'first_stage': '{first_stage}' is taken as a model, which limbeck.load_task opens; "
            "limbeck.data.loading.load_task needs its argument rank for it"
        )

    def search() -> Ranked:
        queries = list(retrieval.queries.values())
        rows = ranker(model, documents, queries, min(count, len(ids)))
        return {query: [ids[row] for row in best] for query, best in zip(retrieval.queries, rows, strict=True)}

    source = {"bm25s": _library()} if first_stage == BM25 else {"model": content(model)}
    return _cached_ranking(retrieval, _key(retrieval, source, count), search)


def check_first_stage(first_stage: str, base: Path = Path()) -> None:
    """Refuse a first stage that cannot be used, before anything is read.

    Args:
        first_stage: As for :func:`candidates_of`.
        base: Folder that a path is relative to.
    """
    if first_stage == BM25:
        _library()
    elif not exists(path := base / user_path(first_stage)) and is_path(first_stage):
        raise InputError(
            f"data option 'first_stage': should be bm25, a file of results or a model; {missing_file(path)}"
        )


def _library() -> str:
    try:
        return metadata.version("bm25s")
    except metadata.PackageNotFoundError:
        raise MissingExtra("bm25s", "rerank") from None


def _bm25(name: str, documents: Sequence[str], queries: Sequence[str], count: int) -> list[list[int]]:
    """Rank by BM25, Lucene's variant, with English stop words and without stemming.

    Args:
        name: Ignored.
        documents: Texts to search in.
        queries: Texts to search for.
        count: Documents for each query.
    """
    _library()
    import bm25s

    index, texts = bm25s.BM25(), bm25s.tokenize(list(documents), stopwords="en", show_progress=False, return_ids=False)
    if not any(texts):
        raise InputError("first_stage: no document has a word that BM25 could find, of two letters or more")
    index.index(texts, show_progress=False)
    words = bm25s.tokenize(list(queries), stopwords="en", show_progress=False, return_ids=False)
    rows, scores = index.retrieve(words, k=count, show_progress=False, n_threads=1)
    pairs = (sorted(zip(-row_scores, row, strict=True)) for row, row_scores in zip(rows, scores, strict=True))
    return [[int(row) for _, row in ranked] for ranked in pairs]


def _from_file(retrieval: Retrieval, path: Path, count: int) -> Ranked:
    """Read results: lines of query, document, score; or query, Q0, document, rank, score, name."""
    scores: dict[str, dict[str, float]] = {}
    for number, line in numbered_lines(path):
        cells = line.split()
        if not cells or (number == 1 and cells[-1] == "score"):
            continue
        where = f"{path}, line {number}"
        if len(cells) not in (3, 6):
            raise InputError(
                f"{where}: expected query, document and score, or TREC's six columns, got {len(cells)}: {shown(line)}"
            )
        query, document, score = cells if len(cells) == 3 else (cells[0], cells[2], cells[4])
        if document not in retrieval.documents:
            raise InputError(
                f"{where}: there is no document {shown(document)}; {nearest(document, retrieval.documents)}"
            )
        try:
            scores.setdefault(query, {})[document] = float(score)
        except ValueError:
            raise InputError(f"{where}: the score should be a number, got {shown(score)}") from None
    if missing := [query for query in retrieval.queries if query not in scores]:
        raise InputError(f"{path}: has no results for {len(missing):,} queries, the first is {shown(missing[0])}")
    best = {query: sorted(scores[query], key=lambda document: -scores[query][document]) for query in retrieval.queries}
    return {query: [key for key in ranked if retrieval.documents[key]][:count] for query, ranked in best.items()}


def _key(retrieval: Retrieval, source: Mapping[str, object], count: int) -> str:
    """Return the name of a stored result: the content of the model's files decides, and of the texts."""
    digest = hashlib.sha256(json.dumps([VERSION, count, source]).encode())
    for texts in (retrieval.documents, retrieval.queries):
        for key, text in texts.items():
            digest.update(json.dumps([key, text]).encode())
    return digest.hexdigest()[:24]


def _cached_ranking(retrieval: Retrieval, key: str, search: Callable[[], Ranked]) -> Ranked:
    """Return the stored result of a key, or search and store it; a folder that cannot be written stores nothing."""
    root = default_root()
    path = root.with_name(f"{root.name}-first-stage") / f"{key}.json"
    with contextlib.suppress(OSError, ValueError):
        stored = load_json(path.read_text(encoding="utf-8"))
        if _is_ranking(stored, retrieval):
            return {query: stored[query] for query in retrieval.queries}
    ranked = search()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(json.dumps(ranked), encoding="utf-8")
    return ranked


def _is_ranking(stored: Any, retrieval: Retrieval) -> TypeGuard[Ranked]:  # any JSON
    """Return whether a stored result has documents for every query, and no unknown ones."""
    return (
        isinstance(stored, dict)
        and stored.keys() == retrieval.queries.keys()
        and all(isinstance(documents, list) for documents in stored.values())
        and all(isinstance(key, str) and retrieval.documents.get(key) for row in stored.values() for key in row)
    )
