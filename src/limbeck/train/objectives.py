"""What training minimises: terms that compare a student with labels or with a teacher, and their weighted sum.

A term sees the outputs of one forward pass that all terms share, so adding a term costs its own arithmetic only.
Losses ignore padding (most of the original implementations forgot to).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.data.batching import IGNORED
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig

if TYPE_CHECKING:
    from limbeck.data.task import Task

Batch = dict[str, Tensor]


class Outputs(NamedTuple):
    """Logits and tapped activations, by layer, of one forward pass (see ``Encoder.forward``)."""

    logits: Tensor
    taps: Mapping[str, Sequence[Tensor] | Mapping[int, Tensor]]


class Loss(NamedTuple):
    """A loss to back-propagate, and its parts for the log."""

    total: Tensor
    terms: Mapping[str, Tensor]


class Progress(NamedTuple):
    """How far training is, in optimiser steps."""

    step: int
    total: int


class CoTrainedModule(NamedTuple):
    """What an objective trains beside the model: the loop gives it AdamW, schedule and clipping by ``plan``.

    It takes a step after every ``every`` steps of the model.
    """

    module: nn.Module
    plan: TrainingConfig
    every: int = 1


class StepTaken(NamedTuple):
    """A step that the model just took; its clipped gradients are still there, and so is the learning rate."""

    optimizer: Any
    clipping: float
    """What the gradients were multiplied by, 1 if they were short enough."""
    progress: Progress


Objective = Callable[[Any, Batch, Progress], Iterable[Loss]]
"""Gives the losses of a batch. It may have ``modules``, trained with the model, and ``companions``: then, after every
step of the model, the loop asks ``follow(model, taken)`` for a loss of each whose turn it is, back-propagates it and
lets it take its step; companions are saved and resumed with the rest."""
TeacherCall = Callable[[Batch, Sequence[str]], Outputs]
Taps = Mapping[str, tuple[int, ...]]


class Term(Protocol):
    """One part of a loss; ``taps`` names the activations it needs of student and teacher."""

    @property
    def taps(self) -> Taps:
        """Names of the activations, each with those of the teacher's layers that it looks at."""
        ...

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""
        ...


# --- functions of tensors -------------------------------------------------------------------------------------------


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``-T^2 sum softmax(teacher / T) log softmax(student / T)`` (Hinton et al., 2015, arXiv:1503.02531).

    Shapes: student, teacher [examples, classes]; result [examples].   Units: nats.
    """
    target = F.softmax(teacher / temperature, -1)
    return -(target * F.log_softmax(student / temperature, -1)).sum(-1) * temperature**2


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Soft cross-entropy less the teacher's entropy: the same gradient, and 0 when both agree."""
    return soft_cross_entropy(student, teacher, temperature) - soft_cross_entropy(teacher, teacher, temperature)


