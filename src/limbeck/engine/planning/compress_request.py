"""What a user asks of ``compress``, apart from model, task and target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le

from limbeck.core.decision import DecisionGoal
from limbeck.core.target import Budget
from limbeck.engine.planning.training_options import Training
from limbeck.errors import InputError, nearest
from limbeck.measure.decision import DecisionProbe
from limbeck.recipe.validation import check_values

Effort = Literal["one-shot", "quick", "standard", "thorough"]
Strategy = Literal["prune", "search", "both"]


@dataclass(frozen=True)
class CompressRequest:
    """What a user asks of ``compress``, apart from model, task and target.

    Attributes:
        budget: Bounds of latency, size and loss of quality.
        strategy: 'prune' cuts the model down in stages, each pruned and distilled from the one before. 'search' trains
            it as a super-network, finds the INT8 slices that are best within bounds of latency, and distills them.
            'both' are branches of one recipe, measured together for one choice. A size limit is a goal only of pruning,
            with all tokens and with those of the texts; a search knows only latency, and the final choice takes winners
            that are small enough.
        effort: How many candidates, and how many epochs for each.
        seed: Seed of everything random.
        replicas: Train the chosen model with this many seeds in total.
        name: Name of the recipe.
        training: Options of the trainings.
        allow_weak_teacher: See :class:`Recipe`.
        teacher: Teacher of all models, if not the fine-tuned model itself; they imitate its answers.
        decision: What thresholds and a temperature are fitted for, on the chosen model; None fits none.
        profile: Latency data of another machine, for goals in latency; None for a table measured here.
        max_minutes: Trainings that would end later are left out; what needs none is made first. See :class:`Recipe`.
    """

    budget: Budget = field(default_factory=Budget)
    strategy: Strategy = "prune"
    effort: Effort = "standard"
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    replicas: Annotated[int, Ge(1), Le(1000)] = 1
    name: str = ""
    training: Training = field(default_factory=Training)
    allow_weak_teacher: bool = False
    teacher: str | None = None
    decision: DecisionGoal | None = None
    profile: str | None = None
    max_minutes: Annotated[float, Ge(0.1), Le(1e6)] | None = None

    def check(self) -> None:
        """Refuse values out of bounds, and unknown or incompatible strategies and efforts.

        Raises:
            InputError: The message names the bounds or the choices.
        """
        for name, value, valid in (
            ("strategy", self.strategy, get_args(Strategy)),
            ("effort", self.effort, get_args(Effort)),
        ):
            if value not in valid:
                raise InputError(f"{name}: there is no '{value}'; {nearest(value, valid)}")
        if self.effort == "one-shot" and self.strategy != "prune":
            raise InputError(
                f"strategy: effort 'one-shot' trains no super-network, so it needs 'prune', got '{self.strategy}'"
            )
        if self.effort == "one-shot" and self.teacher is not None:
            raise InputError("teacher: effort 'one-shot' trains nothing that could learn from it; use 'quick'")
        others = replace(self, budget=Budget(), training=Training(), decision=None)
        for options in (self.budget, self.training, self.decision or DecisionGoal(), others):
            check_values(options)
        if self.decision is not None and (problems := DecisionProbe(goal=self.decision).problems()):
            raise InputError("; ".join(problems))
