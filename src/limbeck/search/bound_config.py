"""The cost limits of a search, a group of fields; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.bound import Bound, missing_profile, time_problem
from limbeck.core.digests import content
from limbeck.core.measurement import machine
from limbeck.search.bounded_space import BoundedSpace

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.measurement import Measurement
    from limbeck.core.search_space import Space
    from limbeck.core.shape import Shape
    from limbeck.core.step import RunContext
    from limbeck.core.target import Budget, Target


@dataclass(frozen=True)
class BoundConfig:
    """At most one bound on the cost of a shape, and how close to it shapes should be.

    Attributes:
        latency_ms: Upper limit of a call's latency on the target.
        speedup: Least speed-up over the largest slice, by the model of latency.
        keep: Upper limit as a fraction of the largest slice's cost.
        cost: What is bounded: latency, measured on the target, or multiply-accumulates.
        profile: Latency data from another machine, made there by 'limbeck profile --full'; latency is that machine's.
        target: Name of the target that a latency is for, where a recipe has several [default: the first].
        number_format: Format of the served model: slices are scored, and their latency is stated, in it.
        at_least: Shapes below this fraction of the bound are not scored, since they leave too much of it unused
            [default: 0.85; 0 for nsga2, whose front has faster shapes, too].
        at_most: Shapes above this fraction of the bound are not scored.
        sure: A shape fits only if the upper end of its latency's 95 % interval is below the bound.
    """

    latency_ms: Annotated[float, Gt(0), Le(10_000_000)] | None = None
    speedup: Annotated[float, Gt(0), Le(1_000)] | None = None
    keep: Annotated[float, Gt(0), Le(1)] | None = None
    cost: Literal["latency", "macs"] = "latency"
    profile: str | None = None
    target: str | None = None
    number_format: Literal["int8", "float"] = "int8"
    at_least: Annotated[float, Ge(0), Le(1)] | None = None
    at_most: Annotated[float, Gt(0), Le(1_000)] = 1.0
    sure: bool = True

    @property
    def bound(self) -> Bound:
        """The bound that the fields give."""
        return Bound(self.latency_ms, self.speedup, self.keep)

    @property
    def goal_target(self) -> str | None:
        """Name of the target that a latency is for: '' for the first; None where no latency counts."""
        return (self.target or "") if self.cost == "latency" else None

    def least(self, *, front: bool) -> float:
        """Return ``at_least``, or its default; ``front`` if a front is searched."""
        return self.at_least if self.at_least is not None else 0.0 if front else 0.85

    def problems(self, *, front: bool) -> list[str]:
        """Return the conflicts between fields; ``front`` if a front is searched."""
        problems = []
        if len(self.bound.given) > 1:
            problems.append(f"give one bound, got {', '.join(self.bound.given)}")
        if self.cost != "latency" and (self.speedup or self.latency_ms):
            problems.append(time_problem(self.cost))
        if self.cost == "macs" and self.profile is not None:
            problems.append("profile needs cost: latency, got cost: macs")
        if self.cost == "macs" and self.target is not None:
            problems.append("target needs cost: latency, got cost: macs")
        if self.least(front=front) >= self.at_most:
            problems.append(f"at_least should be below at_most, got {self.least(front=front):g} and {self.at_most:g}")
        return problems

    def budget_problems(self, budget: Budget, *, front: bool) -> list[str]:
        """Return a problem if neither the fields nor the recipe's budget give a bound where one is needed.

        Args:
            budget: The limits of the recipe.
            front: Whether a front is searched, which needs none.
        """
        by_latency = self.cost == "latency"
        if self.bound.given:
            return []
        if by_latency and budget.latency_ms is not None:
            statistic = budget.latency_statistic
            reason = f"the budget's latency_ms is the {statistic} of a call, and costs of shapes are medians"
            return [] if statistic == "p50" else [f"give latency_ms, speedup or keep: {reason}"]
        if front:
            return []
        forms = "latency_ms, speedup or keep, or a budget with latency_ms" if by_latency else "keep"
        return [f"give a bound: {forms}"]

    def target_problems(self, target: Target) -> dict[str, str]:
        """Return that latencies cannot be measured for a search where the target is elsewhere."""
        return missing_profile(target, measures=self.cost == "latency" and self.profile is None)

    def bounded(self, space: Space, candidate: Candidate, context: RunContext, *, front: bool) -> BoundedSpace:
        """Return a space with its costs and the limits that the fields set.

        Args:
            space: The shapes.
            candidate: The model whose slices they are.
            context: Gives measured costs, the target, and the budget's bound where the fields give none.
            front: Whether a front is searched.
        """
        from limbeck.cost_models.shape_cost import cost_of
        from limbeck.search.cached_cost import CachedCost

        target, log = context.target, context.log
        cost = cost_of(self.cost, candidate, context.cost, target, self.number_format, profile=self.profile, log=log)
        bound, costs = self.bound, CachedCost(cost)
        if not bound.given and self.cost == "latency":
            bound = Bound(latency_ms=context.budget.latency_ms)
        most = bound.amount(costs, space.largest)
        least = self.least(front=front)
        return BoundedSpace.near(space, costs, most, at_least=least, at_most=self.at_most, sure=self.sure)

    def must_measure(self, space: Space, shape: Shape) -> bool:
        """Return whether the cost is a latency of shapes that no table of the model covers, which takes minutes.

        Args:
            space: The shapes.
            shape: Shape of the model.
        """
        fixed = len(space.hidden) * len(space.head_dim) == 1
        in_table = fixed and (space.largest.hidden, space.largest.head_dim) == (shape.hidden, shape.head_dim)
        return self.cost == "latency" and self.profile is None and not in_table

    def source(self, bounded: BoundedSpace, target: Target) -> str:
        """Return in words what the costs of these shapes depend on.

        Args:
            bounded: The shapes and their costs.
            target: Where latency counts.
        """
        if self.cost == "macs":  # which depend on the length of texts
            return f"macs, {bounded.costs(bounded.space.largest).value:.0f} of the largest"
        data = bounded.costs.cost.key or machine() if self.profile is None else content(self.profile)
        return f"latency by {data} on {target}"

    def predicted(
        self, shape: Shape, bounded: BoundedSpace, candidate: Candidate, target: Target
    ) -> tuple[Measurement, ...]:
        """Return the latency of a winner as a fact that its measurement is compared with; none of operations.

        Args:
            shape: The winner.
            bounded: Gives its cost.
            candidate: The super-network, whose texts a latency of another machine may not be for.
            target: Where latency counts.
        """
        from limbeck.cost_models.shape_cost import is_elsewhere, predicted_latency

        if self.cost != "latency":
            return ()
        elsewhere = self.profile is not None and is_elsewhere(bounded.costs.cost, candidate, target)
        return (predicted_latency(bounded.costs(shape), self.number_format, elsewhere=elsewhere),)
