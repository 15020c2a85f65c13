"""Answers of a candidate to a split, computed once for all probes that read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from limbeck.core.candidate import Candidate
from limbeck.core.pieces import Result
from limbeck.core.step import RunContext
from limbeck.storage.memmap import cached_arrays

if TYPE_CHECKING:
    from limbeck.core.target import Target
    from limbeck.core.task_kind import TaskKind
    from limbeck.data.batching import Encoded

VERSION = 1
"""Of the answers; raised when the same model answers differently."""


class SplitAnswers(NamedTuple):
    """The tokenized texts of a split, their logits in the same order, and how many were answered together."""

    encoded: Encoded
    logits: Sequence[np.ndarray] | np.ndarray
    batch: int


def split_answers(candidate: Candidate, split: str, batch: int, context: RunContext) -> SplitAnswers:
    """Answer a split; answers of a stored candidate are kept, so that another probe or run reads them.

    INT8 models answer in batches of the target's size, and requests in sub-batches, as they will be served. Logits of
    words and vectors are many numbers that no second probe reads; they are computed anew.

    Args:
        candidate: The model with its task.
        split: Name of the split.
        batch: Texts answered together by other models.
        context: Has the target, and keeps answers.

    Raises:
        InputError: An answer is not finite.
    """
    return _answered(candidate, split, batch, context)[0]


def prepares_answers(kind: TaskKind, target: Target) -> bool:
    """Return whether :func:`keep_answers` has something to keep that any machine of this kind computes alike.

    Args:
        kind: Kind of the task.
        target: Where the model will be served; sub-batches of requests are measured.
    """
    return not kind.per_token and not kind.vectors and not target.candidates


def keep_answers(
    candidate: Candidate, splits: Sequence[str], batch: int, context: RunContext, count: int = 1
) -> Iterator[Result]:
    """Answer splits for probes that come later, as pieces of them.

    Args:
        candidate: The model with its task.
        splits: Names of the splits.
        batch: See :func:`split_answers`.
        context: See :func:`split_answers`.
        count: Number of pieces.
    """
    for _ in range(count):
        names = [_answered(candidate, split, batch, context)[1] for split in splits]
        yield {"kept": [name for name in names if name is not None]}


def _answered(candidate: Candidate, split: str, batch: int, context: RunContext) -> tuple[SplitAnswers, str | None]:
    """Return the answers to a split, and the name under which they are kept."""
    from limbeck.core.logits import require_finite_logits
    from limbeck.data.batching import encode, predict
    from limbeck.measure.requests import best_sub_batches, served_batches

    task, kind = candidate.task, candidate.task.task_kind
    encoded = encode(task, split, candidate.tokenizer)
    size, batches = context.target.batch if candidate.model.int8 else batch, None
    if candidate.model.int8 and context.target.candidates:
        size = best_sub_batches(candidate, context.target, context.memo).size
        batches = served_batches(encoded, size)

    def answered() -> Sequence[np.ndarray] | np.ndarray:
        logits = predict(candidate.model, encoded, size, batches)
        require_finite_logits(logits, task.split(split).texts)
        return logits

    if candidate.folder is None or kind.per_token or kind.vectors:
        return SplitAnswers(encoded, answered(), size), None
    served = f"{size}" if batches is None else f"{size}-of-{context.target.candidates}"
    name = f"logits-{VERSION}-{candidate.folder.name}-{task.fingerprint}-{split}-{served}"
    kept = cached_arrays(context.keep, name, lambda: {"logits": np.stack(list(answered()))})
    return SplitAnswers(encoded, kept["logits"], size), name
