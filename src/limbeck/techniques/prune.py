"""Structured pruning of heads, neurons, layers and hidden width: score, allocate, slice, repair.

References: Kwon et al., 2022, arXiv:2204.09656 (Fisher scores, knapsack, least squares without training); Michel et
al., 2019, arXiv:1905.10650, and FastFormers, arXiv:2010.13382 (Taylor scores, equal numbers in every layer); ZipLM,
arXiv:2302.04089 (measured latency table; second-order removal, see ``model/pruning/optimal_brain_surgeon.py``). Hidden
width: see ``model/pruning/hidden_width.py``. Differs: any cost of shapes will do, measured latency by default
(``core.allocation``); the repair solves for every weight of the output projections and their biases.

    - prune: {speedup: 2.0}                                # by a latency table that is measured here
    - prune: {latency_ms: 1.5, profile: machine.jsonl}     # latency of another machine, learned from its data
    - prune: {speedup: 3.0, hidden: 288}                   # the hidden width first, and the rest of the goal within it
    - prune: {speedup: 3.0, hidden: auto}                  # the width with which answers differ least
    - prune: {speedup: 9.0, tokens: auto}                  # likewise the share of tokens that layers pass on
    - stages: [{prune: {speedup: [2, 3, 4], relative_to: teacher}}, {distill: {}}]  # each model made of the one before
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from limbeck.core.candidate import Candidate
from limbeck.core.cost import TABLE_SECONDS
from limbeck.core.field_groups import group
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.model import AnswersOnly
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Step, StepInfo, step
from limbeck.core.step_keys import ScoresParts
from limbeck.errors import InputError
from limbeck.model.pruning.config import FEWER_TOKENS, SLICES, STAGES, PruningConfig
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.cost import Cost
    from limbeck.core.target import Target


@step(
    StepInfo(
        "prune",
        label="pruned",
        version=6,
        needs={"torch"},
        reads={"seed", "target", "cost", "teacher"},
        files=frozenset({"profile"}),
        neutral=frozenset({"target"}),  # what it names is in the key
        sizes={"speedup", "latency_ms", "keep", "size_mb", "heads", "ffn", "layers"},
        added=frozenset({"hidden", "tokens"}),
        example={"keep": 0.5, "hidden": 24, "cost": "macs", "ffn_multiple": 8, "samples": 32},
    )
)
class Prune(ScoresParts, TechniqueWithGoal):
    """Cut heads, neurons, layers and hidden width down to a goal.

    Exactly one goal: ``speedup`` (latency divided by this), ``latency_ms``, ``keep`` (fraction of the cost),
    ``size_mb``, or ``heads`` / ``ffn`` (the same number in every layer). Before it, ``layers`` keeps that many layers,
    then ``hidden`` so many channels of the hidden states; they may stand alone. ``hidden: auto`` and ``tokens: auto``
    meet the goal in several ways, and keep what answers held-out texts most like the model as it came in. Latency is
    that of a table measured on the target, or of a predictor learned from ``profile``; then no layer gets narrower than
    those that were measured.

    Attributes:
        pruning: How far to prune.
        criterion: How parts are scored: together, each removal corrected by all that stay, and judged by what it does
            to the model's answers (obs) or to a layer's output, alike in all layers (ziplm), without labels; or one
            by one (fisher, taylor, magnitude).
        reconstruct: Repair what is left by least squares on calibration texts: output projections, norms and readers.
        samples: Training texts to score and repair on.
    """

    pruning: PruningConfig = group(default=PruningConfig())
    criterion: Literal["fisher", "taylor", "magnitude", "obs", "ziplm"] = "obs"
    reconstruct: bool = True
    samples: Annotated[int, Ge(1)] = 1024

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        text = "magnitude scores heads and neurons in different units, so no goal can weigh them; use obs"
        return self.pruning.problems() or [text] * bool(self.criterion == "magnitude" and self.pruning.bound.given)

    def idle_fields(self) -> Mapping[str, Any]:
        """Return a mark for keys: repairs of fewer channels are others since their damping is cross-validated."""
        return {"damping": "cross-validated"} if self.reconstruct and self.pruning.hidden is not None else {}

    def required_traits(self) -> frozenset[str]:
        """Return the further traits that these parameters need."""
        return frozenset({"teacher"} if self.pruning.relative_to == "teacher" else ())

    def trait_problems(self, traits: AbstractSet[str]) -> list[str]:
        """Return that the hidden width is cut before tokens are, and that slices read all of them."""
        fewer = self.pruning.hidden is not None and "fewer_tokens" in traits
        return [FEWER_TOKENS] * fewer + [SLICES] * (self.pruning.tokens is not None and "elastic" in traits)

    def further_traits(self) -> frozenset[str]:
        """Return that layers read fewer tokens, where there may be a schedule."""
        return frozenset({"fewer_tokens"} if self.pruning.tokens is not None else ())

    def teacher_problems(self, teacher: AnswersOnly) -> list[str]:
        """Return that a teacher that only gives answers has no shape, where the goal is relative to it."""
        text = f"relative_to: '{teacher.source}' has no shape, since it only gives answers; {STAGES}"
        return [] if self.pruning.relative_to == "input" else [text]

    def file_problems(self) -> list[str]:
        """Return the problems of the latency data file."""
        from limbeck.cost_models.predictor_file import file_problems

        return file_problems(self.pruning.profile, self.pruning.number_format)

    @property
    def samples_answers(self) -> bool:
        """Whether answers of the model decide which parts go, or what remains of its hidden width."""
        return self.pruning.hidden is not None or (self.criterion == "obs" and self.pruning.narrows)

    def goal_target(self) -> str | None:
        """Return the name of the target that a goal in latency is for."""
        return self.pruning.goal_target

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Return what the goal needs where the target is elsewhere."""
        return self.pruning.target_problems(target)

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape where the goal alone decides it; None where scores and measured costs do."""
        return self.pruning.shape_after(shape)

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: scoring (a training step without update), repair (a forward pass) and the table.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        scored = min(self.samples, rows.get("train", 0)) * self.pruning.scoring_passes
        texts = (4 if self.reconstruct else 3) * scored + self.pruning.held_out * self.pruning.tries
        return forward_seconds(shape, texts, tokens) + TABLE_SECONDS * self.pruning.latency_tables

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the smaller candidate."""
        from limbeck.data.calibration import sampled_apart
        from limbeck.model.pruning.kept_orders import kept_orders
        from limbeck.model.pruning.prune import prune

        if problems := self.problems():
            raise InputError(f"prune: {problems[0]}")
        before, cost, task = candidate.model.shape, self._cost(candidate, context), candidate.task
        scored, held_out = sampled_apart(task, candidate.tokenizer, self.samples, context.seed, self.pruning.held_out)
        name = f"{task.fingerprint}-{self.samples}-{context.seed}" + "-apart" * self.pruning.chooses
        name += "".join(f"-{mark}" for mark in self.decisive_services({}, task, context.target).values())
        try:
            model = prune(
                candidate.model,
                scored,
                self.pruning,
                cost,
                teacher=_teacher_shape(context),
                ancestor=bool(context.teacher and context.teacher.ancestor),
                criterion=self.criterion,
                reconstruct=self.reconstruct,
                seed=context.seed,
                keep_orders=partial(kept_orders, context.keep, f"{self.criterion}-{self.info.version}", name),
                held_out=held_out,
                log=context.log,
            )
        except InputError as error:
            raise InputError(f"prune: {error}") from error
        same = model.shape == before
        context.log(f"no effect: the goal is met by {before}" if same else f"{before} -> {model.shape}")
        if outside := cost(model.shape).detail.get("extrapolates"):
            context.log(f"its latency is a guess: beyond what was measured in {', '.join(outside)}")
        yield replace(candidate, model=model, folder=None)

    def _cost(self, candidate: Candidate, context: RunContext) -> Cost:
        """Return the cost of shapes, in the unit of the goal."""
        from limbeck.cost_models.shape_cost import pruning_cost

        return pruning_cost(self.pruning, candidate, context.cost, context.target, context.log)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why no cut of a model of this shape meets the goal; None if one may."""
        from limbeck.model.pruning.alternatives import out_of_reach

        return out_of_reach(
            candidate.model,
            self.pruning,
            cache(partial(self._cost, candidate, context)),
            _teacher_shape(context),
            ancestor=bool(context.teacher and context.teacher.ancestor),
            elastic=any("elastic" in step.info.gives for step in earlier),
        )


def _teacher_shape(context: RunContext) -> Shape | None:
    return context.teacher.record.shape if context.teacher and context.teacher.record else None
