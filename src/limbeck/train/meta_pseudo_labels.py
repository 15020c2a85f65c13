"""Arithmetic of Meta Pseudo Labels (Pham et al., 2021, arXiv:2003.10580): a teacher taught by what its labels do.

The teacher ``T`` gives unlabelled texts u labels ``y = y(T(u))``. The student takes a step on them, ``S' = S - U(g)``,
with ``g = grad_S L_u(y, S(u))`` and ``U`` its optimiser (in the paper ``U(g) = eta g``). The teacher wants the loss of
the new student on labelled texts, ``L_l(S')``, to be small. Ways to tell it so:

* ``reinforce``, the paper's Algorithm 1, for hard labels: ``h grad_T CE(y, T(u))``, where ``h = L_l(S) - L_l(S')``, to
  first order ``eta <grad L_l(S'), g>``, says how much the step helped. For labels drawn from the teacher, its mean over
  draws is the gradient of the mean of ``L_l(S')`` (score function; ``L_l(S)`` is a baseline and takes no part in the
  mean). Cross-entropy is a mean over the n texts of a batch, so what comes is 1/n of that gradient. For soft labels it
  is nothing: with y held fixed, ``CE(y, T(u))`` is least where T is, so its gradient is exactly 0.
* ``exact``, ours: the chain rule instead of sampling. ``L_u`` knows the student by its logits s = S(u) alone, hence
  ``dL_l(S') = -<U'(g)^T grad L_l(S'), dg>`` gives ``grad_T L_l(S') = grad_T <dL_u/ds (y(T), s), s_dot>`` with
  ``s_dot = ds/dS . (-U'(g)^T grad L_l(S'))``. One forward-mode pass tells how the student's logits on u move when it
  goes where the labelled texts want it, and the teacher's labels follow: for cross-entropy the loss is
  ``-<y(T), s_dot> / n``. ``U'`` is the derivative of the loop's own step: clipping, and AdamW with its division. With
  hard labels it is the gradient of ``L_l`` after the expected step, around the step taken.
* ``off``: the teacher learns from labels alone.

Losses on labelled texts, ``s_dot`` and the teacher's labels are computed without dropout: what one step changes is far
less than what dropout does. So ``exact`` is exact for a student without dropout; with it, ``g`` and ``U'`` are those of
the step that was really taken, and ``s_dot`` is that of the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from limbeck.data.batching import IGNORED, Encoded, collate, length_batches
from limbeck.train.config import TrainingConfig
from limbeck.train.objectives import Batch, CoTrainedModule, Loss, Progress, StepTaken, masked_mean

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


# --- pseudo labels --------------------------------------------------------------------------------------------------


def pseudo_labels(logits: Tensor, kind: str, problem_type: str) -> Tensor:
    """Labels that a teacher gives: its answer ('soft'), a draw from it ('sampled'), or its best guess ('argmax').

    Shapes: logits and result [..., classes]. A regression has soft labels only: the numbers themselves.

    >>> pseudo_labels(torch.tensor([[2.0, 1.0]]), "argmax", SINGLE)
    tensor([[1., 0.]])
    """
    if problem_type == SINGLE:
        shares = logits.softmax(-1)
        if kind == "soft":
            return shares
        flat = shares.detach().flatten(0, -2)
        chosen = flat.argmax(-1) if kind == "argmax" else flat.multinomial(1).squeeze(-1)
        return F.one_hot(chosen, logits.shape[-1]).to(logits.dtype).view_as(logits)
    if problem_type == MULTI:
        shares = logits.sigmoid()
        if kind == "soft":
            return shares
        return (shares.detach() > 0.5).to(logits.dtype) if kind == "argmax" else shares.detach().bernoulli()
    return logits


def pseudo_loss(logits: Tensor, labels: Tensor, problem_type: str, mask: Tensor | None = None) -> Tensor:
    """Mean loss of ``logits`` [..., classes] to labels of the same shape; ``mask`` [batch, seq]: which tokens count.

    Cross-entropy, binary cross-entropy or squared error: all linear in the labels once differentiated, which is what
    makes the exact feedback a single pass.
    """
    if problem_type == SINGLE:
        rows = -(labels * logits.log_softmax(-1)).sum(-1)
        return rows.mean() if mask is None else masked_mean(rows, mask)
    if problem_type == MULTI:
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.mse_loss(logits, labels)


# --- the exact feedback ---------------------------------------------------------------------------------------------


def slopes(optimizer: Any) -> dict[Tensor, Tensor]:
    """``dU/dg`` of the step just taken, for every parameter: how far it moves per unit of (clipped) gradient.

    AdamW, from its state after the step: with ``m`` and ``v`` corrected for bias by ``c1``, ``c2`` and ``r = sqrt(v)``,
    ``U = lr m / (r + eps)`` and ``dU/dg = lr [(1 - b1) / c1 / (r + eps) - m (1 - b2) g / (c2 r (r + eps)^2)]``. The
    second term matters: where a gradient is the first of its kind, AdamW's step has a fixed length and the slope is 0.
    Without such state: plain gradient descent, ``dU/dg = lr``. Parameters without gradient have no entry.
    """
    found: dict[Tensor, Tensor] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            state = optimizer.state.get(p) or {}
            if "exp_avg_sq" not in state:
                found[p] = torch.full_like(p, group["lr"])
                continue
            (first, second), eps, step = group["betas"], group["eps"], float(state["step"])
            c1, c2 = 1 - first**step, 1 - second**step
            root = (state["exp_avg_sq"] / c2).sqrt()
            change = (1 - second) * p.grad / (c2 * root.clamp_min(torch.finfo(root.dtype).tiny))
            slope = (1 - first) / c1 / (root + eps) - state["exp_avg"] / c1 * change / (root + eps) ** 2
            found[p] = group["lr"] * slope
    return found


def towards_labels(optimizer: Any, clipping: float, gradient: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """``-U'(g)^T a`` for a gradient ``a`` of the labelled loss: where the student would go if u said what labels say.

    Clipping multiplies by ``s = limit / |g|`` and has the derivative ``s (1 - g g^T / |g|^2)``, which is symmetric.
    """
    slope = slopes(optimizer)
    clipped = {p: p.grad for p in slope if p.grad is not None}
    made = {p: -slope[p] * gradient.get(p, torch.zeros_like(p)) for p in clipped}
    if clipping < 1:
        along = torch.stack([(g * made[p]).sum() for p, g in clipped.items()]).sum()
        length = torch.stack([g.square().sum() for g in clipped.values()]).sum()
        made = {p: clipping * (made[p] - g * (along / length)) for p, g in clipped.items()}
    return made


class _Logits(nn.Module):
    """A model as a module whose call gives logits, so that its weights can be replaced for the time of a call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.run(batch)[0]


