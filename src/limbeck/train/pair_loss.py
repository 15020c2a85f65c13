"""The loss on pairs of texts whose vectors are compared: by their scores, or as pairs that belong together.

With ``matryoshka`` the same loss is taken of the leading components too (Kusupati et al., 2022, arXiv:2205.13147).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.model.vector_losses import cosent, cosine_error, halves, in_batch_negatives
from limbeck.train.equal_labels import pair_loss_problem
from limbeck.train.matryoshka import check_sizes
from limbeck.train.objectives import Batch, Outputs, Taps


@dataclass(frozen=True)
class PairLoss:
    """A loss on joined vectors of pairs [rows, 2 * width].

    Attributes:
        kind: 'cosent' (the order of the scores), 'cosine' (squared difference of cosine and score), or 'contrastive'
            (every pair belongs together, other texts of the batch do not).
        low: The least score, which stands for a cosine of 0.
        high: The greatest score, which stands for a cosine of 1.
        matryoshka: Numbers of leading components that are to be vectors of their own.
    """

    kind: str = "cosent"
    low: float = 0.0
    high: float = 1.0
    matryoshka: tuple[int, ...] = ()
    taps: ClassVar[Taps] = {}

    @classmethod
    def of(cls, kind: str, scores: Sequence[float], matryoshka: Sequence[int], width: int) -> PairLoss:
        """Make the loss for the scores of a training split.

        Args:
            kind: As for the class.
            scores: Scores of the training pairs.
            matryoshka: As for the class.
            width: Components of a vector.

        Raises:
            InputError: There are not so many components, or all scores are the same where they are compared.
        """
        check_sizes(matryoshka, width)
        if reason := pair_loss_problem(kind, scores):
            raise InputError(f"pair_loss: {reason}")
        return cls(kind, float(min(scores)), float(max(scores)), tuple(matryoshka))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the loss, averaged over the numbers of components.

        Args:
            student: Vectors of the student.
            teacher: Ignored.
            batch: Has the scores as ``labels``.
        """
        first, second = halves(student.logits)
        sizes = (*self.matryoshka, first.shape[-1])
        losses = [self._loss(torch.cat([first[:, :size], second[:, :size]], -1), batch) for size in sizes]
        return torch.stack(losses).mean()

    def _loss(self, rows: Tensor, batch: Batch) -> Tensor:
        scores = batch["labels"]
        if self.kind == "contrastive":
            return in_batch_negatives(rows, _alike(batch["input_ids"]))
        if self.kind == "cosine":
            return cosine_error(rows, (scores - self.low) / (self.high - self.low))
        return cosent(rows, scores)


def _alike(input_ids: Tensor) -> Tensor:
    """Return which first texts belong to the second text of another pair: a text is in both [first, second].

    Args:
        input_ids: First and second text of each pair, in turns [2 * rows, seq].
    """
    first, second = input_ids[0::2], input_ids[1::2]
    both = ((first, first), (second, second), (first, second))
    return torch.stack([(rows[:, None] == columns[None]).all(-1) for rows, columns in both]).any(0)
