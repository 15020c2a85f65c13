"""Arithmetic of Meta Pseudo Labels (Pham et al., 2021, arXiv:2003.10580): a teacher learns from its labels' effect.

The teacher ``T`` labels unlabeled texts u: ``y = y(T(u))``. The student takes a step on them, ``S' = S - U(g)``, with
``g = grad_S L_u(y, S(u))`` and ``U`` its optimizer (in the paper ``U(g) = eta g``). The teacher minimizes the loss of
the updated student on labeled texts, ``L_l(S')``. There are three kinds of feedback:

* ``reinforce``, the paper's Algorithm 1, for hard labels: ``h grad_T CE(y, T(u))``, where ``h = L_l(S) - L_l(S')``, to
  first order ``eta <grad L_l(S'), g>``, measures how much the step helped. For labels sampled from the teacher, its
  expectation is the gradient of the expected ``L_l(S')`` (score function; ``L_l(S)`` is a baseline and does not affect
  the expectation). Cross-entropy is a mean over the n texts of a batch, so the result is 1/n of that gradient. For soft
  labels it vanishes: with y held fixed, ``CE(y, T(u))`` is minimal at T, so its gradient is exactly 0.
* ``exact``, ours: the chain rule instead of sampling. ``L_u`` depends on the student only through its logits s = S(u),
  hence ``dL_l(S') = -<U'(g)^T grad L_l(S'), dg>`` gives ``grad_T L_l(S') = grad_T <dL_u/ds (y(T), s), s_dot>`` with
  ``s_dot = ds/dS . (-U'(g)^T grad L_l(S'))``. One forward-mode pass computes how the student's logits on u change when
  it moves where the labeled texts want it, and the teacher's labels follow: for cross-entropy the loss is
  ``-<y(T), s_dot> / n``. ``U'`` is the derivative of the loop's own step: clipping, and AdamW with its division. With
  hard labels it is the gradient of ``L_l`` after the expected step, around the step taken.
* ``off``: the teacher learns only from labels.

Losses on labeled texts, ``s_dot`` and the teacher's labels are computed without dropout: a single step changes far less
than dropout does. So ``exact`` is exact for a student without dropout; with dropout, ``g`` and ``U'`` are those of the
step that was really taken, and ``s_dot`` is that of the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from limbeck.core.metrics import IGNORED
from limbeck.data.batching import Encoded, collate, length_batches
from limbeck.model.output_losses import OUTPUT_LOSSES
from limbeck.train.config import TrainingConfig
from limbeck.train.distillation_losses import masked_mean
from limbeck.train.objectives import Batch, CoTrainedModule, Loss, Progress, StepTaken

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification


# --- pseudo labels --------------------------------------------------------------------------------------------------


def pseudo_labels(logits: Tensor, kind: str, problem_type: str) -> Tensor:
    """Turn a teacher's logits into labels.

    Args:
        logits: [..., classes].
        kind: 'soft' for its probabilities, 'sampled' for a sample from them, 'argmax' for the most probable class.
        problem_type: Problem type of transformers; a regression has only soft labels, its predictions.

    Returns:
        [..., classes].

    >>> pseudo_labels(torch.tensor([[2.0, 1.0]]), "argmax", "single_label_classification")
    tensor([[1., 0.]])
    """
    return OUTPUT_LOSSES[problem_type].pseudo_labels(logits, kind)


def pseudo_loss(logits: Tensor, labels: Tensor, problem_type: str, mask: Tensor | None = None) -> Tensor:
    """Compute the mean loss of logits against pseudo labels.

    Cross-entropy, binary cross-entropy or squared error. Their derivatives are all linear in the labels, so the exact
    feedback takes a single pass.

    Args:
        logits: [..., classes].
        labels: [..., classes].
        problem_type: Problem type of transformers.
        mask: Which tokens count [batch, seq]; None for all.
    """
    losses = OUTPUT_LOSSES[problem_type].on_pseudo_labels(logits, labels)
    return losses.mean() if mask is None else masked_mean(losses, mask)


# --- the exact feedback ---------------------------------------------------------------------------------------------


def step_derivatives(optimizer: torch.optim.Optimizer) -> dict[Tensor, Tensor]:
    """Compute ``dU/dg`` of the step just taken: how far each parameter moves per unit of (clipped) gradient.

    AdamW, from its state after the step: with ``m`` and ``v`` corrected for bias by ``c1``, ``c2`` and ``r = sqrt(v)``,
    ``U = lr m / (r + eps)`` and ``dU/dg = lr [(1 - b1) / c1 / (r + eps) - m (1 - b2) g / (c2 r (r + eps)^2)]``. The
    second term matters: for the first nonzero gradient, AdamW's step has a fixed length and the derivative is 0.
    Without such state: plain gradient descent, ``dU/dg = lr``. Parameters without gradient have no entry.
    """
    derivatives: dict[Tensor, Tensor] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            state = optimizer.state.get(p) or {}
            if "exp_avg_sq" not in state:
                derivatives[p] = torch.full_like(p, group["lr"])
                continue
            (first, second), eps, step = group["betas"], group["eps"], float(state["step"])
            c1, c2 = 1 - first**step, 1 - second**step
            root = (state["exp_avg_sq"] / c2).sqrt()
            change = (1 - second) * p.grad / (c2 * root.clamp_min(torch.finfo(root.dtype).tiny))
            slope = (1 - first) / c1 / (root + eps) - state["exp_avg"] / c1 * change / (root + eps) ** 2
            derivatives[p] = group["lr"] * slope
    return derivatives


def towards_labels(
    optimizer: torch.optim.Optimizer, clipping: float, gradient: Mapping[Tensor, Tensor]
) -> dict[Tensor, Tensor]:
    """Compute ``-U'(g)^T a``: where the student would move if u had the gradient of the labeled texts.

    Clipping multiplies by ``s = limit / |g|`` and has the derivative ``s (1 - g g^T / |g|^2)``, which is symmetric.

    Args:
        optimizer: The student's, after its step; parameters have their clipped gradients.
        clipping: Factor by which gradients were clipped.
        gradient: ``a``, the gradient of the labeled loss by parameter.

    Returns:
        The direction by parameter.
    """
    derivatives = step_derivatives(optimizer)
    clipped = {p: p.grad for p in derivatives if p.grad is not None}
    moves = {p: -derivatives[p] * gradient.get(p, torch.zeros_like(p)) for p in clipped}
    if clipping < 1:
        along = torch.stack([(g * moves[p]).sum() for p, g in clipped.items()]).sum()
        length = torch.stack([g.square().sum() for g in clipped.values()]).sum()
        moves = {p: clipping * (moves[p] - g * (along / length)) for p, g in clipped.items()}
    return moves


class _Logits(nn.Module):
    """A model whose call returns logits, so that ``functional_call`` can replace its weights."""

    def __init__(self, model: LimbeckForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model.run(batch)[0]
        return logits


def moved_logits(
    model: LimbeckForSequenceClassification,
    weights: Mapping[str, Tensor],
    moves: Mapping[str, Tensor],
    batch: Batch,
) -> tuple[Tensor, Tensor]:
    """Compute logits and their derivative along a direction, in 32 bits whatever the training's precision.

    Args:
        model: The student; its own weights are not used.
        weights: Its weights by name.
        moves: Direction in which the weights move, by name; a missing one does not move.
        batch: The inputs.

    Returns:
        ``s`` and ``s_dot`` [..., classes].
    """
    primals = {f"model.{name}": weight for name, weight in weights.items()}
    tangents = {f"model.{name}": moves.get(name, torch.zeros_like(weight)) for name, weight in weights.items()}
    device = next(iter(primals.values())).device.type
    # only the plain attention kernel supports forward-mode differentiation
    with torch.autocast(device, enabled=False), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        logits, change, *_ = jvp(lambda w: functional_call(_Logits(model), w, (batch,)), (primals,), (tangents,))
        return logits, change


def exact_feedback(
    logits: Tensor, change: Tensor, labels: Tensor, problem_type: str, mask: Tensor | None = None
) -> Tensor:
    """Compute ``<dL_u/ds (labels, s), s_dot>``, a loss of the teacher whose gradient is that of ``L_l(S')``.

    Args:
        logits: ``s`` [..., classes].
        change: ``s_dot`` [..., classes].
        labels: Soft labels [..., classes], through which the teacher gets its gradient.
        problem_type: Problem type of transformers.
        mask: Which tokens count [batch, seq]; None for all.
    """
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        (derivative,) = torch.autograd.grad(pseudo_loss(logits, labels, problem_type, mask), logits, create_graph=True)
    return (derivative * change).sum()


# --- the objective --------------------------------------------------------------------------------------------------


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for the body."""
    training = model.training
    try:
        model.eval()
        yield
    finally:
        model.train(training)


@dataclass
class LabeledBatches:
    """An endless sequence of labeled batches; the rows of a step depend only on seed and step."""

    encoded: Encoded
    batch_size: int
    seed: int
    _epoch: tuple[int, list[list[int]]] = field(default=(-1, []), init=False, repr=False)

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        epoch, index = divmod(step, math.ceil(len(self.encoded) / self.batch_size))
        if epoch != self._epoch[0]:
            # -1 - seed: another order than that of the unlabeled texts, which may be the same rows
            self._epoch = (epoch, length_batches(self.encoded.lengths, self.batch_size, -1 - self.seed, epoch))
        return collate(self.encoded, self._epoch[1][index])


class _Teacher(nn.Module):
    """The teacher, and the moving average of its feedback, which checkpoints save under the name ``usual``."""

    usual: Tensor

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.register_buffer("usual", torch.zeros(()))


class _Step(NamedTuple):
    """What ``auxiliary_losses`` needs from the step that the student has just taken."""

    batch: Batch
    labeled: Batch
    answers: Tensor
    labels: Tensor
    before: Tensor | None
    weights: Mapping[str, Tensor]


@dataclass
class MetaPseudoLabels:
    """Train a student on a teacher's labels and, beside it, the teacher on labels and on the student's progress.

    Attributes:
        teacher: The teacher.
        config: The teacher's hyper-parameters.
        labeled: Returns the labeled batch of a step.
        problem_type: Problem type of transformers.
        feedback: 'exact', 'reinforce' or 'off'.
        labels: Kind of pseudo labels: 'soft', 'sampled' or 'argmax'.
        weight: Weight of the feedback.
        warmup_steps: First steps, without feedback.
        average: Decay of the moving average that is subtracted from the feedback of 'reinforce'; 0, as in the paper's
            algorithm, subtracts nothing.
    """

    teacher: LimbeckForSequenceClassification
    config: TrainingConfig
    labeled: Callable[[int], Batch]
    problem_type: str = "single_label_classification"
    feedback: str = "exact"
    labels: str = "soft"
    weight: float = 1.0
    warmup_steps: int = 0
    average: float = 0.0

    def __post_init__(self) -> None:
        self.state = _Teacher(self.teacher.train())
        self.co_trained = [CoTrainedModule(self.state, self.config)]
        self._step: _Step | None = None

    def __call__(self, model: LimbeckForSequenceClassification, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """Yield the student's loss on the teacher's labels.

        Args:
            model: The student.
            batch: Unlabeled inputs.
            progress: Determines the labeled batch, and whether there is feedback yet.
        """
        labeled = {name: tensor.to(batch["input_ids"].device) for name, tensor in self.labeled(progress.step).items()}
        feedback = self.feedback if progress.step >= self.warmup_steps else "off"
        with without_dropout(self.teacher), torch.set_grad_enabled(feedback != "off"):
            answers = self.teacher.run(batch)[0]
        labels = pseudo_labels(answers.detach(), self.labels, self.problem_type)
        before = self.labeled_loss(model, labeled).detach() if feedback == "reinforce" else None
        weights = {n: p.detach().clone() for n, p in model.named_parameters()} if feedback == "exact" else {}
        self._step = _Step(batch, labeled, answers, labels, before, weights)
        loss = pseudo_loss(model.run(batch)[0], labels, self.problem_type, self.mask(batch))
        yield Loss(loss, {"pseudo": loss.detach()})

    def auxiliary_losses(self, model: LimbeckForSequenceClassification, taken: StepTaken) -> Iterator[Loss]:
        """Yield the teacher's loss: on labels, and what the student's step says about its pseudo labels."""
        step, self._step = self._step, None
        assert step is not None, "auxiliary_losses comes after a step"
        logits = self.teacher.run(step.labeled)[0]
        loss = self.teacher.loss(logits, step.labeled["labels"])
        terms = {"teacher": loss.detach()}
        if step.before is not None:
            gain, feedback = self.reinforce(model, step)
        elif step.weights:
            gain, feedback = self.exact(model, step, taken)
        else:
            yield Loss(loss, terms)
            return
        yield Loss(loss + self.weight * feedback, terms | {"feedback": gain})

    def reinforce(self, model: LimbeckForSequenceClassification, step: _Step) -> tuple[Tensor, Tensor]:
        """Compute ``h`` and the loss ``h CE(y, T(u))`` of the paper's algorithm."""
        assert step.before is not None
        gain = step.before - self.labeled_loss(model, step.labeled).detach()
        advantage = gain - self.state.usual
        if self.average:
            self.state.usual.lerp_(gain.to(self.state.usual.dtype), 1 - self.average)
        return gain, advantage * pseudo_loss(step.answers, step.labels, self.problem_type, self.mask(step.batch))

    def exact(self, model: LimbeckForSequenceClassification, step: _Step, taken: StepTaken) -> tuple[Tensor, Tensor]:
        """Compute the exact feedback.

        Args:
            model: The student after its step.
            step: What was recorded before the step.
            taken: The step.

        Returns:
            The gain of the step on labels, to first order, and a loss whose gradient is that of ``L_l(S')``.
        """
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(self.labeled_loss(model, step.labeled), list(named.values()), allow_unused=True)
        gradient: dict[Tensor, Tensor] = {p: g for p, g in zip(named.values(), gradients, strict=True) if g is not None}
        moves = towards_labels(taken.optimizer, taken.clipping, gradient)
        named_moves = {name: moves[p] for name, p in named.items() if p in moves}
        with without_dropout(model):
            logits, change = moved_logits(model, step.weights, named_moves, step.batch)
        soft = pseudo_labels(step.answers, "soft", self.problem_type)
        loss = exact_feedback(logits, change, soft, self.problem_type, self.mask(step.batch))
        return -loss.detach(), loss

    def labeled_loss(self, model: LimbeckForSequenceClassification, labeled: Batch) -> Tensor:
        """Compute the student's loss on labeled texts, without dropout."""
        with without_dropout(model):
            loss: Tensor = model.loss(model.run(labeled)[0], labeled["labels"])
        return loss

    def mask(self, batch: Batch) -> Tensor | None:
        """Return which tokens have a label [batch, seq]; None where whole texts have one."""
        labels = batch["labels"]
        return labels != IGNORED if labels.dim() == 2 and not labels.is_floating_point() else None