def moved_logits(
    model: Any, weights: Mapping[str, Tensor], moves: Mapping[str, Tensor], batch: Batch
) -> tuple[Tensor, Tensor]:
    """Logits of ``batch`` at ``weights``, and their derivative when the weights move: ``s`` and ``s_dot``.

    In 32 bits whatever the training's precision, and with the attention that can be differentiated forwards.
    """
    at = {f"model.{name}": value for name, value in weights.items()}
    to = {name: moves.get(name.removeprefix("model."), torch.zeros_like(value)) for name, value in at.items()}
    device = next(iter(at.values())).device.type
    with torch.autocast(device, enabled=False), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        logits, moved, *_ = jvp(lambda w: functional_call(_Logits(model), w, (batch,)), (at,), (to,))
        return logits, moved


def exact_feedback(
    logits: Tensor, change: Tensor, labels: Tensor, problem_type: str, mask: Tensor | None = None
) -> Tensor:
    """``<dL_u/ds (labels, s), s_dot>``, a loss of the teacher behind ``labels`` whose gradient is that of ``L_l(S')``.

    Shapes: logits (s), change (s_dot), labels [..., classes].
    """
    with torch.enable_grad():
        at = logits.detach().requires_grad_()
        (slope,) = torch.autograd.grad(pseudo_loss(at, labels, problem_type, mask), at, create_graph=True)
    return (slope * change).sum()


# --- the objective --------------------------------------------------------------------------------------------------


@contextmanager
def without_dropout(model: Any) -> Iterator[Any]:
    """The model in evaluation mode, for a while."""
    training = model.training
    try:
        yield model.eval()
    finally:
        model.train(training)


@dataclass
class Labelled:
    """Batches of labelled rows without end; which rows a step gets depends on (seed, step) alone."""

    encoded: Encoded
    batch_size: int
    seed: int
    _epoch: tuple[int, list[list[int]]] = field(default=(-1, []), init=False, repr=False)

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        epoch, place = divmod(step, math.ceil(len(self.encoded) / self.batch_size))
        if epoch != self._epoch[0]:
            # -1 - seed: another order than that of the unlabelled texts, which may be the same rows
            self._epoch = (epoch, length_batches(self.encoded.lengths, self.batch_size, -1 - self.seed, epoch))
        return collate(self.encoded, self._epoch[1][place])


class _Teacher(nn.Module):
    """The teacher, and the moving average of its feedback."""

    usual: Tensor

    def __init__(self, teacher: Any) -> None:
        super().__init__()
        self.teacher = teacher
        self.register_buffer("usual", torch.zeros(()))


