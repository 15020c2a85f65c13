"""Compare exported models by their answers to one text at a time, as they will be used.

In dynamic INT8 the texts of a batch share a range, so answers in a batch would be others.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from limbeck.core.measurement import Measurement
from limbeck.measure.quality import Quality, assess

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable
    from limbeck.core.task import Task
    from limbeck.data.batching import Encoded

UNLABELED_TEXTS = 1000  # of training; enough to see whether answers change at all


class ServedAnswers:
    """The texts of a task that models of one tokenizer are compared on, encoded once."""

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
        self._task, self._tokenizer = task, tokenizer

    def quality(self, model: Runnable) -> Measurement:
        """Measure the quality of a model on the validation split."""
        from limbeck.data.batching import predict

        texts = self._validation
        assessment = assess(self._task, predict(model, texts, 1), texts.labels, texts.unseen)
        return Quality().fact(self._task, assessment, len(texts))

    def changed(self, first: Runnable, second: Runnable) -> tuple[int, int]:
        """Return how many answers to training texts differ between two models, and the number of texts."""
        from limbeck.data.batching import predict

        texts = self._unlabeled
        same = self._task.task_kind.same_answers(predict(first, texts, 1), predict(second, texts, 1), texts.labels)
        return int((~same).sum()), len(same)

    @cached_property
    def _validation(self) -> Encoded:
        from limbeck.data.batching import encode

        return encode(self._task, "validation", self._tokenizer)

    @cached_property
    def _unlabeled(self) -> Encoded:
        from limbeck.data.batching import encode

        return encode(self._task.limit(train=UNLABELED_TEXTS), "train", self._tokenizer)
