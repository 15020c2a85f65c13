"""Slices of a super-network, a group of fields: the space of their shapes, their order, what they learn from.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from annotated_types import Ge, Le

from limbeck.core.field_groups import CheckedGroup
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape, check_head_widths
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.pruning.slicing import Scores
    from limbeck.train.objectives import Term

DIVISORS = {"layers": 3, "hidden": 3, "heads": 3, "ffn": 6}  #: the smallest slice has the whole divided by these
Bounds = tuple[Annotated[int, Ge(0), Le(1_000_000)], Annotated[int, Ge(0), Le(1_000_000)]]


@dataclass(frozen=True)
class SupernetConfig(CheckedGroup):
    """The slices of a model that training makes good models, and how they learn.

    Attributes:
        layers: Fewest and most layers; slices keep the first.
        hidden: Least and greatest width of the hidden states.
        heads: Fewest and most heads in a layer.
        ffn: Fewest and most feed-forward neurons in a layer.
        head_dim: Least and greatest width of a head.
        hidden_step: Step between widths of the hidden states.
        ffn_step: Step between numbers of neurons.
        head_dim_step: Step between widths of a head.
        per_layer: Every layer has its own number of heads and neurons; otherwise all layers are alike.
        rule: Slices of a step: the largest, the smallest and random ones (sandwich), or random ones only (single).
        samples: Random slices in each step.
        hidden_weight: Weight of the hidden states.
        relations_weight: Weight of the relations.
        sort: Sort heads, neurons and channels by importance before training.
    """

    layers: Bounds | None = None
    hidden: Bounds | None = None
    heads: Bounds | None = None
    ffn: Bounds | None = None
    head_dim: Bounds | None = None
    hidden_step: Annotated[int, Ge(1), Le(100_000)] = 16
    ffn_step: Annotated[int, Ge(1), Le(100_000)] = 32
    head_dim_step: Annotated[int, Ge(1), Le(10_000)] = 4
    per_layer: bool = False
    rule: Literal["sandwich", "single"] = "sandwich"
    samples: Annotated[int, Ge(1)] = 2
    hidden_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    relations_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    sort: bool = True

    def problems(self) -> list[str]:
        """Return a message for every contradiction between fields."""
        return [
            f"{name}: the first should be the lower, got {list(bounds)}"
            for name, bounds in self.bounds.items()
            if bounds is not None and bounds[0] > bounds[1]
        ]

    @property
    def relative_cost(self) -> float:
        """How long a training step takes beside one of the whole model; a random slice costs about half as much."""
        return (self.samples * 0.5 + (1.2 if self.rule == "sandwich" else 0.0)) * 1.3

    @property
    def bounds(self) -> dict[str, tuple[int, int] | None]:
        """The given ranges by dimension."""
        return {
            "layers": self.layers,
            "hidden": self.hidden,
            "heads": self.heads,
            "ffn": self.ffn,
            "head_dim": self.head_dim,
        }

    @property
    def free(self) -> bool:
        """Whether no range is given."""
        return all(bounds is None for bounds in self.bounds.values())

    def space(self, shape: Shape, step: str) -> Space:
        """Return the space of slices of a model.

        Args:
            shape: Shape of the whole model.
            step: Name of the step, for messages.

        Raises:
            InputError: The model is too small for the given ranges, or its layers pass on fewer tokens.
        """
        if shape.tokens:
            raise InputError(
                f"{step}: slices read all tokens, but layers of the model pass on fewer ({shape}); put prune_tokens "
                "after the search"
            )
        if not all(row.heads and row.ffn for row in shape.layers) or not shape.depth:
            raise InputError(f"{step}: slices need layers with heads and neurons, but the model is {shape}")
        heads, ffn = max(row.heads for row in shape.layers), max(row.ffn for row in shape.layers)
        own = {"layers": shape.depth, "hidden": shape.hidden, "heads": heads, "ffn": ffn, "head_dim": shape.head_dim}
        steps = {"hidden": self.hidden_step, "ffn": self.ffn_step, "head_dim": self.head_dim_step}
        ranges = {}
        for name, most in own.items():
            multiple = steps.get(name, 1)
            lowest = (
                max(1, -(-most // DIVISORS[name] // multiple) * multiple) if self.free and name in DIVISORS else most
            )
            low, high = self.bounds[name] or (min(lowest, most), most)
            if high > most:
                raise InputError(f"{step}.{name}: the model has {most}, got {high}; use at most {most}")
            if low < 1:
                raise InputError(f"{step}.{name}: should be at least 1, got {low}")
            ranges[name] = Range(low, high, multiple)
        return Space(**ranges, per_layer=self.per_layer, attention=shape.attention)

    def impossible(self, model: LimbeckForSequenceClassification, step: str) -> str | None:
        """Explain why the model cannot become a super-network; None if it can.

        Args:
            model: The model.
            step: Name of the step, for messages.
        """
        if self.free and model.space:
            return None  # it has the space of an earlier step
        try:
            space = self.space(model.shape, step)
            check_head_widths(space.head_dim, rotary=bool(model.style.rotary_theta))
        except InputError as error:
            return str(error)
        return None

    def arrange(
        self,
        model: LimbeckForSequenceClassification,
        earlier: ChannelOrder | None,
        space: Space,
        scores: Callable[[LimbeckForSequenceClassification], Scores],
    ) -> ChannelOrder:
        """Sort the parts of a model in place, the most important first; keep the order that slices were trained in.

        Args:
            model: The model that becomes a super-network.
            earlier: Its order, if it already is a super-network.
            space: The space of slices.
            scores: Importance of heads and neurons. Channels are sorted too, if their number varies.

        Returns:
            The space, and the order of the parts.
        """
        from limbeck.model.pruning.subnetwork import channel_scores, sort_channels, sort_parts
        from limbeck.model.sentence_encoder import LimbeckForSentenceEmbedding

        if isinstance(model, LimbeckForSentenceEmbedding) and space.hidden.low < space.hidden.high:
            model.keep_width()
        heads, channels = (earlier.heads, earlier.channels) if earlier is not None else ((), ())
        if self.sort and earlier is None:
            heads = sort_parts(model, scores(model))
        # no slice has fewer channels yet
        full_width = earlier is None or earlier.space.hidden.low == earlier.space.hidden.high
        if self.sort and full_width and not channels and space.hidden.low < space.hidden.high:
            channels = tuple(sort_channels(model, channel_scores(model)).tolist())
        return ChannelOrder(space, channels, heads)

    def slice_terms(
        self, match: tuple[str, ...], teacher: LimbeckForSequenceClassification, order: ChannelOrder
    ) -> dict[str, tuple[float, Term]]:
        """Build the loss terms of a slice that compare hidden layers with the teacher's.

        Args:
            match: What to imitate.
            teacher: The teacher; its parts are sorted like the student's for the comparison.
            order: Space and order of the super-network.

        Returns:
            The terms by name, with their weights.
        """
        import torch

        from limbeck.train.distillation_losses import RelationLoss
        from limbeck.train.layer_distillation import most_heads
        from limbeck.train.supernet_loss import LastHidden

        space, shape = order.space, teacher.shape
        relative = order.relative_to(teacher)
        terms: dict[str, tuple[float, Term]] = {}
        if "hidden" in match:
            channels = torch.tensor(relative.channels) if relative.channels else None
            terms["hidden"] = (
                self.hidden_weight,
                LastHidden(space.hidden.high, shape.hidden, shape.depth, channels),
            )
        if "relations" in match:
            last = max(index for index, layer in enumerate(shape.layers) if layer.heads)
            heads = most_heads(shape.layers[last].heads * shape.head_dim, *space.head_dim)
            same_heads = [len(row) for row in relative.heads] == [layer.heads for layer in shape.layers]
            head_order = relative.heads[last] if same_heads else ()
            terms["relations"] = (self.relations_weight, RelationLoss(heads, -1, last, head_order))
        return terms


class ChannelOrder(NamedTuple):
    """The space of a super-network's slices, and the order of its parts; stored in the model's configuration.

    ``channels`` of the hidden states and ``heads`` by layer are the indices that the parts had before they were sorted;
    empty if they were not sorted.
    """

    space: Space
    channels: tuple[int, ...] = ()
    heads: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, model: LimbeckForSequenceClassification) -> ChannelOrder | None:
        """Read the order from a model's configuration; None if there is none, or the model's shape has changed."""
        config = model.config
        if not (space := config.space or config.general_space):
            return None
        stored = config.order or {"channels": (), "heads": ()}
        order = cls(Space.from_json(space), tuple(stored["channels"]), tuple(map(tuple, stored["heads"])))
        return order if order.space.largest == model.shape else None

    def mark(self, model: LimbeckForSequenceClassification, answers: bool) -> None:
        """Write the order to a model's configuration; ``answers``: its slices were trained on the task."""
        if answers:
            model.config.space = self.space.to_json()
        else:
            model.config.general_space = self.space.to_json()
        model.config.order = {"channels": list(self.channels), "heads": [list(row) for row in self.heads]}

    def relative_to(self, teacher: LimbeckForSequenceClassification) -> ChannelOrder:
        """Return the order relative to a teacher: without the parts that have the same order there."""
        other = ChannelOrder.of(teacher)
        if other is None:
            return self
        channels = () if other.channels == self.channels else self.channels
        return ChannelOrder(self.space, channels, () if other.heads == self.heads else self.heads)