class _Step(NamedTuple):
    """What ``follow`` needs of the step that the student has just taken."""

    batch: Batch
    labelled: Batch
    answers: Tensor
    labels: Tensor
    before: Tensor | None
    weights: Mapping[str, Tensor]


@dataclass
class MetaPseudoLabels:
    """Train a student on a teacher's labels and the teacher, beside it, on labels and on the student's progress.

    ``plan`` is the teacher's. In the first ``warmup_steps`` there is no feedback. ``average`` (only ``reinforce``):
    decay of the moving average that is taken off the feedback; 0, as in the paper's algorithm, takes nothing off.
    """

    teacher: Any
    plan: TrainingConfig
    labelled: Labelled
    problem_type: str = SINGLE
    feedback: str = "exact"
    labels: str = "soft"
    weight: float = 1.0
    warmup_steps: int = 0
    average: float = 0.0

    def __post_init__(self) -> None:
        self.tutor = _Teacher(self.teacher.train())
        self.companions = [CoTrainedModule(self.tutor, self.plan)]
        self._step: _Step | None = None

    def __call__(self, model: Any, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """The student's loss to the teacher's labels."""
        labelled = {name: value.to(batch["input_ids"].device) for name, value in self.labelled(progress.step).items()}
        feedback = self.feedback if progress.step >= self.warmup_steps else "off"
        with without_dropout(self.teacher) as teacher, torch.set_grad_enabled(feedback != "off"):
            answers = teacher.run(batch)[0]
        labels = pseudo_labels(answers.detach(), self.labels, self.problem_type)
        before = self.labelled_loss(model, labelled).detach() if feedback == "reinforce" else None
        weights = {n: p.detach().clone() for n, p in model.named_parameters()} if feedback == "exact" else {}
        self._step = _Step(batch, labelled, answers, labels, before, weights)
        loss = pseudo_loss(model.run(batch)[0], labels, self.problem_type, self.mask(batch))
        yield Loss(loss, {"pseudo": loss.detach()})

    def follow(self, model: Any, taken: StepTaken) -> Iterator[Loss]:
        """The teacher's loss: on labels, and what the student's step says of its pseudo labels."""
        step, self._step = self._step, None
        assert step is not None, "follow comes after a step"
        logits = self.teacher.run(step.labelled)[0]
        loss = self.teacher.loss(logits, step.labelled["labels"])
        terms = {"teacher": loss.detach()}
        if step.before is not None:
            gain, told = self.sampled(model, step)
        elif step.weights:
            gain, told = self.exact(model, step, taken)
        else:
            yield Loss(loss, terms)
            return
        yield Loss(loss + self.weight * told, terms | {"feedback": gain})

    def sampled(self, model: Any, step: _Step) -> tuple[Tensor, Tensor]:
        """``h`` and the loss ``h CE(y, T(u))`` of the paper's algorithm."""
        assert step.before is not None
        gain = step.before - self.labelled_loss(model, step.labelled).detach()
        above = gain - self.tutor.usual
        if self.average:
            self.tutor.usual.lerp_(gain.to(self.tutor.usual.dtype), 1 - self.average)
        return gain, above * pseudo_loss(step.answers, step.labels, self.problem_type, self.mask(step.batch))

    def exact(self, model: Any, step: _Step, taken: StepTaken) -> tuple[Tensor, Tensor]:
        """What the step gained on labels, to first order, and a loss whose gradient is that of ``L_l(S')``."""
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(self.labelled_loss(model, step.labelled), list(named.values()), allow_unused=True)
        gradient = {p: g for p, g in zip(named.values(), found, strict=True) if g is not None}
        moves = towards_labels(taken.optimizer, taken.clipping, gradient)
        told = {name: moves[p] for name, p in named.items() if p in moves}
        with without_dropout(model):
            logits, change = moved_logits(model, step.weights, told, step.batch)
        soft = pseudo_labels(step.answers, "soft", self.problem_type)
        loss = exact_feedback(logits, change, soft, self.problem_type, self.mask(step.batch))
        return -loss.detach(), loss

    def labelled_loss(self, model: Any, labelled: Batch) -> Tensor:
        """The student's loss on labelled texts, without dropout."""
        with without_dropout(model):
            return model.loss(model.run(labelled)[0], labelled["labels"])

    def mask(self, batch: Batch) -> Tensor | None:
        """Which tokens have an answer; None where whole texts do."""
        return batch["labels"] != IGNORED if batch["labels"].dim() == 2 and self.problem_type == SINGLE else None
