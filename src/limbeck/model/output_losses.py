"""What follows for training from the ``problem_type`` of a model's outputs, in one table.

The losses on labels, against a teacher's logits and against pseudo labels, and how labels are sampled. Code that trains
looks the type up here and asks no further; ``core`` decides which kind of task has which type.

A saved model folder carries this file beside ``encoder.py``; it may import torch and the files beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .vector_losses import cosent

LEAST_WRONG = 1e-6
"""Lower bound of 1 - p in the focal factor, whose gradient is infinite at 0 for gamma below 1."""
QUERY, GAIN = 0, 1
"""Columns of the query and of the gain in the labels of documents."""
IGNORE = -100
"""Label of tokens that do not count."""


class OutputLosses(ABC):
    """The losses of outputs of one type: [batch, classes], or [batch, seq, classes] where tokens have labels."""

    @abstractmethod
    def on_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss on labels, a scalar."""

    @abstractmethod
    def weighted(self, logits: Tensor, labels: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
        """Return the loss on labels with a weight for every class, focused on wrong predictions, a scalar.

        Args:
            logits: The outputs.
            labels: The labels.
            weights: [classes]; None for ones.
            gamma: Focus; 0 for none.
        """

    @abstractmethod
    def imitation(
        self, logits: Tensor, teacher: Tensor, compare: Callable[[Tensor, Tensor], Tensor], *, as_numbers: bool = False
    ) -> Tensor:
        """Return the distances from a teacher's logits, one for each answer or number.

        Args:
            logits: The outputs.
            teacher: The teacher's.
            compare: Compares two distributions over classes, given as logits [..., classes], or the logits themselves.
            as_numbers: Whether ``compare`` compares the logits themselves.
        """

    def independent(self, values: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Return values of independent examples, given one for each row: the means of rows that belong together.

        Args:
            values: [rows].
            labels: Labels of the rows, batch by batch.
        """
        return values

    @abstractmethod
    def pseudo_labels(self, logits: Tensor, kind: str) -> Tensor:
        """Turn a teacher's logits into labels [..., classes].

        Args:
            logits: [..., classes].
            kind: 'soft' for its probabilities, 'sampled' for a sample from them, 'argmax' for the most probable class.
        """

    @abstractmethod
    def on_pseudo_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss on pseudo labels, for each answer or number; its derivative is linear in them.

        Args:
            logits: [..., classes].
            labels: [..., classes].
        """

    @abstractmethod
    def sampled(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        """Sample labels of the form of the data's from the predictions; logits lie on the CPU."""


class _OneClass(OutputLosses):
    def on_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        counted = (labels != IGNORE).sum().clamp_min(1)  # of words that the tokenizer drops there may be none
        return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / counted

    def weighted(self, logits: Tensor, labels: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
        logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        counted = labels != IGNORE
        logits, labels = logits[counted], labels[counted]
        log_right = F.log_softmax(logits, -1).gather(-1, labels[:, None])[:, 0]
        weight = torch.ones_like(log_right) if weights is None else weights[labels]
        loss = -weight * (1 - log_right.exp()).clamp_min(LEAST_WRONG) ** gamma * log_right
        return loss.sum() / weight.sum().clamp_min(1e-12)

    def imitation(
        self, logits: Tensor, teacher: Tensor, compare: Callable[[Tensor, Tensor], Tensor], *, as_numbers: bool = False
    ) -> Tensor:
        return compare(logits, teacher)

    def pseudo_labels(self, logits: Tensor, kind: str) -> Tensor:
        probabilities = logits.softmax(-1)
        if kind == "soft":
            return probabilities
        flat = probabilities.detach().flatten(0, -2)
        chosen = flat.argmax(-1) if kind == "argmax" else flat.multinomial(1).squeeze(-1)
        return F.one_hot(chosen, logits.shape[-1]).to(logits.dtype).view_as(logits)

    def on_pseudo_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -(labels * logits.log_softmax(-1)).sum(-1)

    def sampled(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        flat = torch.multinomial(logits.softmax(-1).flatten(0, -2), 1, generator=rng)
        return flat.view(logits.shape[:-1])


class _SeveralLabels(OutputLosses):
    def on_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def weighted(self, logits: Tensor, labels: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weights, reduction="none")
        right = torch.where(labels > 0, logits.sigmoid(), 1 - logits.sigmoid())
        return (loss * (1 - right).clamp_min(LEAST_WRONG) ** gamma).mean()

    def imitation(
        self, logits: Tensor, teacher: Tensor, compare: Callable[[Tensor, Tensor], Tensor], *, as_numbers: bool = False
    ) -> Tensor:
        if as_numbers:
            return compare(logits, teacher)
        return F.binary_cross_entropy_with_logits(logits, teacher.sigmoid(), reduction="none")

    def pseudo_labels(self, logits: Tensor, kind: str) -> Tensor:
        probabilities = logits.sigmoid()
        if kind == "soft":
            return probabilities
        fixed = probabilities.detach()
        return (fixed > 0.5).to(logits.dtype) if kind == "argmax" else fixed.bernoulli()

    def on_pseudo_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")

    def sampled(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        return torch.bernoulli(logits.sigmoid(), generator=rng)


class _Number(OutputLosses):
    """Pseudo labels are the predictions, whatever their kind."""

    def on_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype).view(-1))

    def weighted(self, logits: Tensor, labels: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
        raise AssertionError("weight_problems refuses weights of numbers")

    def imitation(
        self, logits: Tensor, teacher: Tensor, compare: Callable[[Tensor, Tensor], Tensor], *, as_numbers: bool = False
    ) -> Tensor:
        return F.mse_loss(logits, teacher, reduction="none")

    def pseudo_labels(self, logits: Tensor, kind: str) -> Tensor:
        return logits

    def on_pseudo_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits, labels, reduction="none")

    def sampled(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        return logits.squeeze(-1) + torch.randn(logits.shape[:-1], generator=rng)


class _Vector(_Number):
    """A vector of each text [rows, width]; both of a pair joined [rows, 2 * width]. A label is a score, or a vector."""

    def on_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.dim() == 1:
            return cosent(logits, labels)
        return F.mse_loss(logits, labels.to(logits.dtype))

    def imitation(
        self, logits: Tensor, teacher: Tensor, compare: Callable[[Tensor, Tensor], Tensor], *, as_numbers: bool = False
    ) -> Tensor:
        return (logits - teacher).square().sum(-1)

    def sampled(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        return logits + torch.randn(logits.shape, generator=rng)


VECTORS = "embedding"
"""Type of outputs that are vectors, for which transformers has no name."""


class _Ranked(_Number):
    """One score [batch, 1]. Labels are [batch, 3], with the gain of the document in the middle.

    Against labels, a document is relevant or not (binary cross-entropy). A teacher's scores, and pseudo labels, are
    numbers.
    """

    def on_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1), (labels[:, GAIN] > 0).to(logits.dtype))

    def independent(self, values: Tensor, labels: Sequence[Tensor]) -> Tensor:
        queries = torch.cat([batch[:, QUERY] for batch in labels])
        return torch.stack([values[queries == query].mean() for query in queries.unique()])

    def sampled(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        relevant = torch.bernoulli(logits.sigmoid(), generator=rng)
        return torch.cat([torch.zeros_like(relevant), relevant, torch.ones_like(relevant)], -1)


RANKED = "rerank"
"""Our name of the problem type of scores that documents are ranked by; transformers has none."""

OUTPUT_LOSSES: Mapping[str, OutputLosses] = {
    "single_label_classification": _OneClass(),
    "multi_label_classification": _SeveralLabels(),
    "regression": _Number(),
    VECTORS: _Vector(),
    RANKED: _Ranked(),
}
"""By ``problem_type`` of transformers, or our name of it."""


def losses_of(problem_type: str | None, outputs: int, *, reranker: bool = False) -> OutputLosses:
    """Return the losses of a model's outputs.

    Args:
        problem_type: Of its config.json; without one, one output is a number and several are classes.
        outputs: Number of outputs.
        reranker: Whether config.json says that the output ranks documents.
    """
    if reranker:
        return OUTPUT_LOSSES[RANKED]
    return OUTPUT_LOSSES[problem_type or ("regression" if outputs == 1 else "single_label_classification")]
