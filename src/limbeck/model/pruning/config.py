"""How far to prune, a group of fields; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.bound import Bound, missing_profile, time_problem
from limbeck.core.student_shape import layer_map
from limbeck.errors import InputError
from limbeck.model.pruning.goals import CostGoal, Goal, UniformGoal

if TYPE_CHECKING:
    from collections.abc import Callable

    from limbeck.core.cost import Cost
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target


STAGES = "with relative_to: input each stage says how much smaller it is than the one before, as in speedup: [2, 1.5]"
"""What to write where the teacher is another model."""
FEWER_TOKENS = "hidden: needs layers that read all tokens of a text; put prune before prune_tokens"
"""Why a model whose layers leave tokens behind keeps its width: their norm is another than that of the rest."""


@dataclass(frozen=True)
class PruningConfig:
    """A goal for the widths of layers, and how many layers and channels stay.

    Attributes:
        speedup: Times as fast, by the model of latency.
        latency_ms: Latency to reach, by that model.
        keep: Fraction of the cost to keep.
        relative_to: Whose latency or cost speedup and keep are parts of: the model's as it comes in, or its teacher's.
        size_mb: Size of the weights to reach, in the number format.
        heads: Heads to keep in every layer.
        ffn: Feed-forward neurons to keep in every layer.
        layers: Whole layers to keep.
        hidden: Channels of the hidden states to keep, from which all layers read and to which they write; beside a
            goal, which the other widths are then chosen for.
        layer_choice: Which layers: evenly spread, the top, the bottom, or those that matter most.
        cost: What a goal counts.
        profile: Latency data of another machine, made there by 'limbeck profile --full': latency is that machine's.
        target: Name of the target that a latency is for, where a recipe has several [default: the first].
        number_format: The format that latency and size are for.
        ffn_multiple: Widths of the feed-forward part that are tried: multiples of this.
    """

    speedup: Annotated[float, Gt(1), Le(1_000)] | None = None
    latency_ms: Annotated[float, Gt(0), Le(10_000_000)] | None = None
    keep: Annotated[float, Gt(0), Le(1)] | None = None
    relative_to: Literal["input", "teacher"] = "input"
    size_mb: Annotated[float, Gt(0), Le(10_000_000)] | None = None
    heads: Annotated[int, Ge(0), Le(10_000)] | None = None
    ffn: Annotated[int, Ge(0), Le(1_000_000)] | None = None
    layers: Annotated[int, Ge(1), Le(1_000)] | None = None
    hidden: Annotated[int, Ge(2), Le(100_000)] | None = None
    layer_choice: Literal["uniform", "top", "bottom", "importance"] = "uniform"
    cost: Literal["latency", "macs", "parameters"] = "latency"
    profile: str | None = None
    target: str | None = None
    number_format: Literal["int8", "float"] = "int8"
    ffn_multiple: Annotated[int, Ge(1), Le(100_000)] = 32

    @property
    def bound(self) -> Bound:
        """The bound on the cost."""
        return Bound(self.latency_ms, self.speedup, self.keep, self.size_mb)

    @property
    def quantity(self) -> Literal["latency", "macs", "parameters", "size"]:
        """What the bound counts; parameters, which need no measurement, where there is none."""
        if self.size_mb is not None:
            return "size"
        return self.cost if self.bound.given or self.cost != "latency" else "parameters"

    @property
    def goal_target(self) -> str | None:
        """Name of the target that a latency is for: '' for the first; None where no latency counts."""
        return (self.target or "") if self.quantity == "latency" else None

    @property
    def narrows(self) -> bool:
        """Whether there is a goal for the widths of layers, and not for their number alone."""
        return bool(self.bound.given) or self.heads is not None or self.ffn is not None

    @property
    def scoring_passes(self) -> int:
        """How often the model is run on calibration texts, forward and back."""
        return (self.narrows or self.layer_choice == "importance") + (self.hidden is not None)

    @property
    def latency_tables(self) -> int:
        """How many latency tables are measured: one for each hidden width."""
        measures = self.quantity == "latency" and self.profile is None
        return measures * (1 if self.hidden is None else 2)

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        goals = [name for name in ("speedup", "latency_ms", "keep", "size_mb") if name in self.bound.given]
        uniform = [name for name, width in (("heads", self.heads), ("ffn", self.ffn)) if width is not None]
        if len(goals) + bool(uniform) > 1:
            return [f"give one goal, got {', '.join(goals + uniform)}"]
        if not self.narrows and self.layers is None and self.hidden is None:
            return ["give a goal: speedup, latency_ms, keep, size_mb, heads and/or ffn, layers, or hidden"]
        if self.cost != "latency" and (self.speedup or self.latency_ms):
            return [time_problem(self.cost)]
        if self.relative_to == "teacher" and not (self.speedup or self.keep):
            return ["relative_to: is for speedup and keep; other goals say by themselves what to reach"]
        if self.profile is not None and self.quantity != "latency":
            return ["profile: holds latencies, so the goal should be speedup, latency_ms, or keep with cost: latency"]
        if self.target is not None and self.quantity != "latency":
            return ["target: is for latencies, so the goal should be speedup, latency_ms, or keep with cost: latency"]
        return []

    def target_problems(self, target: Target) -> dict[str, str]:
        """Return that latencies cannot be measured for a goal where the target is elsewhere."""
        return missing_profile(target, measures=self.quantity == "latency" and self.profile is None)

    def goal(self, cost: Cost, before: Shape, teacher: Shape | None = None, *, ancestor: bool = False) -> Goal:
        """Return the goal for the widths of layers.

        Args:
            cost: Cost of shapes, of this ``quantity``.
            before: Shape of the model as it comes in.
            teacher: Shape of its teacher, for ``relative_to: teacher``.
            ancestor: Whether the model was made from the teacher.

        Raises:
            InputError: The goal is relative to a teacher, and there is none, or it is a model of another shape.
        """
        if not self.bound.given:
            return UniformGoal(self.heads, self.ffn)
        whole = before if self.relative_to == "input" else teacher
        if whole is None:
            raise InputError("relative_to: there is no teacher; put 'finetune' first, or use relative_to: input")
        if message := self._of_another(before, whole, ancestor=ancestor):
            raise InputError(message)
        limit = "the latency data know" if self.profile else "sees its text"
        return CostGoal(cost, self.bound.amount(cost, whole), self.ffn_multiple, limit)

    def _of_another(self, before: Shape, whole: Shape, *, ancestor: bool) -> str | None:
        """Return the message for a latency relative to a model out of which this one was not cut; else None."""
        if self.quantity != "latency" or before.is_part_of(whole, narrower=ancestor):
            return None
        return f"relative_to: the teacher is another model, {whole}, out of which {before} was not cut; {STAGES}"

    def evenly(self, depth: int) -> tuple[int, ...] | None:
        """Return the layers to keep, counted from 0; None where their importance decides.

        Args:
            depth: Layers of the model.

        Raises:
            InputError: The model has fewer.
        """
        assert self.layers is not None
        if message := self._too_deep(depth):
            raise InputError(message)
        if self.layer_choice == "importance":
            return None
        return tuple(layer - 1 for layer in layer_map(self.layer_choice, self.layers, depth))

    def _too_deep(self, depth: int) -> str | None:
        """Return the message for more layers than the model has; None if it has enough."""
        if self.layers is None or self.layers <= depth:
            return None
        return f"layers: the model has {depth} layers, got {self.layers}; use at most {depth}"

    def shortened(self, shape: Shape) -> Shape | None:
        """Return the shape with the layers and channels that stay; None where scores decide, or it is impossible."""
        if self.hidden is not None:
            if self.hidden > shape.hidden:
                return None
            shape = replace(shape, hidden=self.hidden)
        if self.layers is None:
            return shape
        if len(set(shape.layers)) > 1 or self.layers > shape.depth:
            return None
        return replace(shape, layers=shape.layers[: self.layers])

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape where the goal alone decides it; None where scores and measured costs do."""
        shorter = self.shortened(shape)
        return None if shorter is None or self.bound.given else UniformGoal(self.heads, self.ffn).shape(shorter)

    def out_of_reach(
        self, shape: Shape, cost: Callable[[], Cost], teacher: Shape | None, *, ancestor: bool = False
    ) -> str | None:
        """Say why no cut of a model of this shape meets the goal; None if one may.

        Args:
            shape: Shape of the model.
            cost: Returns the cost of shapes, which may have to be measured.
            teacher: Shape of its teacher; None if it is the model itself, or not known yet.
            ancestor: Whether the model was made from the teacher.
        """
        if message := self._too_deep(shape.depth):
            return message
        shorter = self.shortened(shape)
        if shorter is None:
            return None
        if not self.bound.given:
            return UniformGoal(self.heads, self.ffn).out_of_reach(shorter)
        whole = teacher or shape
        if self.relative_to == "teacher" and (message := self._of_another(shape, whole, ancestor=ancestor)):
            return message
        return self.goal(cost(), shape, whole, ancestor=ancestor).out_of_reach(shorter)
