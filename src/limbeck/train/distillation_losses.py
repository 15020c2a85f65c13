"""Terms that compare a student with its teacher: logits, hidden states, attention scores and relations.

They ignore padding, which most of the original implementations do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.logits import separate_texts
from limbeck.core.metrics import IGNORED
from limbeck.core.student_shape import layer_map
from limbeck.model.output_losses import OUTPUT_LOSSES
from limbeck.train.objectives import Batch, Outputs, Taps
from limbeck.train.task_loss import TargetScale


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute ``-T^2 sum softmax(teacher / T) log softmax(student / T)`` (Hinton et al., 2015, arXiv:1503.02531).

    Args:
        student: Logits [..., classes].
        teacher: Logits [..., classes].
        temperature: ``T``.

    Returns:
        [...], in nats.
    """
    target = F.softmax(teacher / temperature, -1)
    return -(target * F.log_softmax(student / temperature, -1)).sum(-1) * temperature**2


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute the soft cross-entropy minus the teacher's entropy: the same gradient, but 0 for equal distributions.

    Args:
        student: Logits [..., classes].
        teacher: Logits [..., classes].
        temperature: Divides both logits.

    Returns:
        [...], in nats.
    """
    return soft_cross_entropy(student, teacher, temperature) - soft_cross_entropy(teacher, teacher, temperature)


def squared_error(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute the squared difference of the logits, summed over classes.

    Args:
        student: Logits [..., classes].
        teacher: Logits [..., classes].
        temperature: Ignored.

    Returns:
        [...].
    """
    return (student - teacher).square().sum(-1)


