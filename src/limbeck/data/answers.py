"""Get the answers of any model on a split; those of slow teachers are computed once and stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from limbeck.core.assessment import UnseenWord
from limbeck.core.model import AnswerSource
from limbeck.data.encoding import part_of_search
from limbeck.storage.memmap import Keep, cached_arrays

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable
    from limbeck.core.task import Task

CHUNK = 512
"""Rows that are answered and stored together."""
Answers = np.ndarray | list[np.ndarray]
"""Logits of a split: [rows, labels]; where words have labels, [words, labels] of each row."""


def answers(
    model: Runnable | AnswerSource,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task,
    split: str,
    batch_size: int | None = None,
    keep: Keep | None = None,
    identity: str = "",
) -> Answers:
    """Return a model's logits on a split, in its order.

    Args:
        model: A torch model, an ONNX file, or a teacher that only gives answers.
        tokenizer: The model's; None for a teacher that only gives answers.
        task: The task.
        split: Name of the split.
        batch_size: Texts answered together by a model that limbeck opens.
        keep: ``RunContext.keep``, where answers of other teachers are kept, part by part.
        identity: Identifies the content of a model that limbeck opens, if its answers are to be kept, too.

    Returns:
        [rows, labels]; where words have labels, a list of [words, labels], NaN for words that the model did not see.
    """
    if isinstance(model, AnswerSource):
        ask, identity = model.answer, model.identity
    else:
        assert tokenizer is not None  # a model that reads tokens comes with its tokenizer
        ask = partial(_predicted, model, tokenizer, batch_size)
    if keep is None or not identity:
        return ask(task, split)
    logits = np.concatenate([_cached(ask, identity, part, split, keep) for part in _parts(task, split)])
    if not task.task_kind.per_token:
        return logits
    return np.split(logits, np.cumsum([len(text) for text in task.split(split).texts])[:-1])


def _predicted(
    model: Runnable, tokenizer: PreTrainedTokenizerBase, batch_size: int | None, task: Task, split: str
) -> Answers:
    from limbeck.data.batching import encode, predict

    encoded = encode(task, split, tokenizer)
    logits = predict(model, encoded, batch_size)
    return by_word(logits, encoded.first_pieces) if encoded.per_token else logits


def by_word(
    logits: Sequence[np.ndarray] | np.ndarray, first_pieces: Sequence[Sequence[int | None]]
) -> list[np.ndarray]:
    """Take the logits of each word's first token.

    Args:
        logits: For each text [tokens, labels].
        first_pieces: For each text, the position of each word's first token; None for words without one.

    Returns:
        For each text [words, labels], NaN for words without a token.

    >>> by_word([np.array([[1.0], [2.0], [3.0]])], [[2, None]])[0].tolist()
    [[3.0], [nan]]
    """
    rows = []
    for values, positions in zip(logits, first_pieces, strict=True):
        row = np.full((len(positions), values.shape[-1]), np.nan, dtype=values.dtype)
        seen = [word for word, position in enumerate(positions) if position is not None]
        row[seen] = values[[position for position in positions if position is not None]]
        rows.append(row)
    return rows


class Judgeable(NamedTuple):
    """Answers and labels that can be compared, and each text's words without an answer."""

    logits: Sequence[np.ndarray] | np.ndarray
    labels: Sequence[Any]
    unseen: Sequence[Sequence[UnseenWord]] = ()


def judgeable(task: Task, logits: Sequence[np.ndarray] | np.ndarray, labels: Sequence[Any]) -> Judgeable:
    """Set the words apart that a model did not see, as ``TaskKind.assess`` takes them.

    Args:
        task: The task.
        logits: As :func:`answers` returns them.
        labels: The label of each text.
    """
    if not task.task_kind.per_token:
        return Judgeable(logits, labels)
    seen = [~np.isnan(row).any(axis=-1) for row in logits]
    triples = [
        (row, np.asarray(tags, dtype=np.int64), mask) for row, tags, mask in zip(logits, labels, seen, strict=True)
    ]
    return Judgeable(
        [row[mask] for row, _, mask in triples],
        [tags[mask] for _, tags, mask in triples],
        [[UnseenWord(int(word), int(tags[word])) for word in np.flatnonzero(~mask)] for _, tags, mask in triples],
    )


def _parts(task: Task, split: str) -> Iterator[Task]:
    """Cut a split into chunks; rows that augmentation added are in chunks of their own, so that only they are new."""
    rows = task.split(split)
    original = task.labeled_rows if split == "train" else len(rows)
    for begin, end in ((0, original), (original, len(rows))):
        for start in range(begin, end, CHUNK):
            yield replace(task, splits={split: rows.take(range(start, min(start + CHUNK, end)))})


def keepable_answers(source: AnswerSource, task: Task, split: str, keep: Keep) -> dict[str, Callable[[], np.ndarray]]:
    """Return what keeps each chunk of the answers of a teacher, by the names under which chunks are kept.

    Args:
        source: A teacher that only gives answers; without an identity, nothing of it is kept.
        task: The task.
        split: Name of the split.
        keep: ``RunContext.keep``.
    """
    if not source.identity:
        return {}
    parts = {_name(source.identity, part, split): part for part in _parts(task, split)}
    return {name: partial(_cached, source.answer, source.identity, part, split, keep) for name, part in parts.items()}


def _name(identity: str, task: Task, split: str) -> str:
    rows = task.split(split)
    read = [task.kind, task.label_names, task.max_length, task.mask_token, rows.texts, rows.pairs]
    if any(parts := [part_of_search(label) for label in rows.labels]):  # which have prompts
        read.append([part and part.__name__ for part in parts])
    return f"answers-{identity}-{hashlib.sha256(json.dumps(read).encode()).hexdigest()[:16]}"


def _cached(ask: Callable[[Task, str], Answers], identity: str, task: Task, split: str, keep: Keep) -> np.ndarray:
    def build() -> dict[str, np.ndarray]:
        logits = ask(task, split)
        return {"logits": np.concatenate(logits) if task.task_kind.per_token else np.asarray(logits)}

    return cached_arrays(keep, _name(identity, task, split), build)["logits"]
