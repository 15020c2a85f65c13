"""Masked language modelling as a term of a loss, and an objective that lets all its terms see texts with hidden tokens.

Reference: Devlin et al., 2019, arXiv:1810.04805 (BERT, section 3.1); what is hidden is decided in
``data/corpus/masking.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.data.batching import IGNORED
from limbeck.data.corpus.masking import Masking
from limbeck.model.mlm_head import LanguageHead
from limbeck.train.objectives import Batch, Loss, Objective, Outputs, Progress, Taps


class LanguageLoss(nn.Module):
    """Mean over the hidden tokens of the cross-entropy of what the student says of them, in nats.

    The head is trained with the student; of slices it is the leading slice. ``words`` are the student's own embeddings.
    """

    taps: ClassVar[Taps] = {"hidden": ()}  # of the student; the teacher plays no part

    def __init__(self, head: LanguageHead, words: nn.Embedding) -> None:
        super().__init__()
        self.head = head
        self.words = (words,)  # in a tuple: they are the model's, and no second parameter

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss; logits are made at the places of the hidden tokens alone."""
        goal = batch["hidden_tokens"]
        hidden = goal != IGNORED
        logits = self.head(student.taps["hidden"][-1][hidden], self.words[0].weight)
        return F.cross_entropy(logits, goal[hidden], reduction="sum") / hidden.sum().clamp_min(1)


@dataclass(frozen=True)
class OnMasked:
    """An objective on texts with hidden tokens: student and teacher see the same."""

    objective: Objective
    masking: Masking

    @property
    def modules(self) -> nn.ModuleDict:
        """What the objective trains with the model."""
        return getattr(self.objective, "modules", nn.ModuleDict())

    def __call__(self, model: Any, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """The losses of the objective."""
        yield from self.objective(model, self.masking(batch, progress.step), progress)
