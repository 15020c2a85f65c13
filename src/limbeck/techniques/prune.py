"""Structured pruning of heads, feed-forward neurons and layers: score, allocate, slice, repair.

References: Kwon et al., 2022, arXiv:2204.09656 (Fisher scores, knapsack, least squares without training); Michel et
al., 2019, arXiv:1905.10650, and FastFormers, arXiv:2010.13382 (Taylor scores, equal numbers in every layer); ZipLM,
arXiv:2302.04089 (measured latency table; second-order removal, for which see
``model/pruning/optimal_brain_surgeon.py``). Differs: any cost of shapes will do, measured latency by default
(``core.allocation``); the repair solves for every weight of the output projections and their biases.

    steps:
      - finetune: {}
      - prune: {speedup: 2.0}                                # by a latency table that is measured here
      - prune: {latency_ms: 1.5, profile: machine.jsonl}     # latency of another machine, learnt from its data

Gradually, a family of models from one run, each made of the one before:

      - stages: [{prune: {speedup: [2, 3, 4, 6], relative_to: teacher}}, {distill: {epochs: 1}}]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Candidate
from limbeck.core.cost import Cost
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Step, StepInfo, Technique, step
from limbeck.errors import InputError
from limbeck.model.pruning.goals import CostGoal, Goal, UniformGoal
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from limbeck.model.pruning.slicing import RemovalOrders

TABLE_SECONDS = 30.0  # a typical latency table; kept, so later steps on the same model find it


@step(
    StepInfo(
        "prune",
        label="pruned",
        version=6,
        needs={"torch"},
        reads={"seed", "target", "cost", "teacher"},
        files=frozenset({"profile"}),
        example={"keep": 0.5, "cost": "macs", "ffn_multiple": 8, "samples": 32},
    )
)
class Prune(Technique):
    """Cut heads, neurons and layers down to a goal.

    Exactly one goal: ``speedup`` (latency divided by this), ``latency_ms``, ``keep`` (fraction of the cost),
    ``size_mb``, or ``heads`` / ``ffn`` (the same number in every layer). ``layers`` keeps that many layers first, and
    may stand alone. Latency is that of a table measured on the target, or of a predictor learnt from ``profile``;
    then no layer becomes narrower than those that were measured.

    Attributes:
        speedup: Times as fast, by the model of latency.
        latency_ms: Latency to reach, by that model.
        keep: Fraction of the cost to keep.
        relative_to: Whose latency or cost speedup and keep are parts of: the model's as it comes in, or its teacher's.
        size_mb: Size of the weights to reach, in the number format.
        heads: Heads to keep in every layer.
        ffn: Feed-forward neurons to keep in every layer.
        layers: Whole layers to keep.
        layer_choice: Which layers: evenly spread, the top, the bottom, or those that matter most.
        criterion: How parts are scored: together, each removal corrected by all that stay, and judged by what it does
            to the model's answers (obs) or to a layer's output, alike in all layers (ziplm), without labels; or one
            by one (fisher, taylor, magnitude).
        cost: What a goal counts.
        profile: Latency data of another machine, made there by 'limbeck profile --full': latency is that machine's.
        number_format: The format that latency and size are for.
        ffn_multiple: Widths of the feed-forward part that are tried: multiples of this.
        reconstruct: Repair the output projections by least squares on calibration texts.
        samples: Training texts to score and repair on.
    """

    speedup: Annotated[float, Gt(1), Le(1_000)] | None = None
    latency_ms: Annotated[float, Gt(0), Le(10_000_000)] | None = None
    keep: Annotated[float, Gt(0), Le(1)] | None = None
    relative_to: Literal["input", "teacher"] = "input"
    size_mb: Annotated[float, Gt(0), Le(10_000_000)] | None = None
    heads: Annotated[int, Ge(0), Le(10_000)] | None = None
    ffn: Annotated[int, Ge(0), Le(1_000_000)] | None = None
    layers: Annotated[int, Ge(1), Le(1_000)] | None = None
    layer_choice: Literal["uniform", "top", "bottom", "importance"] = "uniform"
    criterion: Literal["fisher", "taylor", "magnitude", "obs", "ziplm"] = "obs"
    cost: Literal["latency", "macs", "parameters"] = "latency"
    profile: str | None = None
    number_format: Literal["int8", "float"] = "int8"
    ffn_multiple: Annotated[int, Ge(1), Le(100_000)] = 32
    reconstruct: bool = True
    samples: Annotated[int, Ge(1)] = 1024

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        uniform = [name for name in ("heads", "ffn") if getattr(self, name) is not None]
        goals = self.cost_goals
        if len(goals) + bool(uniform) > 1:
            return [f"give one goal, got {', '.join(goals + uniform)}"]
        if not goals and not uniform and self.layers is None:
            return ["give a goal: speedup, latency_ms, keep, size_mb, heads and/or ffn, or layers"]
        if self.criterion == "magnitude" and goals:
            return ["magnitude scores heads and neurons in different units, so no goal can weigh them; use obs"]
        if self.cost != "latency" and (self.speedup or self.latency_ms):
            return [f"speedup and latency_ms need cost: latency, got cost: {self.cost}"]
        if self.relative_to == "teacher" and not (self.speedup or self.keep):
            return ["relative_to: is for speedup and keep; other goals say by themselves what to reach"]
        if self.profile is not None and not self.by_latency:
            return ["profile: holds latencies, so the goal should be speedup, latency_ms, or keep with cost: latency"]
        return []

    def required_traits(self) -> frozenset[str]:
        """Return the further traits that these parameters need."""
        return frozenset({"teacher"} if self.relative_to == "teacher" else ())

    @property
    def cost_goals(self) -> list[str]:
        """Names of the given goals that bound a cost."""
        return [name for name in ("speedup", "latency_ms", "keep", "size_mb") if getattr(self, name) is not None]

    @property
    def by_latency(self) -> bool:
        """Whether the goal is one of latency."""
        return self.cost == "latency" and bool({"speedup", "latency_ms", "keep"} & {*self.cost_goals})

    @property
    def narrows(self) -> bool:
        """Whether there is a goal for the widths of layers, and not for their number alone."""
        return bool(self.cost_goals) or self.heads is not None or self.ffn is not None

    def file_problems(self) -> list[str]:
        """Return the problems of the latency data file."""
        from limbeck.cost_models.predictor_file import file_problems

        return file_problems(self.profile, self.number_format)

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape where the goal alone decides it; None where scores and measured costs do."""
        if self.layers is not None:
            if len(set(shape.layers)) > 1 or self.layers > shape.depth:
                return None
            shape = replace(shape, layers=shape.layers[: self.layers])
        return None if self.cost_goals else UniformGoal(self.heads, self.ffn).shape(shape)

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: scoring (a training step without update), repair (a forward pass) and the table.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        looks = self.narrows or self.layer_choice == "importance"
        texts = min(self.samples, rows.get("train", 0)) * looks
        measures = self.by_latency and self.profile is None
        return forward_seconds(shape, (4 if self.reconstruct else 3) * texts, tokens) + TABLE_SECONDS * measures

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the smaller candidate."""
        from limbeck.data.calibration import random_batches
        from limbeck.model.pruning.slicing import Cut, slice_to

        if problems := self.problems():
            raise InputError(f"prune: {problems[0]}")
        model, before, task = candidate.model, candidate.model.shape, candidate.task
        if not before.depth:
            raise InputError("prune: the model has no layers, so there is nothing to prune")
        cost = self._cost(candidate, context)
        goal = self._goal(cost, self._whole(before, context))
        # whole layers can be removed without reading texts
        batches = cache(lambda: random_batches(task, candidate.tokenizer, self.samples, context.seed))
        if self.layers is not None:
            slice_to(model, Cut.whole_layers(before, self._layers(model, batches)))
        if self.narrows:
            self._narrow(candidate, batches(), goal, context)
        context.log(
            f"{before} -> {model.shape}" if model.shape != before else f"no effect: the goal is met by {before}"
        )
        if outside := cost(model.shape).detail.get("extrapolates"):
            context.log(f"its latency is a guess: beyond what was measured in {', '.join(outside)}")
        yield replace(candidate, model=model, folder=None)

    def _narrow(self, candidate: Candidate, batches: list[dict[str, Any]], goal: Goal, context: RunContext) -> None:
        """Take heads and neurons out of the layers."""
        from limbeck.model.pruning.prune import prune

        def keep_orders(build: Callable[[], RemovalOrders]) -> RemovalOrders:
            return self._kept_orders(candidate, context, build)

        try:
            prune(
                candidate.model,
                batches,
                goal,
                criterion=self.criterion,
                reconstruct=self.reconstruct,
                seed=context.seed,
                keep_orders=keep_orders,
            )
        except InputError as error:
            raise InputError(f"prune: {error}" if self.cost_goals else f"prune.{error}") from error

    def _kept_orders(
        self, candidate: Candidate, context: RunContext, build: Callable[[], RemovalOrders]
    ) -> RemovalOrders:
        """Return the order in which parts go; stored, so one pass serves every goal of a model."""
        from limbeck.model.checkpoints import fingerprint
        from limbeck.model.pruning.slicing import RemovalOrders
        from limbeck.storage.memmap import cached_arrays

        method = f"{self.criterion}-{self.info.version}"
        texts = f"{candidate.task.fingerprint}-{self.samples}-{context.seed}"
        name = f"order-{method}-{fingerprint(candidate.model)}-{texts}"
        return RemovalOrders.from_arrays(cached_arrays(context.keep, name, lambda: build().to_arrays()))

    def _layers(self, model: Any, batches: Callable[[], list[dict[str, Any]]]) -> tuple[int, ...]:
        """Return the layers to keep: evenly spread (the last among them), top, bottom, or those that matter most."""
        from limbeck.model.pruning.prune import important_layers
        from limbeck.train.distillation_losses import layer_map

        assert self.layers is not None
        if message := self._too_deep(model.shape):
            raise InputError(f"prune.{message}")
        if self.layer_choice == "importance":
            return important_layers(model, batches(), self.layers, self.criterion)
        return tuple(layer - 1 for layer in layer_map(self.layer_choice, self.layers, model.shape.depth))

    def _too_deep(self, shape: Shape) -> str | None:
        """Return the message for more layers than the model has; None if it has enough."""
        if self.layers is None or self.layers <= shape.depth:
            return None
        return f"layers: the model has {shape.depth} layers, got {self.layers}; use at most {shape.depth}"

    def _cost(self, candidate: Candidate, context: RunContext) -> Cost:
        """Return the cost of shapes, in the unit of the goal."""
        from limbeck.cost_models.shape_cost import counted_cost, latency_cost

        if self.by_latency:
            return latency_cost(context.cost, context.target, self.number_format, profile=self.profile, log=context.log)
        quantity: Literal["size", "macs", "parameters"] = "macs" if self.cost == "macs" else "parameters"
        return counted_cost("size" if self.size_mb is not None else quantity, candidate, self.number_format)

    def _whole(self, before: Shape, context: RunContext) -> Shape:
        """Return the shape that ``speedup`` and ``keep`` are relative to."""
        if self.relative_to == "input":
            return before
        record = context.teacher.record if context.teacher is not None else None
        if record is None or record.shape is None:
            raise InputError("prune.relative_to: there is no teacher; put 'finetune' first, or use relative_to: input")
        return record.shape

    def _goal(self, cost: Cost, whole: Shape) -> Goal:
        """Return the goal for the widths of layers."""
        if not self.cost_goals:
            return UniformGoal(self.heads, self.ffn)
        if self.latency_ms is not None:
            budget = self.latency_ms / 1e3
        elif self.size_mb is not None:
            budget = self.size_mb * 1e6
        else:
            budget = cost(whole).value * (1 / self.speedup if self.speedup else self.keep or 1.0)
        return CostGoal(cost, budget, self.ffn_multiple, "the latency data know" if self.profile else "sees its text")

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why no cut of a model of this shape meets the goal; None if one may.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: The services that ``apply`` gets; the teacher may not be there yet.
            earlier: The steps in between.
        """
        shape = before = candidate.model.shape
        if self.layers is not None:
            if message := self._too_deep(shape):
                return message
            if len(set(shape.layers)) > 1:
                return None
            shape = replace(shape, layers=shape.layers[: self.layers])
        if not self.cost_goals:
            return UniformGoal(self.heads, self.ffn).out_of_reach(shape)
        whole = before if context.teacher is None else self._whole(before, context)
        return self._goal(self._cost(candidate, context), whole).out_of_reach(shape)
