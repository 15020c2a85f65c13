"""How a schedule of tokens is learned, a group of fields; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.field_groups import CheckedGroup, without_effect
from limbeck.core.token_schedule import choosing_layers
from limbeck.errors import InputError
from limbeck.train.config import PASSES, forward_seconds

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from limbeck.core.candidate import Candidate
    from limbeck.core.cost import Cost
    from limbeck.core.shape import Shape
    from limbeck.core.step import RunContext
    from limbeck.model.encoder import LimbeckForSequenceClassification

VERSION = 3
"""Raised when the same texts give another schedule: part of the name under which it is kept."""
HELD_OUT = 64
"""Training texts by which the two are compared, of others than those that shares are learned on."""


@dataclass(frozen=True)
class TokenGatesConfig(CheckedGroup):
    """Which layers leave how many tokens behind for a goal.

    Attributes:
        allocation: How a goal is divided among the layers: every layer passes on the same share of what it reads
            (uniform), or the shares are learned with gates, so that the answers change least (learned).
        samples: Training texts to learn the shares on; their labels are not read.
        gate_epochs: Passes over these texts.
    """

    allocation: Literal["uniform", "learned"] = "uniform"
    samples: Annotated[int, Ge(1), Le(1_000_000)] = 128
    gate_epochs: Annotated[float, Gt(0), Le(1_000)] = 2.0

    def problems(self) -> list[str]:
        """Return the fields that have no effect."""
        if self.allocation == "learned":
            return []
        return without_effect(self, ("samples", "gate_epochs"), "without allocation: learned")

    def problem_of(self, shape: Shape) -> str | None:
        """Return why the schedule of a model of this shape cannot be learned; None if it can."""
        linear = {layer.attention for layer in shape.layers if layer.core[0] not in ("softmax", "local")}
        if self.allocation == "uniform" or not linear:
            return None
        return (
            f"allocation: learned weighs tokens by gates in softmax attention, and layers of {shape} have "
            f"{min(linear)}; use uniform"
        )

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds of the fit, and of the comparison of two schedules with the model as it is.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        if self.allocation == "uniform" or len(choosing_layers(shape)) < 2:
            return 0.0
        texts = min(self.samples, rows.get("train", 0)) * (1 + PASSES * self.gate_epochs) + 3 * HELD_OUT
        return forward_seconds(shape, texts, tokens)

    def divided(
        self,
        candidate: Candidate,
        context: RunContext,
        cost: Cost,
        uniform: Shape,
        within_goal: Callable[[tuple[float, ...]], Shape],
    ) -> Shape:
        """Return the shape that meets a goal with learned shares, if they are shown to be better than uniform ones.

        Args:
            candidate: The model, with the task that gives the texts.
            context: Seed, cache and log.
            cost: Operations of a shape for a typical text.
            uniform: The shape that meets the goal with every layer passing on the same share of what it reads.
            within_goal: Returns the shape that meets it with a schedule of other exponents, or raises InputError.
        """
        from limbeck.data.calibration import held_out_batches
        from limbeck.train.token_gates import BATCH

        shape = candidate.model.shape
        if uniform == shape:
            return uniform
        if len(choosing_layers(shape)) < 2:
            context.log("a single layer chooses tokens, so there is nothing to divide among layers")
            return uniform
        texts = (candidate.task, candidate.tokenizer, self.samples, context.seed, HELD_OUT, BATCH)
        parts = cache(partial(held_out_batches, *texts))
        exponents = self._exponents(candidate, context, cost, cost(uniform).value, lambda: parts()[0])
        try:
            learned = within_goal(exponents)
        except InputError:  # of a latency, for which other schedules count than for operations
            context.log("the learned schedule cannot meet the goal, so every layer passes on the same share")
            return uniform
        return learned if _changes_less(candidate.model, learned, uniform, parts()[1], context.log) else uniform

    def _exponents(
        self,
        candidate: Candidate,
        context: RunContext,
        cost: Cost,
        budget: float,
        texts: Callable[[], list[dict[str, Tensor]]],
    ) -> tuple[float, ...]:
        """Return the exponents of the learned schedule, stored."""
        from limbeck.model.checkpoints import fingerprint
        from limbeck.storage.memmap import cached_arrays
        from limbeck.train.token_gates import learned_schedule

        def learn() -> dict[str, np.ndarray]:
            fit = (texts(), cost, budget, self.gate_epochs, context.seed)
            return {"exponents": learned_schedule(candidate, *fit)}

        sample = f"{candidate.task.fingerprint}-{self.samples}-{context.seed}"
        name = f"token-schedule-{VERSION}-{fingerprint(candidate.model)}-{sample}-{self.gate_epochs:g}-{budget:.0f}"
        return tuple(map(float, cached_arrays(context.keep, name, learn)["exponents"]))


def _changes_less(
    model: LimbeckForSequenceClassification,
    learned: Shape,
    uniform: Shape,
    texts: list[dict[str, Tensor]],
    log: Callable[[str], None],
) -> bool:
    """Return whether answers to texts are shown to change less with learned shares than with uniform ones."""
    from limbeck.core.statistics import probably_less
    from limbeck.model.pruning.alternatives import SURE, AnswerComparison

    comparison = AnswerComparison.of(model, texts)
    own, others = (comparison.divergences(model, shape) for shape in (learned, uniform))
    probability = probably_less(own, others)
    means = f"{own.mean():.4g} with learned shares, {others.mean():.4g} with uniform ones"
    verdict = "so they are taken" if probability >= SURE else "too little to tell, so shares are uniform"
    log(f"divergence of {len(own)} other answers: {means}; less with probability {probability:.3f}, {verdict}")
    return probability >= SURE