LOGIT_LOSSES = {"kl": kl_divergence, "soft_cross_entropy": soft_cross_entropy, "mse": squared_error}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average ``values`` where ``mask``, broadcast to them, is 1."""
    weight = mask.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


def going_on(positions: Sequence[Tensor] | Mapping[int, Tensor], layer: int, real: Tensor) -> Tensor:
    """Return which tokens go on after a layer; all that are not padding, where no layer leaves any behind.

    Args:
        positions: Positions that each layer reads, by layer [batch, remaining].
        layer: The layer; 0 is the embeddings.
        real: 1 for tokens that are not padding [batch, seq].

    Returns:
        1 for those tokens [batch, seq].
    """
    read = positions[min(layer, len(positions) - 1)]  # by the next layer; the last one leaves none behind
    present = F.pad(torch.zeros_like(real), (0, 1)).scatter(1, read, 1)  # a column for what holds no token
    return present[:, :-1] * real


def relation(x: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Compute ``log softmax(X X^T / sqrt(d))`` of vectors split into relation heads (MiniLMv2, arXiv:2012.15828).

    Args:
        x: Queries, keys or values [batch, attention heads, seq, head_dim].
        heads: Number of relation heads, which need not be the number of attention heads, so widths may differ.
        mask: 1 for tokens that are not padding [batch, seq].

    Returns:
        Log-probabilities [batch, heads, seq, seq].
    """
    joined = x.transpose(1, 2).flatten(2)
    split = joined.unflatten(-1, (heads, joined.shape[-1] // heads)).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) * split.shape[-1] ** -0.5
    return F.log_softmax(scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min), -1)


def layer_pairs(kind: str, student: int, teacher: int) -> tuple[tuple[int, int], ...]:
    """Pair student layers with the teacher layers that they imitate; layers count from 1.

    Args:
        kind: As for :func:`~limbeck.core.student_shape.layer_map`; or 'last', which pairs only the last layers, as
            FastFormers does.
        student: Number of student layers.
        teacher: Number of teacher layers.

    Returns:
        Pairs of a student and a teacher layer.

    >>> layer_pairs("uniform", 3, 6), layer_pairs("last", 3, 6)
    (((1, 2), (2, 4), (3, 6)), ((3, 6),))
    """
    if kind == "last":
        return ((student, teacher),)
    return tuple(enumerate(layer_map(kind, student, teacher), start=1))


@dataclass(frozen=True)
class LogitLoss:
    """Distance between student and teacher logits.

    Outputs of regressions, vectors and multi-label tasks are not distributions over classes. They are compared by
    squared error, vectors by its sum over components, and by binary cross-entropy with the teacher's probabilities.

    Attributes:
        kind: A key of ``LOGIT_LOSSES``.
        temperature: Divides the logits of both.
        problem_type: Problem type of transformers.
        scale: Set if the student predicts standardized values and the teacher values in the task's unit.
    """

    kind: str = "kl"
    temperature: float = 2.0
    problem_type: str = "single_label_classification"
    scale: TargetScale | None = None
    taps: ClassVar[Taps] = {}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the distance of the logits that fits the kind of labels.

        Args:
            student: Outputs of the student.
            teacher: Outputs of the teacher.
            batch: The inputs and labels.
        """
        ours, targets = (separate_texts(side.logits, batch) for side in (student, teacher))
        targets = targets if self.scale is None else self.scale.standardize(targets)
        by_word = targets.dim() == 3
        unseen = targets.isnan().any(-1) & by_word  # words that the teacher cut off
        targets = targets.masked_fill(unseen[..., None], 0.0)
        compare = partial(LOGIT_LOSSES[self.kind], temperature=self.temperature)
        losses = OUTPUT_LOSSES[self.problem_type]
        distances = losses.imitation(ours, targets, compare, as_numbers=self.kind == "mse")
        return masked_mean(distances, (batch["labels"] != IGNORED) & ~unseen) if by_word else distances.mean()


class HiddenLoss(nn.Module):
    """Distance of hidden states: embeddings, and every student layer with its teacher layer (TinyBERT, FitNets).

    If the widths differ, the student's states pass through a learned projection. Of each layer the tokens count that go
    on after it: others have older states, of which nothing is learned.

    Args:
        kind: 'mse' or 'cosine'.
        mapping: As for :func:`layer_pairs`; or 'dynamic', which uses half as many teacher layers as the student has and
            matches each with the nearest student layer, in order (CoFi, arXiv:2204.00408, uses 4 for 12).
        depths: Layers of student and teacher.
        widths: Hidden widths of student and teacher.
        shared: One projection for all layers, as in TinyBERT, instead of one per layer.
    """

    def __init__(
        self, kind: str, mapping: str, depths: tuple[int, int], widths: tuple[int, int], shared: bool = False
    ) -> None:
        super().__init__()
        self.kind, self.mapping, self.depths = kind, mapping, depths
        self.project: nn.ModuleList | None = None
        if widths[0] != widths[1]:
            count = 1 if shared else depths[0] + 1
            self.project = nn.ModuleList(nn.Linear(*widths, bias=False) for _ in range(count))

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Matched layers of student and teacher; for 'dynamic' only the teacher's are meaningful."""
        if self.mapping == "dynamic":
            return layer_pairs("uniform", max(1, self.depths[0] // 2), self.depths[1])
        return layer_pairs(self.mapping, *self.depths)

    @property
    def taps(self) -> Taps:
        """Hidden states, and of the student the positions that layers read; layer 0 is the embeddings."""
        return {"hidden": (0, *(teacher_layer for _, teacher_layer in self.pairs)), "positions": ()}

    def projected(self, student: Outputs, layer: int) -> Tensor:
        """Return the student's states after a layer [batch, seq, hidden], in the teacher's width."""
        states = student.taps["hidden"][layer]
        if self.project is not None:
            states = self.project[min(layer, len(self.project) - 1)](states)
        return states

    def distance(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """Average the distance over tokens.

        Args:
            student: Hidden states [batch, seq, hidden].
            teacher: Hidden states [batch, seq, hidden].
            mask: 1 for the tokens that count [batch, seq].
        """
        if self.kind == "cosine":
            return masked_mean(1.0 - F.cosine_similarity(student, teacher, dim=-1), mask)
        return masked_mean((student - teacher).square(), mask[..., None])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Average the distance over the embeddings and the matched layers.

        Args:
            student: Outputs of the student.
            teacher: Outputs of the teacher.
            batch: The inputs and labels.
        """
        real, targets = batch["attention_mask"], teacher.taps["hidden"]

        def distance(layer: int, teacher_layer: int) -> Tensor:
            mask = going_on(student.taps["positions"], layer, real)
            return self.distance(self.projected(student, layer), targets[teacher_layer], mask)

        total = distance(0, 0)
        if self.mapping != "dynamic":
            for layer, teacher_layer in self.pairs:
                total = total + distance(layer, teacher_layer)
            return total / (len(self.pairs) + 1)
        first, left = 1, len(self.pairs)
        for _, teacher_layer in self.pairs:
            left -= 1
            distances = [
                distance(layer, teacher_layer)
                for layer in range(first, self.depths[0] - left + 1)  # leave a layer for each of those to come
            ]
            nearest = min(range(len(distances)), key=lambda i: float(distances[i].detach()))
            total, first = total + distances[nearest], first + nearest + 1
        return total / (len(self.pairs) + 1)


@dataclass(frozen=True)
class AttentionLoss:
    """Distance of attention scores before the softmax, head by head (TinyBERT, arXiv:1909.10351, equation 7).

    Student and teacher need the same number of heads. Padding keys and queries are left out.

    Attributes:
        kind: 'mse', or 'cosine' over keys.
        mapping: As for :func:`layer_pairs`.
        depths: Layers of student and teacher.
    """

    kind: str
    mapping: str
    depths: tuple[int, int]

    @property
    def taps(self) -> Taps:
        """Attention scores; layer 0 is the first."""
        return {"attention": tuple(teacher_layer - 1 for _, teacher_layer in layer_pairs(self.mapping, *self.depths))}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Average the distance over the matched layers.

        Args:
            student: Outputs of the student.
            teacher: Outputs of the teacher.
            batch: The inputs and labels.
        """
        real = batch["attention_mask"].bool()
        both_real = (real[:, None, :, None] & real[:, None, None, :]).expand_as(student.taps["attention"][0])
        total = torch.zeros((), device=real.device)
        pairs = layer_pairs(self.mapping, *self.depths)
        for layer, teacher_layer in pairs:
            a, b = student.taps["attention"][layer - 1], teacher.taps["attention"][teacher_layer - 1]
            a, b = a.masked_fill(~both_real, 0.0), b.masked_fill(~both_real, 0.0)
            if self.kind == "cosine":
                total = total + masked_mean(1.0 - F.cosine_similarity(a, b, dim=-1), real[:, None, :])
            else:
                total = total + masked_mean((a - b).square(), both_real)
        return total / len(pairs)


@dataclass(frozen=True)
class RelationLoss:
    """KL divergence of query-query, key-key and value-value relations of one layer (MiniLMv2, arXiv:2012.15828).

    Works for any widths and numbers of heads.

    Attributes:
        relation_heads: Number of relation heads.
        student_layer: Layer of the student, from 0; the last by default.
        teacher_layer: Layer of the teacher, from 0; the last by default.
        order: The teacher's heads in the order in which the student has them, if that is known and differs.
    """

    relation_heads: int
    student_layer: int = -1
    teacher_layer: int = -1
    order: tuple[int, ...] = ()

    @property
    def taps(self) -> Taps:
        """Queries, keys and values of one layer."""
        return dict.fromkeys(("query", "key", "value"), (self.teacher_layer,))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Average the divergence over queries, keys and values.

        Args:
            student: Outputs of the student.
            teacher: Outputs of the teacher.
            batch: The inputs and labels.
        """
        mask = batch["attention_mask"]
        total = torch.zeros((), device=mask.device)
        for name in self.taps:
            predicted = relation(student.taps[name][self.student_layer], self.relation_heads, mask)
            vectors = teacher.taps[name][self.teacher_layer]
            target = relation(vectors[:, list(self.order)] if self.order else vectors, self.relation_heads, mask)
            divergence = F.kl_div(predicted, target, reduction="none", log_target=True).sum(-1)
            total = total + masked_mean(divergence, mask[:, None, :])
        return total / len(self.taps)
