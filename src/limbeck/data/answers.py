"""Get the answers of any model on a split; those of slow teachers are computed once and stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.model import AnswerSource
from limbeck.storage.memmap import Keep, cached_arrays

if TYPE_CHECKING:
    from limbeck.core.task import Task

CHUNK = 512
"""Rows that are answered and stored together."""


def answers(
    model: Any,  # a Runnable or an AnswerSource
    tokenizer: Any,  # its tokenizer; None for an AnswerSource
    task: Task,
    split: str,
    batch_size: int | None = None,
    keep: Keep | None = None,
) -> np.ndarray | list[np.ndarray]:
    """Return a model's logits on a split, in its order.

    Args:
        model: A torch model, an ONNX file, or a teacher that only gives answers.
        tokenizer: The model's.
        task: The task.
        split: Name of the split.
        batch_size: Texts answered together by a model that limbeck opens.
        keep: ``RunContext.keep``, where answers of other teachers are kept.

    Returns:
        [rows, labels]; for tokens a list of [seq, labels].
    """
    from limbeck.data.batching import encode, predict

    if not isinstance(model, AnswerSource):
        return predict(model, encode(task, split, tokenizer), batch_size)
    if keep is None or not model.identity:
        return model.answer(task, split)
    return np.concatenate([_cached(model, part, split, keep) for part in _parts(task, split)])


def _parts(task: Task, split: str) -> Iterator[Task]:
    """Cut a split into chunks; rows that augmentation added are in chunks of their own, so that only they are new."""
    rows = task.split(split)
    original = task.labelled_rows if split == "train" else len(rows)
    for begin, end in ((0, original), (original, len(rows))):
        for start in range(begin, end, CHUNK):
            yield replace(task, splits={split: rows.take(range(start, min(start + CHUNK, end)))})


def _cached(source: AnswerSource, task: Task, split: str, keep: Keep) -> np.ndarray:
    rows = task.split(split)
    read = [task.kind, task.label_names, task.max_length, task.mask_token, rows.texts, rows.pairs]
    digest = hashlib.sha256(json.dumps(read).encode()).hexdigest()[:16]
    name = f"answers-{source.identity}-{digest}"
    return cached_arrays(keep, name, lambda: {"logits": source.answer(task, split)})["logits"]
