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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.allocation import TOLERANCE, Part, allocate, smallest
from limbeck.core.candidate import Candidate
from limbeck.core.cost import Cost, FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.step import RunContext, Step, StepInfo, Technique, step
from limbeck.errors import InputError
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.model.pruning.reconstruction import Grams
    from limbeck.model.pruning.slicing import Cut, RemovalOrders, Scores

ShapeCost = Callable[[Shape], Measurement]
TABLE_SECONDS = 30.0  # a typical latency table; kept, so later steps on the same model find it


@step(
    StepInfo(
        "prune",
        label="pruned",
        version=5,
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
        goals = [n for n in ("speedup", "latency_ms", "keep", "size_mb") if getattr(self, n) is not None]
        uniform = [n for n in ("heads", "ffn") if getattr(self, n) is not None]
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
    def by_latency(self) -> bool:
        """Whether the goal is one of latency."""
        return self.cost == "latency" and any((self.speedup, self.latency_ms, self.keep))

    @property
    def narrows(self) -> bool:
        """Whether there is a goal for the widths of layers, and not for their number alone."""
        goals = (self.speedup, self.latency_ms, self.keep, self.size_mb, self.heads, self.ffn)
        return any(goal is not None for goal in goals)

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
        if any(goal is not None for goal in (self.speedup, self.latency_ms, self.keep, self.size_mb)):
            return None
        return self.uniform(shape)

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
        from limbeck.model.pruning.slicing import slice_to

        if problems := self.problems():
            raise InputError(f"prune: {problems[0]}")
        model, before = candidate.model, candidate.model.shape
        if not before.depth:
            raise InputError("prune: the model has no layers, so there is nothing to prune")
        cost = self.cost_of(candidate, context)
        budget = self.budget(cost, self.whole(before, context))
        batches = cache(
            lambda: self.calibration(candidate, context.seed)
        )  # whole layers can be removed without reading texts
        if self.layers is not None:
            slice_to(model, self.layer_cut(model, batches))
        if self.narrows:
            self.narrow(candidate, batches(), cost, budget, context)
        context.log(
            f"{before} -> {model.shape}" if model.shape != before else f"no effect: the goal is met by {before}"
        )
        if outside := cost(model.shape).detail.get("extrapolates"):
            context.log(f"its latency is a guess: beyond what was measured in {', '.join(outside)}")
        yield replace(candidate, model=model, folder=None)

    def narrow(
        self, candidate: Candidate, batches: list[dict[str, Any]], cost: Cost, budget: float, context: RunContext
    ) -> None:
        """Take heads and neurons out of the layers, and repair what stays.

        Args:
            candidate: The candidate; its model is changed in place.
            batches: Calibration texts.
            cost: Cost of shapes.
            budget: Most that the result may cost, in the unit of ``cost``.
            context: Services of the run.
        """
        from limbeck.model.pruning.reconstruction import collect, put, repaired
        from limbeck.model.pruning.slicing import Cut, slice_to

        model = candidate.model
        grams = cache(lambda: collect(model, batches))  # not every criterion needs them
        orders = self.orders(candidate, batches, grams, context)
        cut = Cut.best(orders, self.allocate(orders, model.shape, cost, budget))
        repair = repaired(model, cut, grams()) if self.reconstruct else {}
        slice_to(model, cut)
        put(model, repair)

    def calibration(self, candidate: Candidate, seed: int) -> list[dict[str, Any]]:
        """Return batches of a seeded sample of training texts."""
        import random

        from limbeck.data.batching import collate, encode

        encoded = encode(candidate.task, "train", candidate.tokenizer)
        count = min(self.samples, len(encoded))
        chosen = sorted(random.Random(seed).sample(range(len(encoded)), count), key=lambda i: encoded.lengths[i])
        return [collate(encoded, chosen[at : at + 16]) for at in range(0, count, 16)]

    def orders(
        self, candidate: Candidate, batches: list[dict[str, Any]], grams: Callable[[], Grams], context: RunContext
    ) -> RemovalOrders:
        """Return the order in which heads and neurons are removed; stored, so one pass serves every goal of a model.

        Args:
            candidate: The candidate to rank.
            batches: Calibration texts.
            grams: Returns the second moments of layer inputs.
            context: Services of the run.
        """
        from limbeck.model.checkpoints import fingerprint
        from limbeck.model.pruning.optimal_brain_surgeon import layer_wise, second_order
        from limbeck.model.pruning.slicing import RemovalOrders
        from limbeck.storage.memmap import cached_arrays

        model = candidate.model

        def build() -> Mapping[str, Any]:
            if self.criterion == "obs":
                return second_order(model, batches, grams(), context.seed).to_arrays()
            if self.criterion == "ziplm":
                return layer_wise(model, grams()).to_arrays()
            return self.scores(model, batches).orders.to_arrays()

        method = f"{self.criterion}-{self.info.version}"
        texts = f"{candidate.task.fingerprint}-{self.samples}-{context.seed}"
        name = f"order-{method}-{fingerprint(model)}-{texts}"
        return RemovalOrders.from_arrays(cached_arrays(context.keep, name, build))

    def scores(self, model: Any, batches: list[dict[str, Any]]) -> Scores:
        """Score every head, neuron and layer by itself; by Fisher's scores where the criterion ranks them together."""
        from limbeck.model.pruning.importance import CRITERIA

        return CRITERIA[self.criterion if self.criterion in CRITERIA else "fisher"](model, batches)

    def layer_cut(self, model: Any, batches: Callable[[], list[dict[str, Any]]]) -> Cut:
        """Keep ``layers`` whole layers: evenly spread (the last among them), top, bottom, or those that matter most."""
        from limbeck.model.pruning.slicing import Cut, RemovalOrder
        from limbeck.train.distillation_losses import layer_map

        shape, count = model.shape, self.layers
        assert count is not None
        if count > shape.depth:
            raise InputError(
                f"prune.layers: the model has {shape.depth} layers, got {count}; use at most {shape.depth}"
            )
        if self.layer_choice == "importance":
            layers = RemovalOrder.of(self.scores(model, batches()).layers).remaining(count)
        else:
            layers = tuple(layer - 1 for layer in layer_map(self.layer_choice, count, shape.depth))
        full = Cut.everything(shape)
        return Cut(layers, tuple(full.heads[i] for i in layers), tuple(full.ffn[i] for i in layers))

    def cost_of(self, candidate: Candidate, context: RunContext) -> Cost:
        """Return the cost of shapes, in the unit of the goal."""
        from limbeck.core import analytic_cost as counts

        model, task = candidate.model, candidate.task
        style, labels, pooler = model.encoder.style, task.num_labels, model.pooler is not None
        if self.size_mb is not None:
            return FunctionCost(
                lambda shape: Measurement("size", counts.bytes(shape, style, self.number_format, labels, pooler), "B")
            )
        if self.cost == "macs":
            from limbeck.cost_models.latency_table import typical_length

            length = typical_length(candidate)
            return FunctionCost(
                lambda shape: Measurement("macs", counts.macs(shape, length, style, labels, pooler), "MAC")
            )
        if not self.by_latency:
            return FunctionCost(
                lambda shape: Measurement("parameters", counts.parameters(shape, style, labels, pooler), "1")
            )
        if self.profile is not None:
            from limbeck.cost_models.predictor_file import open_predictor

            return open_predictor(self.profile, context.target, self.number_format, context.log)
        if context.cost is None:
            raise InputError("prune: no latency table for this target; use cost: macs")
        return context.cost.for_format(self.number_format)

    def whole(self, before: Shape, context: RunContext) -> Shape:
        """Return the shape that ``speedup`` and ``keep`` are relative to."""
        if self.relative_to == "input":
            return before
        record = context.teacher.record if context.teacher is not None else None
        if record is None or record.shape is None:
            raise InputError("prune.relative_to: there is no teacher; put 'finetune' first, or use relative_to: input")
        return record.shape

    def budget(self, cost: Cost, whole: Shape) -> float:
        """Return the goal in the unit of the cost."""
        if self.latency_ms is not None:
            return self.latency_ms / 1e3
        if self.size_mb is not None:
            return self.size_mb * 1e6
        return cost(whole).value * (1 / self.speedup if self.speedup else self.keep or 1.0)

    def uniform(self, shape: Shape) -> Shape:
        """Return the shape with at most ``heads`` heads and ``ffn`` neurons in every layer."""
        layers = (
            LayerShape(
                layer.heads if self.heads is None else min(self.heads, layer.heads),
                layer.ffn if self.ffn is None else min(self.ffn, layer.ffn),
                layer.attention,
            )
            for layer in shape.layers
        )
        return replace(shape, layers=tuple(layers))

    def allocate(self, orders: RemovalOrders, shape: Shape, cost: Cost, budget: float) -> Shape:
        """Decide how many heads and neurons each layer keeps.

        Args:
            orders: In which order each layer loses heads and neurons.
            shape: Shape to prune.
            cost: Cost of shapes.
            budget: Most that the result may cost, in the unit of ``cost``.
        """
        if self.heads is not None or self.ffn is not None:
            if wrong := self._too_wide(shape):
                raise InputError(f"prune.{wrong}")
            return self.uniform(shape)
        parts = _parts(orders, shape, cache(cost), self.ffn_multiple)
        allocated = allocate(shape, parts, lambda shapes: cost.many(shapes)[:, 0].tolist(), budget)
        if allocated is not None:
            return allocated
        raise InputError(f"prune: {self._too_tight(cost, budget, smallest(shape, parts))}")

    def _too_wide(self, shape: Shape) -> str | None:
        """Return the message for more heads or neurons than the model has; None if it has enough."""
        for name, goal in (("heads", self.heads), ("ffn", self.ffn)):
            most = max((getattr(layer, name) for layer in shape.layers), default=0)
            if goal is not None and goal > most:
                return f"{name}: the model has {most} in a layer, got {goal}; use at most {most}"
        return None

    def _too_tight(self, cost: Cost, budget: float, least: Shape) -> str:
        """Return the message for a goal that even the smallest shape misses."""
        fact = cost(least)
        return (
            f"the goal of {budget:.4g} {fact.unit} is below the {fact.value:.4g} of {least}, the smallest that "
            f"{'the latency data know' if self.profile else 'sees its text'}; keep fewer layers or ask for less"
        )

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why no cut of a model of this shape meets the goal; None if one may.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: The services that ``apply`` gets; the teacher may not be there yet.
            earlier: The steps in between.
        """
        shape = before = candidate.model.shape
        if self.layers is not None:
            if self.layers > shape.depth:
                return f"layers: the model has {shape.depth} layers, got {self.layers}; use at most {shape.depth}"
            if len(set(shape.layers)) > 1:
                return None
            shape = replace(shape, layers=shape.layers[: self.layers])
        if all(goal is None for goal in (self.speedup, self.latency_ms, self.keep, self.size_mb)):
            return self._too_wide(shape)
        cost = self.cost_of(candidate, context)
        budget = self.budget(cost, before if context.teacher is None else self.whole(before, context))
        parts = [Part(*part, [0.0] * len(part[-1])) for part in _widths(shape, cache(cost), self.ffn_multiple)]
        least = smallest(shape, parts)
        return self._too_tight(cost, budget, least) if cost(least).value > budget * (1 + TOLERANCE) else None


def _parts(orders: RemovalOrders, shape: Shape, cost: ShapeCost, multiple: int) -> list[Part]:
    """Return attention and feed-forward of every layer: their widths, and the score lost at each."""
    order = {"heads": orders.heads, "ffn": orders.ffn}
    return [
        Part(layer, name, widths, [order[name][layer].loss(width) for width in widths])
        for layer, name, widths in _widths(shape, cost, multiple)
    ]


def _widths(shape: Shape, cost: ShapeCost, multiple: int) -> Iterator[tuple[int, str, list[int]]]:
    """Layer, 'heads' or 'ffn', and the widths that each may have.

    The last layer that has heads keeps one: a token that attends nowhere knows nothing of the others.
    """
    seeing = max((index for index, layer in enumerate(shape.layers) if layer.heads), default=None)
    for index, layer in enumerate(shape.layers):
        neurons = sorted({*range(0, layer.ffn + 1, multiple), layer.ffn})
        yield index, "heads", _within_measured(range(int(index == seeing), layer.heads + 1), "heads", shape, cost)
        yield index, "ffn", _within_measured(neurons, "ffn", shape, cost)


def _within_measured(widths: Sequence[int], name: str, shape: Shape, cost: ShapeCost) -> list[int]:
    """Return the widths that the cost model was measured at: those for which it extrapolates no further.

    What is beyond the measured widths looks as cheap as the fit happens to make it, and pruning would run there.
    """

    def outside(width: int) -> set[str]:
        narrowed = (replace(layer, **{name: min(width, getattr(layer, name))}) for layer in shape.layers)
        return set(cost(replace(shape, layers=tuple(narrowed))).detail.get("extrapolates", ()))

    whole = outside(widths[-1])
    return [width for width in widths if width == widths[-1] or outside(width) <= whole]
