"""What the outputs of a model mean: how logits become answers, and how others serve them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from limbeck.core.decision import Decision
from limbeck.core.logits import Activation


class Output(ABC):
    """What the outputs of a model mean.

    Attributes:
        name: Name of the kind, and of its file.
        problem_type: Name in transformers, which decides the loss; None where transformers has none.
        activation: Turns logits into scores.
        per_token: Whether every word has an answer.
        numeric: Whether an answer is a number and has no label names.
        several: Whether an answer is any number of labels, also none.
        vectors: Whether an answer is a vector; the texts of a pair are then encoded apart, each with a vector.
        grouped: Whether rows are documents of requests: those of one query are ranked, scored and timed together, and
            labels are of the form of ``core.requests.Judged``.
        config_mark: Entry of config.json that is true in models of this kind, where ``problem_type`` has no name for
            it.
        auto_class: The class of transformers that opens such a model.
        answer_code: Python code that turns the ``logits`` of a text into its answer; ``{labels}`` stands for the label
            names, ``{default}`` for the index of the label of words that were cut off. Where words have answers there
            are ``words`` and ``seen``, which maps the index of each word that was not cut off to the logits of its
            first token.
    """

    name: ClassVar[str]
    problem_type: ClassVar[str | None]
    activation: ClassVar[Activation] = "softmax"
    per_token: ClassVar[bool] = False
    numeric: ClassVar[bool] = False
    several: ClassVar[bool] = False
    vectors: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    config_mark: ClassVar[str | None] = None
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    answer_code: ClassVar[str]

    @abstractmethod
    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Convert logits to what a user reads: the ``answer``, and the ``scores`` behind it.

        Args:
            logits: Of one text [labels], or of its words [words, labels].
            labels: The label names.
            activation: The model's own, which may differ from the kind's.
        """

    def decide(
        self, logits: np.ndarray, labels: Sequence[str], activation: Activation, decision: Decision
    ) -> dict[str, Any]:
        """Convert logits to what a user reads, by fitted thresholds and with calibrated probabilities.

        Args:
            logits: Of one text [labels].
            labels: The label names.
            activation: The model's own.
            decision: Thresholds and temperature.
        """
        return self.answer(logits / decision.temperature, labels, activation)

    def decision_code(self, decision: Decision) -> str:
        """Return Python code that prints what :meth:`decide` answers; empty where the kind has no decisions.

        It finds the ``logits`` of a text, and ``metadata`` with the content of ``limbeck.json``.

        Args:
            decision: Thresholds and temperature.
        """
        return ""
