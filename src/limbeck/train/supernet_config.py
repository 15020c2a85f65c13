"""What techniques that train a super-network have in common: the space of its slices, their order, what they imitate.

Light to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from annotated_types import Ge

from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.step import RunContext
    from limbeck.model.pruning.slicing import Scores

RANGES = ("layers", "hidden", "heads", "ffn", "head_dim")
LOWEST = {"layers": 3, "hidden": 3, "heads": 3, "ffn": 6}  #: parts of the whole that slices go down to by default
Bounds = tuple[Annotated[int, Ge(0)], Annotated[int, Ge(0)]]


@dataclass(frozen=True)
class SupernetConfig(TrainingConfig):
    """Hyper-parameters of training one model so that its slices of many shapes are good models.

    Attributes:
        layers: Fewest and most layers; slices keep the first.
        hidden: Least and greatest width of the hidden states.
        heads: Fewest and most heads in a layer.
        ffn: Fewest and most feed-forward neurons in a layer.
        head_dim: Least and greatest width of a head.
        hidden_step: Widths of the hidden states are this far apart.
        ffn_step: Numbers of neurons are this far apart.
        head_dim_step: Widths of a head are this far apart.
        per_layer: Every layer has its own numbers of heads and neurons; else all layers have the same.
        rule: Slices of a step (the largest, the smallest and some between; or some drawn, nothing else).
        samples: Slices that are drawn in each step.
        hidden_weight: Weight of the hidden states.
        relations_weight: Weight of the relations.
        sort: Heads, neurons and channels are put in order of importance first.
    """

    layers: Bounds | None = None
    hidden: Bounds | None = None
    heads: Bounds | None = None
    ffn: Bounds | None = None
    head_dim: Bounds | None = None
    hidden_step: Annotated[int, Ge(1)] = 16
    ffn_step: Annotated[int, Ge(1)] = 32
    head_dim_step: Annotated[int, Ge(1)] = 4
    per_layer: bool = False
    rule: Literal["sandwich", "single"] = "sandwich"
    samples: Annotated[int, Ge(1)] = 2
    hidden_weight: Annotated[float, Ge(0)] = 1.0
    relations_weight: Annotated[float, Ge(0)] = 1.0
    sort: bool = True

    evaluations_per_epoch: Annotated[int, Ge(0)] = 0  # the best moment of one slice is not that of the others

    name: ClassVar[str]

    def problems(self) -> list[str]:
        """What fields contradict each other."""
        return [
            f"{name}: the first should be the lower, got {list(bounds)}"
            for name in RANGES
            if (bounds := getattr(self, name)) is not None and bounds[0] > bounds[1]
        ]

    def estimate(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Rough seconds: a slice has about half the work of the whole, and the teacher answers once."""
        slices = self.samples * 0.5 + (1.2 if self.rule == "sandwich" else 0.0)
        return slices * super().estimate(shape, rows, tokens) * 1.3

    @property
    def free(self) -> bool:
        """Whether no range is given."""
        return all(getattr(self, name) is None for name in RANGES)

    def space(self, shape: Shape) -> Space:
        """The space of slices of a model; an error if the model is too small for it."""
        if not all(row.heads and row.ffn for row in shape.layers) or not shape.depth:
            raise InputError(f"{self.name}: slices need layers with heads and neurons, but the model is {shape}")
        heads, ffn = max(row.heads for row in shape.layers), max(row.ffn for row in shape.layers)
        own = {"layers": shape.depth, "hidden": shape.hidden, "heads": heads, "ffn": ffn, "head_dim": shape.head_dim}
        steps = {"hidden": self.hidden_step, "ffn": self.ffn_step, "head_dim": self.head_dim_step}
        ranges = {}
        for name, most in own.items():
            step = steps.get(name, 1)
            lowest = max(1, -(-most // LOWEST[name] // step) * step) if self.free and name in LOWEST else most
            low, high = getattr(self, name) or (min(lowest, most), most)
            if high > most:
                raise InputError(f"{self.name}.{name}: the model has {most}, got {high}; use at most {most}")
            if low < 1:
                raise InputError(f"{self.name}.{name}: should be at least 1, got {low}")
            ranges[name] = Range(low, high, step)
        return Space(**ranges, per_layer=self.per_layer, attention=shape.attention)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Any] = ()) -> str | None:
        """Say why a model of this shape cannot become the super-network; None if it can."""
        if self.free and getattr(candidate.model.config, "space", None):
            return None  # the space is that of the step before
        try:
            self.space(candidate.model.shape)
        except InputError as error:
            return str(error)
        return None

    def arrange(
        self, model: Any, known: ChannelOrder | None, space: Space, scores: Callable[[Any], Scores]
    ) -> ChannelOrder:
        """Put parts in order, the most important first, but what slices were trained in stays as it is.

        Heads and neurons, by ``scores`` of the model; then the channels, where their number varies.
        """
        from limbeck.model.pruning.subnetwork import channel_scores, sort_channels, sort_parts

        heads, channels = (known.heads, known.channels) if known is not None else ((), ())
        if self.sort and known is None:
            heads = sort_parts(model, scores(model))
        whole = known is None or known.space.hidden.low == known.space.hidden.high  # no slice has fewer channels yet
        if self.sort and whole and not channels and space.hidden.low < space.hidden.high:
            channels = tuple(sort_channels(model, channel_scores(model)).tolist())
        return ChannelOrder(space, channels, heads)

    def slice_terms(self, match: tuple[str, ...], teacher: Any, made: ChannelOrder) -> dict[str, tuple[float, Any]]:
        """Weighted terms of the loss of a slice that look inside a teacher, whose parts are put in the same order."""
        import torch

        from limbeck.train.distillation_losses import RelationLoss
        from limbeck.train.layer_distillation import most_heads
        from limbeck.train.supernet_loss import LastHidden

        space, theirs, found = made.space, teacher.shape, dict[str, tuple[float, Any]]()
        order = made.beside(teacher)
        if "hidden" in match:
            channels = torch.tensor(order.channels) if order.channels else None
            found["hidden"] = (
                self.hidden_weight,
                LastHidden(space.hidden.high, theirs.hidden, theirs.depth, channels),
            )
        if "relations" in match:
            last = max(index for index, layer in enumerate(theirs.layers) if layer.heads)
            heads = most_heads(theirs.layers[last].heads * theirs.head_dim, *space.head_dim)
            like = [len(row) for row in order.heads] == [layer.heads for layer in theirs.layers]
            told = order.heads[last] if like else ()
            found["relations"] = (self.relations_weight, RelationLoss(heads, -1, last, told))
        return found


