"""How far to prune, a group of fields; imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.bound import Bound, missing_profile, time_problem
from limbeck.core.student_shape import layer_map
from limbeck.core.token_schedule import geometric
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
SLICES = "tokens: slices of a super-network read all tokens; take a slice first, by search"
"""Why a super-network has no schedule."""
AUTO: Literal["auto"] = "auto"
"""The value of a field that is chosen by what comes of it."""
WIDTH_SHARES = (1.0, 0.875, 0.75, 0.625, 0.5)
"""Shares of the hidden width that are tried."""
TOKEN_RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the tokens that each layer passes on, of those that it reads, which are tried beside all tokens."""
HELD_OUT = 512
"""Texts by which results are compared: none of those that they were made with."""


def hidden_widths(width: int) -> tuple[int, ...]:
    """Return the hidden widths that are tried for a model, the widest first.

    Apart from its own, they are multiples of 32, which kernels of matrix products like; of narrow models, of an eighth.

    Args:
        width: That of the model.

    >>> hidden_widths(384), hidden_widths(32)
    ((384, 352, 288, 256, 192), (32, 28, 24, 20, 16))
    """
    unit = max(1, min(32, width // 8))
    rounded = (unit * math.floor(share * width / unit + 0.5) for share in WIDTH_SHARES[1:])
    return tuple(dict.fromkeys([width, *(each for each in rounded if 2 <= each < width)]))


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
            goal, which the other widths are then chosen for. With auto that of several widths whose result differs
            least from the model as it came in, by its answers to texts that were held out.
        tokens: Share of the tokens that each layer passes on, of those that it reads; beside a goal, which the widths
            of layers are then chosen for. With auto that of several shares whose result differs least.
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
    hidden: Annotated[int, Ge(2), Le(100_000)] | Literal["auto"] | None = None
    tokens: Annotated[float, Ge(0.001), Le(1)] | Literal["auto"] | None = None
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
    def chooses(self) -> bool:
        """Whether several results are compared, and the one whose answers differ least is taken."""
        return AUTO in (self.hidden, self.tokens)

    @property
    def held_out(self) -> int:
        """How many texts results are compared by."""
        return HELD_OUT if self.chooses else 0

    @property
    def strictest(self) -> float:
        """The least share of the tokens read that layers may pass on."""
        return min(TOKEN_RATIOS) if self.tokens == AUTO else self.tokens or 1.0

    @property
    def tries(self) -> int:
        """How many results there may be."""
        widths = len(WIDTH_SHARES) if self.hidden == AUTO else 1
        return widths + (len(TOKEN_RATIOS) if self.tokens == AUTO else 0)

    @property
    def scoring_passes(self) -> int:
        """How often the model is run on calibration texts, forward and back; at most, where results are compared."""
        narrower = 0 if self.hidden is None else self.tries - (self.hidden == AUTO)  # one has all channels
        return self.tries * (self.narrows or self.layer_choice == "importance") + narrower

    @property
    def latency_tables(self) -> int:
        """How many latency tables are measured, at most: one for each hidden width."""
        measures = self.quantity == "latency" and self.profile is None
        return measures * (len(WIDTH_SHARES) if self.hidden == AUTO else 1 if self.hidden is None else 2)

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        goals = [name for name in ("speedup", "latency_ms", "keep", "size_mb") if name in self.bound.given]
        uniform = [name for name, width in (("heads", self.heads), ("ffn", self.ffn)) if width is not None]
        if len(goals) + bool(uniform) > 1:
            return [f"give one goal, got {', '.join(goals + uniform)}"]
        if not self.narrows and self.layers is None and self.hidden is None:
            return ["give a goal: speedup, latency_ms, keep, size_mb, heads and/or ffn, layers, or hidden"]
        if problem := self._choice_problem():
            return [problem]
        if self.cost != "latency" and (self.speedup or self.latency_ms):
            return [time_problem(self.cost)]
        if self.relative_to == "teacher" and not (self.speedup or self.keep):
            return ["relative_to: is for speedup and keep; other goals say by themselves what to reach"]
        if self.profile is not None and self.quantity != "latency":
            return ["profile: holds latencies, so the goal should be speedup, latency_ms, or keep with cost: latency"]
        if self.target is not None and self.quantity != "latency":
            return ["target: is for latencies, so the goal should be speedup, latency_ms, or keep with cost: latency"]
        return []

    def _choice_problem(self) -> str | None:
        """Return what is missing beside a choice or a schedule; None if nothing is."""
        if self.hidden == AUTO and not self.bound.given:
            return "hidden: auto weighs channels against heads and neurons; give speedup, latency_ms, keep or size_mb"
        if self.tokens is not None and not self.bound.given:
            return "tokens: is for a goal: speedup, latency_ms, keep or size_mb; for a schedule alone use prune_tokens"
        if self.tokens is not None and self.quantity in ("size", "parameters"):
            return f"tokens: fewer of them do not change what the goal counts ({self.quantity}); leave it out"
        if self.tokens is not None and self.profile is not None:
            return "tokens: latency data know no layers that read fewer; leave out profile, so that a table is measured"
        return None

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
        """Return the shape of the layers, channels and tokens that stay; None where scores decide or none is left."""
        if self.hidden is not None:
            if self.hidden == AUTO or self.hidden > shape.hidden:
                return None
            shape = replace(shape, hidden=self.hidden)
        if self.layers is not None:
            if len(set(shape.layers)) > 1 or self.layers > shape.depth:
                return None
            shape = replace(shape, layers=shape.layers[: self.layers])
        return self.scheduled(shape)

    def scheduled(self, shape: Shape) -> Shape:
        """Return a shape whose layers pass on the share of tokens that is given; all that they read, where none is."""
        return shape if self.tokens is None or self.tokens == AUTO else geometric(shape, self.tokens)

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
