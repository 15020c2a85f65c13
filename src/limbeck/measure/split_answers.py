"""Answers of a candidate to a split, computed once for all probes that read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.storage.memmap import cached_arrays

if TYPE_CHECKING:
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
        return SplitAnswers(encoded, answered(), size)
    served = f"{size}" if batches is None else f"{size}-of-{context.target.candidates}"
    name = f"logits-{VERSION}-{candidate.folder.name}-{task.fingerprint}-{split}-{served}"
    kept = cached_arrays(context.keep, name, lambda: {"logits": np.stack(list(answered()))})
    return SplitAnswers(encoded, kept["logits"], size)