class ChannelOrder(NamedTuple):
    """What the configuration of a super-network says: the space of its slices, and where its parts were before.

    ``channels`` of the hidden states, and ``heads`` by layer: their places in the model that was sorted; empty where
    nothing was.
    """

    space: Space
    channels: tuple[int, ...] = ()
    heads: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, model: Any) -> ChannelOrder | None:
        """What the model's configuration says, if its shape is still the same."""
        config = model.config
        if not (space := getattr(config, "space", None) or getattr(config, "general_space", None)):
            return None
        order = getattr(config, "order", None) or {"channels": (), "heads": ()}
        made = cls(Space.from_json(space), tuple(order["channels"]), tuple(map(tuple, order["heads"])))
        return made if made.space.largest == model.shape else None

    def mark(self, model: Any, answers: bool) -> None:
        """Write it into the configuration of a model; ``answers``: its slices were trained to answer the task."""
        setattr(model.config, "space" if answers else "general_space", self.space.to_json())
        model.config.order = {"channels": list(self.channels), "heads": [list(row) for row in self.heads]}

    def beside(self, teacher: Any) -> ChannelOrder:
        """The order with regard to a teacher: without what stands in the same order there, by the same training."""
        theirs = ChannelOrder.of(teacher)
        if theirs is None:
            return self
        channels = () if theirs.channels == self.channels else self.channels
        return ChannelOrder(self.space, channels, () if theirs.heads == self.heads else self.heads)
