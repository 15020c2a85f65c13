"""Search for the nearest documents by the vectors of an embedding model: a first stage for rerankers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from limbeck.core.judged_texts import Document, Judged, Query
from limbeck.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable

BLOCK = 64
"""Queries that are compared with all documents at once."""


def by_vectors(model: str, documents: Sequence[str], queries: Sequence[str], count: int) -> list[list[int]]:
    """Return the documents with the largest cosines to each query, best first.

    Args:
        model: Folder or name of an embedding model.
        documents: Texts to search in.
        queries: Texts to search for.
        count: Documents for each query.

    Raises:
        InputError: The model gives no vectors, or such as are not supported.
    """
    from limbeck.model.checkpoints import open_model, peek
    from limbeck.model.location import check_vectors

    description = peek(model)
    if not description["vectors"]:
        check_vectors(model)
        raise InputError(
            f"data option 'first_stage': '{model}' gives no vectors; name an embedding model, a file of results or bm25"
        )
    opened, tokenizer = open_model(model)
    length = description["max_length"]
    document_vectors = _unit(_vectors(opened, tokenizer, documents, length, [Document(0)] * len(documents)))
    query_vectors = _unit(_vectors(opened, tokenizer, queries, length, [Query(())] * len(queries)))
    best: list[list[int]] = []
    for start in range(0, len(query_vectors), BLOCK):
        cosines = query_vectors[start : start + BLOCK] @ document_vectors.T
        best += np.argsort(-cosines, axis=1, kind="stable")[:, :count].tolist()
    return best


def _vectors(
    model: Runnable, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, labels: Sequence[Judged]
) -> np.ndarray:
    from limbeck.data.batching import encode_apart, predict
    from limbeck.data.encoding import TextEncoding

    encoding = TextEncoding.of(cast(Any, tokenizer), length)
    encoded = encode_apart(encoding, tokenizer, list(texts), None, labels, "embedding")
    return np.asarray(predict(model, encoded))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
