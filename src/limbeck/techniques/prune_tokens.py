"""Let layers pass on fewer tokens: those that receive least attention are left behind.

References: PoWER-BERT (Goyal et al., 2020, arXiv:2001.08950), which scores tokens by the attention that they receive;
LTP (Kim et al., 2022, arXiv:2107.00910); ToP (Li et al., 2023, arXiv:2306.14393). Differs: the schedule is given, or
follows from a budget of operations or of measured latency, divided evenly or by gates that are learned apart from the
weights (``train/token_gates.py``); its shares are of each text's own length; tokens that are left behind keep their
last state, for token classification and mean pooling.

    steps:
      - finetune: {}
      - prune_tokens: {speedup: 2.0}       # by a latency table that is measured here
      - distill: {epochs: 1}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from limbeck.core.bound import Bound
from limbeck.core.candidate import Candidate
from limbeck.core.cost import TABLE_SECONDS
from limbeck.core.field_groups import group
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Step, StepInfo, step
from limbeck.core.token_schedule import schedule_problem, shares_problem, with_schedule, within_share
from limbeck.errors import InputError
from limbeck.train.token_gates_config import TokenGatesConfig

if TYPE_CHECKING:
    from limbeck.core.target import Target
    from limbeck.core.task import Task


@step(
    StepInfo(
        "prune_tokens",
        label="tokens pruned",
        needs={"torch"},
        gives={"fewer_tokens"},
        drops={"elastic"},
        reads={"seed", "target", "cost"},
        neutral=frozenset({"target"}),  # what it names is in the key
        sizes={"schedule", "speedup", "latency_ms", "keep"},
        added=frozenset({"speedup", "latency_ms", "number_format", "allocation", "samples", "gate_epochs"}),
        example={"schedule": (0.6, 0.6)},
    )
)
class PruneTokens(TechniqueWithGoal):
    """Let every layer pass on only the tokens that receive most attention, the first always among them.

    No weight changes: train next (``distill``, ``finetune``), so that the model learns to do with fewer. Exactly one of
    ``schedule`` and the goals ``speedup``, ``latency_ms`` and ``keep``. Latency is that of a table measured on the
    target, for texts of typical length.

    Attributes:
        schedule: Share of a text's tokens that go on after each layer, one for each layer, never rising; after the
            last layer it has no effect.
        speedup: Times as fast as the model as it comes in.
        latency_ms: Latency to reach.
        keep: Fraction of the operations to keep, for a text of the task's typical length.
        target: Name of the target that a latency is for, where a recipe has several [default: the first].
        number_format: The format that a latency is for.
        gates: How a goal is divided among the layers.
    """

    schedule: tuple[Annotated[float, Ge(0.001), Le(1)], ...] = ()
    speedup: Annotated[float, Gt(1), Le(1_000)] | None = None
    latency_ms: Annotated[float, Gt(0), Le(10_000_000)] | None = None
    keep: Annotated[float, Gt(0), Lt(1)] | None = None
    target: str | None = None
    number_format: Literal["int8", "float"] = "int8"
    gates: TokenGatesConfig = group(default=TokenGatesConfig())

    @property
    def bound(self) -> Bound:
        """The goal, if there is no schedule."""
        return Bound(self.latency_ms, self.speedup, self.keep)

    @property
    def _measures(self) -> bool:
        return self.speedup is not None or self.latency_ms is not None

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        given = [*(["schedule"] if self.schedule else []), *self.bound.given]
        if len(given) != 1:
            options = "schedule, a share for each layer; speedup; latency_ms; or keep, a fraction of the operations"
            return [f"give one of {options}; got {', '.join(given) or 'none'}"]
        if self.target is not None and not self._measures:
            return [f"target: is for speedup and latency_ms, got {given[0]}"]
        if problem := shares_problem(self.schedule):
            return [problem]
        if self.schedule and self.gates.allocation == "learned":
            return [
                "allocation: learned divides a goal among the layers, and schedule does so already; give one of them"
            ]
        return []

    def goal_target(self) -> str | None:
        """Return the name of the target that a goal in latency is for."""
        return (self.target or "") if self._measures else None

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Return that latencies cannot be measured for a goal where the target is elsewhere."""
        if target.url is None or not self._measures:
            return {}
        return {self.bound.given[0]: f"latencies of fewer tokens cannot be measured at {target.url}; use keep"}

    def decisive_services(self, read: Mapping[str, Any], task: Task, target: Target) -> Mapping[str, Any]:
        """Return what latencies depend on, where they count, and the seed where shares are learned.

        Args:
            read: The seed, the target and its cost, in keys.
            task: Ignored.
            target: Ignored.
        """
        names = {"target", "cost"} if self._measures else set()
        names |= {"seed"} if self.gates.allocation == "learned" else set()
        return {name: value for name, value in read.items() if name in names}

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why a model of this shape cannot have the schedule; None if it can.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: Services of the run.
            earlier: The steps in between.
        """
        try:
            self._pruned(candidate, context)
        except InputError as error:
            return str(error)
        return None

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape; None if it is impossible, or follows from the length of texts."""
        try:
            return with_schedule(shape, self.schedule) if self.schedule else None
        except InputError:
            return None

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return the seconds of gates and of latency tables: of two schedules, as one may be too gentle, and the whole.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        tables = 2 * (self.speedup is not None) + 3 * (self.latency_ms is not None)
        tables += self._measures and self.gates.allocation == "learned"
        return TABLE_SECONDS * tables + self.gates.estimated_seconds(shape, rows, tokens)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with the schedule."""
        from limbeck.cost_models.shape_cost import counted_cost
        from limbeck.model.pruning.slicing import set_shape
        from limbeck.model.pruning.subnetwork import forget_slices

        if problems := self.problems():
            raise InputError(f"prune_tokens: {problems[0]}")
        model, before = candidate.model, candidate.model.shape
        try:
            shape = self._pruned(candidate, context)
        except InputError as error:
            raise InputError(f"prune_tokens: {error}") from error
        if self.gates.allocation == "learned":
            cost, within_goal = counted_cost("macs", candidate), partial(self._pruned, candidate, context)
            shape = self.gates.divided(candidate, context, cost, shape, within_goal)
        set_shape(model, shape)
        forget_slices(model.config)
        context.log(f"{before} -> {shape}" if shape != before else f"no effect: the goal is met by {before}")
        yield replace(candidate, model=model, folder=None)

    def _pruned(self, candidate: Candidate, context: RunContext, exponents: Sequence[float] | None = None) -> Shape:
        """Return the shape with the schedule."""
        from limbeck.cost_models.shape_cost import counted_cost
        from limbeck.cost_models.token_latency import within_latency

        shape = candidate.model.shape
        if problem := schedule_problem(shape, candidate.model.style) or self.gates.problem_of(shape):
            raise InputError(problem)
        if self.schedule:
            return with_schedule(shape, self.schedule)
        operations = counted_cost("macs", candidate)
        if self._measures:
            if context.cost is None:
                raise InputError(f"{self.bound.given[0]}: there are no latencies of this target; use keep")
            return within_latency(shape, self.bound, context.cost, operations, self.number_format, exponents)
        assert self.keep is not None
        return within_share(shape, lambda each: operations(each).value, self.keep, exponents)
