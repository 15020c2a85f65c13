"""Learn how many tokens layers pass on: shares that change a model's answers least, for a given number of operations.

References: PoWER-BERT (Goyal et al., 2020, arXiv:2001.08950), LTP (Kim et al., 2022, arXiv:2107.00910), ToP (Li et al.,
2023, arXiv:2306.14393), which learn gates or thresholds together with the weights, by labels, and pay for operations
with a penalty or Lagrange multipliers. Differs: weights stay as they are, and the loss is the divergence from the
model's own answers, so no label is read; the budget holds in every step, because the gradient is taken along the
schedules that cost the same; the fit begins with the uniform schedule of the budget.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.token_schedule import choosing_layers, even_exponents, scheduled
from limbeck.model.placement import on_accelerator
from limbeck.model.pruning.token_gates import GatedTokens, logits_with
from limbeck.model.token_pruning import RemainingTokens
from limbeck.train.distillation_losses import LogitLoss
from limbeck.train.objectives import Batch, Outputs

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.cost import Cost
    from limbeck.core.shape import Shape
    from limbeck.model.encoder import LimbeckForSequenceClassification

BATCH = 4
"""Texts in a batch: small, as scores of all pairs of tokens are held with their gradients."""
LEARNING_RATE = 0.2
"""Of the logarithms of the steps between exponents; falls to 0."""
FARTHEST = 3.0
"""How far these logarithms may go from those of the uniform schedule."""
TEMPERATURES = (0.3, 0.1)
"""Width of the soft boundary between tokens that go on and others, at first and at last."""
LEAST = 1e-12
"""Of a divergence whose logarithm is taken."""
DIFFERENCE = 0.1
"""Distance of the points that slopes of the cost are taken between."""


def learned_schedule(
    candidate: Candidate, batches: Sequence[Batch], cost: Cost, budget: float, epochs: float, seed: int
) -> np.ndarray:
    """Learn the exponents of a schedule (``core.token_schedule.scheduled``) within a budget.

    Args:
        candidate: The model, at least two of whose layers choose tokens; its weights do not change.
        batches: Texts, sorted by length; labels are not read, but tell which tokens have answers.
        cost: Cost of shapes.
        budget: The most that the schedule may cost, in its unit; some schedule of equal shares does.
        epochs: Passes over the texts.
        seed: Decides the order of the texts.

    Returns:
        The exponents [layers].
    """
    model = on_accelerator(candidate.model).eval()
    distance = LogitLoss(temperature=1.0, problem_type=candidate.task.problem_type)
    moved = [{name: value.to(model.device) for name, value in batch.items()} for batch in batches]
    with _frozen(model):
        with torch.no_grad():
            answers = [logits_with(model, _all_tokens(batch), batch) for batch in moved]
        fit, order = _Fit(model, cost, budget), _shuffled(list(zip(moved, answers, strict=True)), random.Random(seed))
        steps = max(1, round(epochs * len(moved)))
        for step, (batch, own) in enumerate(islice(order, steps)):
            fit.step(step / steps, batch, own, distance)
    return np.array(fit.exponents(fit.mean))


class _Fit:
    """The state of a fit: logarithms of the steps between the exponents of layers that choose."""

    def __init__(self, model: LimbeckForSequenceClassification, cost: Cost, budget: float) -> None:
        self.model, self.shape, self.cost, self.budget = model, model.shape, partial(_value, cost), budget
        self.choosing = choosing_layers(self.shape)
        even = [even_exponents(self.shape.depth)[index] for index in self.choosing]
        self.last = even[-1]
        self.uniform = torch.tensor(np.diff(even, prepend=0.0)).log()
        self.caps = torch.tensor([self.shape.token_shares[index][1] for index in self.choosing])
        self.logs = self.uniform.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.logs])
        self.mean, self._averaged = self.uniform.clone(), 0

    def exponents(self, logs: Tensor) -> list[float]:
        """Return the exponents of all layers; one that cannot choose has that of the layer before."""
        sums = logs.exp().cumsum(0)
        powers = dict(zip(self.choosing, (sums * self.last / sums[-1]).tolist(), strict=True))
        each, power = [], 0.0
        for index in range(self.shape.depth):
            power = powers.get(index, power)
            each.append(power)
        return each

    def price(self, logs: Tensor, log_ratio: float) -> float:
        """Return the cost with these logarithms of steps and of the ratio."""
        return self.cost(scheduled(self.shape, self.exponents(logs), math.exp(log_ratio)))

    def log_ratio(self, logs: Tensor) -> float:
        """Return the logarithm of the gentlest ratio within the budget."""
        low, high = math.log(1e-3), 0.0
        for _ in range(16):
            middle = (low + high) / 2
            low, high = (middle, high) if self.price(logs, middle) <= self.budget else (low, middle)
        return low

    def step(self, progress: float, batch: Batch, answers: Tensor, distance: LogitLoss) -> None:
        """Take a step down the divergence, along the schedules that cost the same.

        Args:
            progress: Share of the steps that are taken.
            batch: Texts.
            answers: The model's answers to them, with the tokens that its layers read so far.
            distance: Compares answers.
        """
        logs = self.logs.detach()
        ratio = torch.tensor(self.log_ratio(logs), dtype=logs.dtype, requires_grad=True)
        powers = self.logs.exp().cumsum(0)
        shares = torch.minimum((ratio * powers * (self.last / powers[-1])).exp(), self.caps).to(self.model.device)
        first, last = TEMPERATURES
        gated = GatedTokens(batch["attention_mask"], batch["input_ids"], shares, first * (last / first) ** progress)
        logits = logits_with(self.model, gated, batch)
        loss = divergence(distance, logits, answers, batch)
        # of the logarithm, or a few texts with large divergences would decide
        slope, along = torch.autograd.grad(loss.clamp_min(LEAST).log(), (self.logs, ratio))
        fixed = float(ratio.detach())
        price_along = self.price(logs, fixed + DIFFERENCE / 2) - self.price(logs, fixed - DIFFERENCE / 2)
        prices = [
            self.price(logs + move, fixed) - self.price(logs - move, fixed)
            for move in DIFFERENCE / 2 * torch.eye(len(logs), dtype=logs.dtype)
        ]
        # what the step would cost more is paid for with the ratio
        rate = float(along) / price_along if price_along > 0 else 0.0
        self.logs.grad = slope - rate * torch.tensor(prices, dtype=logs.dtype)
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - progress)
        self.optimizer.step()
        with torch.no_grad():
            self.logs.copy_(self.logs.clamp(self.uniform - FARTHEST, self.uniform + FARTHEST))
        if progress >= 0.5:  # late steps average out what single batches say
            self._averaged += 1
            self.mean += (self.logs.detach() - self.mean) / self._averaged


def divergence(distance: LogitLoss, logits: Tensor, answers: Tensor, batch: Batch) -> Tensor:
    """Return how far logits are from answers, a scalar: 0 where they are equal, even if labels have a probability each.

    Args:
        distance: Compares answers.
        logits: [texts, outputs], or [texts, seq, outputs] where tokens are answered.
        answers: Of the same shape.
        batch: The texts.
    """
    # a difference of two numbers that are nearly equal
    first, second = (Outputs(each.double(), {}) for each in (logits, answers))
    return distance(first, second, batch) - distance(second, second, batch)


def _all_tokens(batch: Batch) -> RemainingTokens:
    return RemainingTokens(batch["attention_mask"], batch["input_ids"])


def _value(cost: Cost, shape: Shape) -> float:
    return cost(shape).value


def _shuffled(pairs: Sequence[tuple[Batch, Tensor]], rng: random.Random) -> Iterator[tuple[Batch, Tensor]]:
    """Yield all in random order, again and again."""
    while True:
        yield from rng.sample(pairs, len(pairs))


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Record no gradients of weights meanwhile."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
