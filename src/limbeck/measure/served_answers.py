"""Compare exported models by their answers as they will be served.

In dynamic INT8 the texts of a batch share a range, so answers are taken in batches of the target's size, or in the
sub-batches of its requests.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from limbeck.core.candidate import Candidate
from limbeck.core.cost import Memo, measure_now
from limbeck.core.measurement import Measurement
from limbeck.core.target import Target
from limbeck.measure.quality import Quality, assess

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable
    from limbeck.core.task import Task
    from limbeck.data.batching import Encoded

UNLABELED_TEXTS = 1000  # of training; enough to see whether answers change at all


class ServedAnswers:
    """The texts of a task that models of one tokenizer are compared on, encoded once."""

    def __init__(
        self, task: Task, tokenizer: PreTrainedTokenizerBase, target: Target | None = None, memo: Memo = measure_now
    ) -> None:
        """Note what is compared; nothing is encoded yet.

        Args:
            task: Gives the texts.
            tokenizer: The tokenizer of all models.
            target: Where they will be served; the default one unless given.
            memo: Keeps which sub-batches of a request are fastest.
        """
        self._task, self._tokenizer, self._target, self._memo = task, tokenizer, target or Target(), memo

    def quality(self, model: Runnable) -> Measurement:
        """Measure the quality of a model on the validation split."""
        texts = self._validation
        assessment = assess(self._task, self._answers(model, texts), texts.labels, texts.unseen)
        return Quality().fact(self._task, assessment, len(texts))

    def changed(self, first: Runnable, second: Runnable) -> tuple[int, int]:
        """Return how many answers to training texts differ between two models, and the number of texts."""
        texts = self._unlabeled
        answers = self._answers(first, texts), self._answers(second, texts)
        same = self._task.task_kind.same_answers(*answers, texts.labels)
        return int((~same).sum()), len(same)

    def _answers(self, model: Runnable, texts: Encoded) -> np.ndarray | Sequence[np.ndarray]:
        """Return the logits of texts; those of a float model are the same in any batch."""
        from limbeck.data.batching import predict
        from limbeck.measure.requests import ServedBatches, batches_on

        together = ServedBatches(1)
        if model.int8:
            candidate = Candidate(model, self._tokenizer, self._task)
            together = batches_on(candidate, texts, self._target, self._memo)
        return predict(model, texts, *together)

    @cached_property
    def _validation(self) -> Encoded:
        from limbeck.data.batching import encode

        return encode(self._task, "validation", self._tokenizer)

    @cached_property
    def _unlabeled(self) -> Encoded:
        from limbeck.data.batching import encode

        return encode(self._task.limit(train=UNLABELED_TEXTS), "train", self._tokenizer)
