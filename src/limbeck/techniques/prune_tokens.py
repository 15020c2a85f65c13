"""Let layers pass on fewer tokens: those that receive least attention are left behind.

References: PoWER-BERT (Goyal et al., 2020, arXiv:2001.08950), which scores tokens by the attention that they receive;
LTP (Kim et al., 2022, arXiv:2107.00910); ToP (Li et al., 2023, arXiv:2306.14393). Differs: the schedule is given or
follows from a budget of operations, not learned; its shares are of each text's own length; tokens that are left behind
keep their last state, for token classification and mean pooling.

    steps:
      - finetune: {}
      - prune_tokens: {keep: 0.5}
      - distill: {epochs: 1}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, Lt

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Step, StepInfo, Technique, step
from limbeck.core.token_schedule import schedule_problem, with_schedule, within_budget
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.core.cost import Cost


@step(
    StepInfo(
        "prune_tokens",
        label="tokens pruned",
        needs={"torch"},
        gives={"fewer_tokens"},
        drops={"elastic"},
        example={"schedule": (0.6, 0.6)},
    )
)
class PruneTokens(Technique):
    """Let every layer pass on only the tokens that receive most attention, the first always among them.

    No weight changes: train next (``distill``, ``finetune``), so that the model learns to do with fewer. Exactly one of
    the two fields.

    Attributes:
        schedule: Share of a text's tokens that go on after each layer, one for each layer, never rising; after the
            last layer it has no effect.
        keep: Fraction of the operations to keep, for a text of the task's typical length; every layer then passes on
            the same share of the tokens that it reads.
    """

    schedule: tuple[Annotated[float, Ge(0.001), Le(1)], ...] = ()
    keep: Annotated[float, Gt(0), Lt(1)] | None = None

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        if bool(self.schedule) == (self.keep is not None):
            return ["give either schedule, a share for each layer, or keep, a fraction of the operations"]
        rising = [(index, low, high) for index, (low, high) in enumerate(pairwise(self.schedule), 1) if high > low]
        if rising:
            index, low, high = rising[0]
            return [f"schedule: tokens do not come back, so no share may rise, but share {index} does, {low} to {high}"]
        if self.schedule and min(self.schedule) == 1:
            return ["schedule: all tokens go on after every layer, which changes nothing; give shares below 1"]
        return []

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why a model of this shape cannot have the schedule; None if it can.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: Services of the run.
            earlier: The steps in between.
        """
        try:
            self._pruned(candidate)
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
        """Return 0: it takes no time to speak of.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return 0.0

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with the schedule."""
        from limbeck.model.pruning.slicing import set_shape
        from limbeck.model.pruning.subnetwork import forget_slices

        if problems := self.problems():
            raise InputError(f"prune_tokens: {problems[0]}")
        model, before = candidate.model, candidate.model.shape
        try:
            shape = self._pruned(candidate)
        except InputError as error:
            raise InputError(f"prune_tokens: {error}") from error
        set_shape(model, shape)
        forget_slices(model.config)
        context.log(f"{before} -> {shape}" if shape != before else f"no effect: the goal is met by {before}")
        yield replace(candidate, model=model, folder=None)

    def _pruned(self, candidate: Candidate) -> Shape:
        """Return the shape with the schedule."""
        shape = candidate.model.shape
        if shape.depth < 2:
            raise InputError(f"needs at least two layers, for after the last one no token costs anything, got {shape}")
        if problem := schedule_problem(shape, candidate.model.style):
            raise InputError(problem)
        if self.keep is None:
            return with_schedule(shape, self.schedule)
        cost = self._operations(candidate)
        whole = cost(shape).value
        pruned = within_budget(shape, lambda each: cost(each).value, self.keep * whole)
        if pruned is None:
            least = cost(with_schedule(shape, (0.001,) * shape.depth)).value / whole
            raise InputError(
                f"keep: {self.keep:g} is below the {least:.3g} that is left with one token after the first layer; use "
                "at least that, and prune besides"
            )
        return pruned

    def _operations(self, candidate: Candidate) -> Cost:
        from limbeck.cost_models.shape_cost import counted_cost

        return counted_cost("macs", candidate)
