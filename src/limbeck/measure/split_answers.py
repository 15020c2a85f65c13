"""Answers of a candidate to a split, computed once for all probes that read them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from limbeck.core.candidate import Candidate
from limbeck.core.pieces import Result
from limbeck.core.step import RunContext
from limbeck.storage.memmap import cached_arrays

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.core.model import Runnable
    from limbeck.core.target import Target
    from limbeck.core.task_kind import TaskKind
    from limbeck.data.batching import Encoded, Predictor
    from limbeck.measure.backends import Runner

VERSION = 1
"""Of the answers; raised when the same model answers differently."""


class SplitAnswers(NamedTuple):
    """The tokenized texts of a split, their logits in the same order, and how many were answered together."""

    encoded: Encoded
    logits: Sequence[np.ndarray] | np.ndarray
    batch: int


def split_answers(candidate: Candidate, split: str, batch: int, context: RunContext) -> SplitAnswers:
    """Answer a split; answers of a stored candidate are kept, so that another probe or run reads them.

    A model answers on the target's device, a torch model in the target's precision too. INT8 models answer in batches
    of the target's size, and requests in sub-batches, as they will be served. Logits of words and vectors are many
    numbers that no second probe reads; they are computed anew.

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
    from limbeck.measure.requests import ServedBatches, batches_on

    task, kind, target = candidate.task, candidate.task.task_kind, context.target
    encoded = encode(task, split, candidate.tokenizer)
    together = ServedBatches(batch)
    if candidate.model.int8:
        together = batches_on(candidate, encoded, target, context.memo)
    size, batches = together

    def answered() -> Sequence[np.ndarray] | np.ndarray:
        logits = predict(served(candidate.model, target), encoded, size, batches)
        require_finite_logits(logits, task.split(split).texts)
        return logits

    if candidate.folder is None or kind.per_token or kind.vectors:
        return SplitAnswers(encoded, answered(), size), None
    served_as = f"{size}" if batches is None else f"{size}-of-{target.candidates}"
    precision = target.precision if candidate.model.runtime == "torch" else "float32"
    unusual = [value for value in (target.device, precision) if value not in ("cpu", "float32")]
    served_as = "-".join([served_as, *unusual])
    name = f"logits-{VERSION}-{candidate.folder.name}-{task.fingerprint}-{split}-{served_as}"
    cached = cached_arrays(context.keep, name, lambda: {"logits": np.stack(list(answered()))})
    return SplitAnswers(encoded, cached["logits"], size), name


@dataclass(frozen=True)
class _Served:
    """A runner with the interface that ``data.batching.predict`` calls."""

    runner: Runner
    int8: bool

    def predict(self, batch: Mapping[str, Tensor]) -> np.ndarray:
        """Logits of a batch."""
        from limbeck.core.logits import joined_rows

        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        logits: np.ndarray = joined_rows(self.runner(self.runner.prepare(arrays)), arrays)
        return logits


def served(model: Runnable, target: Target) -> Predictor:
    """Return what answers as the model does on the target: itself on a processor, in float32."""
    from limbeck.measure.backends import make_runner, runner_options

    torch_model = model.runtime == "torch"
    if target.device == "cpu" and (not torch_model or target.precision == "float32"):
        return model
    options = runner_options(target) | {"compile": False}  # which changes no answer, and takes long for each length
    copied = copy.deepcopy(model) if torch_model else model  # the runner converts it in place
    return _Served(make_runner(copied, threads=target.threads, **options, plain=False), model.int8)