def squared_error(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Squared difference of the logits, summed over classes (temperature plays no part)."""
    return (student - teacher).square().sum(-1)


LOGIT_LOSSES = {"kl": kl_divergence, "soft_cross_entropy": soft_cross_entropy, "mse": squared_error}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` (broadcast to them) is 1."""
    weight = mask.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


def relation(x: Tensor, heads: int, mask: Tensor) -> Tensor:
    """``log softmax(X X^T / sqrt(d))`` of vectors split into relation heads, masked (MiniLMv2, arXiv:2012.15828).

    Shapes: x [batch, heads', seq, head_dim]; mask [batch, seq]; result [batch, heads, seq, seq].
    The number of relation heads need not be the number of attention heads, so widths may differ.
    """
    joined = x.transpose(1, 2).flatten(2)
    split = joined.unflatten(-1, (heads, joined.shape[-1] // heads)).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) * split.shape[-1] ** -0.5
    return F.log_softmax(scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min), -1)


def layer_map(kind: str, student: int, teacher: int) -> tuple[int, ...]:
    """Teacher layer ``m(j)`` that each student layer j = 1..student imitates (layers count from 1).

    >>> layer_map("uniform", 3, 6), layer_map("last_of_block", 4, 6), layer_map("top", 2, 6), layer_map("bottom", 2, 6)
    ((2, 4, 6), (1, 3, 4, 6), (5, 6), (1, 2))
    """
    if kind == "top":
        return tuple(range(teacher - student + 1, teacher + 1))
    if kind == "bottom":
        return tuple(range(1, student + 1))
    rounded = round if kind == "uniform" else int
    return tuple(max(1, int(rounded(j * teacher / student))) for j in range(1, student + 1))


def layer_pairs(kind: str, student: int, teacher: int) -> tuple[tuple[int, int], ...]:
    """Student layers, from 1, and the teacher layer that each imitates; 'last' pairs the last two alone (FastFormers).

    >>> layer_pairs("uniform", 3, 6), layer_pairs("last", 3, 6)
    (((1, 2), (2, 4), (3, 6)), ((3, 6),))
    """
    if kind == "last":
        return ((student, teacher),)
    return tuple(enumerate(layer_map(kind, student, teacher), start=1))


# --- terms ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskLoss:
    """The loss of the task on its labels: ``model.loss`` of the student."""

    loss: Callable[[Tensor, Tensor], Tensor]
    taps: ClassVar[Taps] = {}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss on the labels; the teacher plays no part."""
        return self.loss(student.logits, batch["labels"])


MOST_WEIGHT = 100.0  #: of the positives of a label that hardly any row has; more would make single rows the whole loss
LEAST_WRONG = 1e-6  #: 1 - p in the focal factor is no less: its gradient is infinite at 0 where gamma is below 1


def balanced_weights(kind: str, labels: Sequence[Any], count: int) -> Tensor:
    """Compute a weight for every class, or for the positives of every label, so that rare ones count as much.

    Args:
        kind: 'classification', 'tokens' or 'multilabel'.
        labels: Labels as a split has them.
        count: Number of labels.

    Returns:
        [labels]: rows / (classes * rows of the class), as scikit-learn's ``balanced``; for several labels negatives per
        positive, at most ``MOST_WEIGHT``. 1 for a class without rows, and for a label that no row or every row has.
    """
    if kind == "multilabel":
        positives = torch.tensor(labels, dtype=torch.float32).sum(0)
        negatives = len(labels) - positives
        weights = (negatives / positives.clamp_min(1)).clamp_max(MOST_WEIGHT)
        return torch.where((positives > 0) & (negatives > 0), weights, torch.ones(count))
    flat = [tag for row in labels for tag in row] if kind == "tokens" else list(labels)
    counts = torch.bincount(torch.tensor(flat), minlength=count).to(torch.float32)
    present = (counts > 0).sum()
    return torch.where(counts > 0, len(flat) / (present * counts.clamp_min(1)), torch.ones(count))


@dataclass(frozen=True)
class WeightedTaskLoss:
    """Cross-entropy with a weight for every class, focused on what is still wrong (Lin et al., 2017, arXiv:1708.02002).

    ``-w_y (1 - p_y)^gamma log p_y``, averaged over the weights ``w_y`` for classes, as torch's ``cross_entropy`` does,
    and over all decisions for several labels, where ``w`` weighs positives. ``gamma`` 0 is plain cross-entropy.
    Differs from the paper: no second balance factor beside the class weights.
    """

    problem_type: str
    weights: Tensor | None = None
    gamma: float = 0.0
    taps: ClassVar[Taps] = {}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the loss on the labels; the teacher plays no part."""
        logits, labels = student.logits.float(), batch["labels"]
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.problem_type == "multi_label_classification":
            loss = F.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weights, reduction="none")
            right = torch.where(labels > 0, logits.sigmoid(), 1 - logits.sigmoid())
            return (loss * (1 - right).clamp_min(LEAST_WRONG) ** self.gamma).mean()
        logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        counted = labels != IGNORED
        logits, labels = logits[counted], labels[counted]
        log_right = F.log_softmax(logits, -1).gather(-1, labels[:, None])[:, 0]
        weight = torch.ones_like(log_right) if weights is None else weights[labels]
        loss = -weight * (1 - log_right.exp()).clamp_min(LEAST_WRONG) ** self.gamma * log_right
        return loss.sum() / weight.sum().clamp_min(1e-12)


def task_loss(model: Any, task: Task, class_weights: str | Sequence[float] = "none", gamma: float = 0.0) -> Term:
    """Choose the loss on the labels of a task.

    Args:
        model: The student; its own ``loss`` is taken where nothing is weighted.
        task: Says the kind, and has the training labels.
        class_weights: 'none', 'balanced', or a weight for every label in the order of ``task.label_names``.
        gamma: Focus of the focal loss; 0 for none.

    Raises:
        InputError: The task is a regression, or the weights are not one for each label.
    """
    if class_weights == "none" and not gamma:
        return TaskLoss(model.loss)
    if task.kind == "regression":
        raise InputError("class_weights and focal_gamma are for classes; this task is a regression")
    weights = None
    if class_weights == "balanced":
        weights = balanced_weights(task.kind, task.split("train").labels, task.num_labels)
    elif not isinstance(class_weights, str):
        if len(class_weights) != task.num_labels:
            raise InputError(
                f"class_weights: {len(class_weights)} weights, but the task has {task.num_labels} labels: "
                f"{', '.join(task.label_names[:12])}"
            )
        weights = torch.tensor(list(class_weights), dtype=torch.float32)
    return WeightedTaskLoss(task.problem_type, weights, gamma)


@dataclass(frozen=True)
class TargetScale:
    """The mean and the standard deviation of a regression's training labels; training sees ``(y - mean) / std``."""

    mean: float
    std: float

    @classmethod
    def of(cls, labels: Sequence[float]) -> TargetScale:
        """Measure the labels of a training split; a constant one keeps its unit."""
        values = torch.tensor([float(label) for label in labels], dtype=torch.float64)
        std = float(values.std(unbiased=False))
        return cls(float(values.mean()), std if std > 0 else 1.0)

    def standardize(self, values: Tensor) -> Tensor:
        """Turn numbers in the task's unit into standard deviations from the mean."""
        return (values - self.mean) / self.std

    def fold(self, output: nn.Linear, *, inverse: bool = False) -> None:
        """Rescale an output layer in place, from standardized numbers to the task's unit; ``inverse`` goes back."""
        with torch.no_grad():
            if inverse:
                output.weight.div_(self.std)
                output.bias.sub_(self.mean).div_(self.std)
            else:
                output.weight.mul_(self.std)
                output.bias.mul_(self.std).add_(self.mean)


@dataclass(frozen=True)
class LogitLoss:
    """Distance of student and teacher logits.

    Regression and multi-label outputs are no distributions over classes: their logits are compared by squared error
    and by binary cross-entropy with the teacher's probabilities. ``scale``: the student's numbers are standardized, the
    teacher's are in the task's unit.
    """

    kind: str = "kl"
    temperature: float = 2.0
    problem_type: str = "single_label_classification"
    scale: TargetScale | None = None
    taps: ClassVar[Taps] = {}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Distance of the logits, in the way that fits the kind of labels."""
        if self.problem_type == "regression":
            numbers = teacher.logits if self.scale is None else self.scale.standardize(teacher.logits)
            return F.mse_loss(student.logits, numbers)
        if self.problem_type == "multi_label_classification" and self.kind != "mse":
            return F.binary_cross_entropy_with_logits(student.logits, teacher.logits.sigmoid())
        loss = LOGIT_LOSSES[self.kind](student.logits, teacher.logits, self.temperature)
        if student.logits.dim() == 2:
            return loss.mean()
        return masked_mean(loss, batch["labels"] != IGNORED)


class HiddenLoss(nn.Module):
    """Distance of hidden states: embeddings, and every student layer with its teacher layer (TinyBERT, FitNets).

    When widths differ the student's states pass a learned projection (one per layer, or one for all with ``shared``,
    as TinyBERT has it). ``kind`` 'mse' or 'cosine'; the map 'dynamic' takes half as many teacher layers as the student
    has and matches each with the nearest student layer, in order (CoFi, arXiv:2204.00408, takes 4 for 12).
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
        """Layers of student and teacher that are matched; of 'dynamic' the teacher's alone hold."""
        if self.mapping == "dynamic":
            return layer_pairs("uniform", max(1, self.depths[0] // 2), self.depths[1])
        return layer_pairs(self.mapping, *self.depths)

    @property
    def taps(self) -> Taps:
        """Hidden states; 0 is that of the embeddings."""
        return {"hidden": (0, *(other for _, other in self.pairs))}

    def projected(self, student: Outputs, layer: int) -> Tensor:
        """Student states after ``layer``, in the teacher's width."""
        states = student.taps["hidden"][layer]
        if self.project is None:
            return states
        return self.project[min(layer, len(self.project) - 1)](states)

    def distance(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """Mean distance over the tokens that are not padding."""
        if self.kind == "cosine":
            return masked_mean(1.0 - F.cosine_similarity(student, teacher, dim=-1), mask)
        return masked_mean((student - teacher).square(), mask[..., None])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Mean distance over the embeddings and the layers that are matched."""
        mask, theirs = batch["attention_mask"], teacher.taps["hidden"]
        total = self.distance(self.projected(student, 0), theirs[0], mask)
        if self.mapping != "dynamic":
            for mine, other in self.pairs:
                total = total + self.distance(self.projected(student, mine), theirs[other], mask)
            return total / (len(self.pairs) + 1)
        first, chosen = 1, [other for _, other in self.pairs]
        for place, other in enumerate(chosen):
            last = self.depths[0] - (len(chosen) - place - 1)
            options = [
                self.distance(self.projected(student, mine), theirs[other], mask) for mine in range(first, last + 1)
            ]
            best = min(range(len(options)), key=lambda i: float(options[i].detach()))
            total, first = total + options[best], first + best + 1
        return total / (len(chosen) + 1)


@dataclass(frozen=True)
class AttentionLoss:
    """Distance of attention scores before the softmax, head by head (TinyBERT, arXiv:1909.10351, equation 7).

    Needs equally many heads. Padding keys and queries are left out. ``kind`` 'mse' or 'cosine' (over keys).
    """

    kind: str
    mapping: str
    depths: tuple[int, int]

    @property
    def taps(self) -> Taps:
        """Attention scores; the first layer's are number 0."""
        return {"attention": tuple(other - 1 for _, other in layer_pairs(self.mapping, *self.depths))}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Mean distance over the layers that are matched."""
        real = batch["attention_mask"].bool()
        pairs = (real[:, None, :, None] & real[:, None, None, :]).expand_as(student.taps["attention"][0])
        total = torch.zeros((), device=real.device)
        pairs_of_layers = layer_pairs(self.mapping, *self.depths)
        for mine, other in pairs_of_layers:
            a, b = student.taps["attention"][mine - 1], teacher.taps["attention"][other - 1]
            a, b = a.masked_fill(~pairs, 0.0), b.masked_fill(~pairs, 0.0)
            if self.kind == "cosine":
                total = total + masked_mean(1.0 - F.cosine_similarity(a, b, dim=-1), real[:, None, :])
            else:
                total = total + masked_mean((a - b).square(), pairs)
        return total / len(pairs_of_layers)


@dataclass(frozen=True)
class RelationLoss:
    """KL of query-query, key-key and value-value relations of one layer each (MiniLMv2, arXiv:2012.15828).

    Works for any widths and numbers of heads. By default the last layers are compared. ``order``: the teacher's heads
    as the student has them, where that is known and another order.
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
        """Mean divergence over queries, keys and values."""
        mask = batch["attention_mask"]
        total = torch.zeros((), device=mask.device)
        for name in self.taps:
            mine = relation(student.taps[name][self.student_layer], self.relation_heads, mask)
            goal = teacher.taps[name][self.teacher_layer]
            theirs = relation(goal[:, list(self.order)] if self.order else goal, self.relation_heads, mask)
            divergence = F.kl_div(mine, theirs, reduction="none", log_target=True).sum(-1)
            total = total + masked_mean(divergence, mask[:, None, :])
        return total / len(self.taps)


# --- objectives -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LiveTeacher:
    """Teacher outputs of a forward pass; the logits from ``logits``, where given: rows of the training split.

    No pass is made where that is all that is asked for. ``train/teacher_cache.py`` has a teacher that makes none at
    all.
    """

    model: Any
    logits: Callable[[Tensor], Tensor] | None = None

    def __call__(self, batch: Batch, taps: Sequence[str]) -> Outputs:
        """Logits and the activations asked for."""
        logits = None if self.logits is None else self.logits(batch["index"])
        if logits is not None and not taps:
            return Outputs(logits, {})
        self.model.to(batch["input_ids"].device)  # opened on the CPU, whatever trains the student
        with torch.no_grad():
            own, tapped = self.model.run(batch, taps=taps)
        return Outputs(own if logits is None else logits, tapped)


@dataclass(frozen=True)
class Weighted:
    """Weighted sum of terms over one student pass (and one teacher pass, if any term needs a teacher)."""

    terms: Mapping[str, tuple[float, Any]]
    teacher: TeacherCall | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modules(self) -> nn.ModuleDict:
        """Terms with parameters of their own; they are trained with the student."""
        return nn.ModuleDict({name: term for name, (_, term) in self.terms.items() if isinstance(term, nn.Module)})

    def __call__(self, model: Any, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """One loss a batch: the weighted sum of the terms."""
        taps = sorted({tap for _, term in self.terms.values() for tap in term.taps})
        student = Outputs(*model.run(batch, taps=taps, **self.options))
        teacher = self.teacher(batch, taps) if self.teacher is not None else student
        parts = {name: term(student, teacher, batch) for name, (_, term) in self.terms.items()}
        total = torch.stack([weight * parts[name] for name, (weight, _) in self.terms.items()]).sum()
        yield Loss(total, {name: part.detach() for name, part in parts.items()})
