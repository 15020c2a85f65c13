"""The loss on documents that are ranked for a query: one by one, or against the other documents of the request.

Listwise: the cross-entropy of a softmax over the documents of a request, against the shares of their gains (the first
place of ListNet, Cao et al., 2007). Pointwise: the squared difference from a score, as of a teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from limbeck.model.output_losses import GAIN, OUTPUT_LOSSES, QUERY, RANKED
from limbeck.train.objectives import Batch, Outputs, Taps


@dataclass(frozen=True)
class RankLoss:
    """A loss on scores [rows, 1] and labels [rows, 3].

    Attributes:
        kind: 'binary' (a document is relevant if its gain is positive), 'listwise' or 'pointwise'.
    """

    kind: str = "binary"
    taps: ClassVar[Taps] = {}

    @property
    def by_request(self) -> bool:
        """Whether it compares the documents of a request, which then have to be in one batch."""
        return self.kind == "listwise"

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the loss.

        Args:
            student: Scores of the student.
            teacher: Ignored.
            batch: Has query, gain and ideal gain of each row as ``labels``.
        """
        logits, labels = student.logits.float(), batch["labels"]
        if self.kind == "listwise":
            return listwise(logits.squeeze(-1), labels[:, QUERY], labels[:, GAIN])
        if self.kind == "pointwise":
            return F.mse_loss(logits.squeeze(-1), labels[:, GAIN])
        return OUTPUT_LOSSES[RANKED].on_labels(logits, labels)


def listwise(scores: Tensor, queries: Tensor, gains: Tensor) -> Tensor:
    """Compute the cross-entropy of each request's softmax against the shares of the gains, averaged over requests.

    Args:
        scores: [rows].
        queries: Index of each row's query [rows].
        gains: Of each row; those that are not positive count as 0 [rows].

    Returns:
        A scalar in nats; 0, with a gradient of 0, where no document of the batch is relevant.
    """
    positive = gains.clamp_min(0.0)
    same = queries[:, None] == queries[None]
    log_total = scores[None].expand_as(same).masked_fill(~same, float("-inf")).logsumexp(-1)
    weights = positive / (same * positive[None]).sum(-1).clamp_min(1e-12)
    requests = max(1, len(queries[positive > 0].unique()))
    return (weights * (log_total - scores)).sum() / requests
