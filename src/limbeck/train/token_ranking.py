"""Teach the layers that leave tokens behind to rank them as the teacher's last layer does.

References: ToP (Li et al., 2023, arXiv:2306.14393): which tokens matter is said better by the attention that they
receive in the last layer of the unpruned model than by that in early layers, which have to choose. LambdaRank (Burges,
2010, MSR-TR-2010-82): a logistic loss of pairs, each weighted by what swapping the two would change in NDCG. Differs:
ToP's code ranks a fixed number of tokens, those that receive most in the teacher, in the first third of the layers, and
weighs pairs by the difference of their ranks; here every layer that leaves tokens behind ranks all that it reads, and
NDCG is cut off at the number that go on. Scores are logarithms of the attention received, and the loss is a mean over
pairs, so that it does not depend on the length of a text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.model.token_pruning import kept, received_attention
from limbeck.train.objectives import Batch, Outputs, Taps

LEAST = 1e-12
"""Of the attention that a token receives, before the logarithm."""


@dataclass(frozen=True)
class TokenRankingLoss:
    """Loss on the order in which a student's layers leave tokens behind.

    Attributes:
        shares: Student layers that leave tokens behind, from 0, each with the share of a text's tokens that go on.
        teacher_layer: Layer of the teacher whose order is imitated, from 0.
    """

    shares: tuple[tuple[int, float], ...]
    teacher_layer: int

    @property
    def taps(self) -> Taps:
        """Attention scores, and of the student the positions that layers read."""
        return {"attention": (self.teacher_layer,), "positions": ()}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Average the loss over the layers that leave tokens behind.

        Args:
            student: Outputs of the student.
            teacher: Outputs of the teacher, which reads all tokens.
            batch: The inputs and labels.
        """
        real = batch["attention_mask"].bool()
        with torch.no_grad():
            importance = _received(teacher.taps["attention"][self.teacher_layer], real)
        total = torch.zeros((), device=real.device)
        for layer, share in self.shares:
            positions = student.taps["positions"][layer]
            index = positions.clamp_max(real.shape[1] - 1)
            present = real.gather(1, index) & (index == positions)
            scores = _received(student.taps["attention"][layer], present).clamp_min(LEAST).log()
            others = present & (positions > 0)  # the first token goes on anyway
            total = total + lambda_rank(scores, importance.gather(1, index), others, kept(share, real.sum(1)) - 1)
        return total / len(self.shares)


def lambda_rank(scores: Tensor, importance: Tensor, present: Tensor, cutoff: Tensor) -> Tensor:
    """Compute LambdaRank's loss, as a mean over the pairs of a text weighted by their change of NDCG.

    Gains are linear in the rank by importance, from 1 for the first; those of NDCG's usual ``2^gain - 1`` would leave
    all but a few tokens of a text without weight.

    Args:
        scores: What the student ranks by, with gradient [texts, tokens].
        importance: What the teacher ranks by [texts, tokens].
        present: True where there is a token to rank [texts, tokens].
        cutoff: Ranks that count [texts].

    Returns:
        The mean over texts, a scalar in nats; ln 2 where all scores are equal.
    """
    count = present.sum(1, keepdim=True).clamp_min(1)
    gains = (1 - _ranks(importance, present) / count).masked_fill(~present, 0.0)
    ranks = _ranks(scores.detach(), present)
    discounts = (1 / (ranks + 2.0).log2()).masked_fill((ranks >= cutoff[:, None]) | ~present, 0.0)
    higher = gains[:, :, None] - gains[:, None, :]
    weights = higher.clamp_min(0.0) * (discounts[:, :, None] - discounts[:, None, :]).abs()
    weights = weights * (present[:, :, None] & present[:, None, :])
    losses = F.softplus(scores[:, None, :] - scores[:, :, None])
    return ((weights * losses).sum((1, 2)) / weights.sum((1, 2)).clamp_min(LEAST)).mean()


def _ranks(values: Tensor, present: Tensor) -> Tensor:
    """Return ranks from 0, the greatest first, of equal values the earlier; absent ones come last [texts, tokens]."""
    order = values.masked_fill(~present, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    return order.argsort(dim=1)


def _received(scores: Tensor, real: Tensor) -> Tensor:
    """Return the attention received [texts, tokens]; scores that were kept on disk have zeros for padding."""
    masked = scores.float().masked_fill(~real[:, None, None, :], torch.finfo(torch.float32).min)
    return received_attention(masked, real)
