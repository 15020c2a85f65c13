"""Masked language modeling as a term of a loss, and an objective whose terms all see masked texts.

Reference: Devlin et al., 2019, arXiv:1810.04805 (BERT, section 3.1). ``data/corpus/masking.py`` chooses the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.metrics import IGNORED
from limbeck.data.corpus.masking import Masking
from limbeck.model.mlm_head import LanguageHead
from limbeck.train.objectives import Batch, Loss, Objective, Outputs, Progress, Taps, extra_modules

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification


class LanguageLoss(nn.Module):
    """Cross-entropy of the student's predictions for the masked tokens, the mean over them in nats.

    Args:
        head: Predicts tokens from hidden states; trained with the student. Slices use its leading slice.
        words: The student's own word embeddings.
    """

    taps: ClassVar[Taps] = {"hidden": ()}  # of the student; no teacher is needed

    def __init__(self, head: LanguageHead, words: nn.Embedding) -> None:
        super().__init__()
        self.head = head
        self.words = (words,)  # in a tuple, because they are parameters of the model and not of this module

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the loss; logits are computed only for masked tokens.

        Args:
            student: Outputs of the student.
            teacher: Ignored.
            batch: The inputs; ``hidden_tokens`` [batch, seq] are the original ids of the masked tokens.
        """
        targets = batch["hidden_tokens"]
        masked = targets != IGNORED
        logits = self.head(student.taps["hidden"][-1][masked], self.words[0].weight)
        return F.cross_entropy(logits, targets[masked], reduction="sum") / masked.sum().clamp_min(1)


@dataclass(frozen=True)
class OnMasked:
    """An objective on masked texts; student and teacher see the same."""

    objective: Objective
    masking: Masking

    @property
    def modules(self) -> nn.ModuleDict:
        """Modules that the objective trains with the model."""
        return extra_modules(self.objective)

    def __call__(self, model: LimbeckForSequenceClassification, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """Yield the losses of the objective on the masked batch.

        Args:
            model: The student.
            batch: The inputs, not masked.
            progress: Determines, with the seed of the masking, which tokens are masked.
        """
        yield from self.objective(model, self.masking(batch, progress.step), progress)
