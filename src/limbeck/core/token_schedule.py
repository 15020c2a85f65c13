"""Schedules of the tokens that layers pass on: which models can have one, and the gentlest within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from limbeck.core.model import EncoderStyle
from limbeck.core.shape import Shape, token_share
from limbeck.errors import InputError

STEPS = 1000
"""Ratios between the tokens of two layers that are tried, below 1."""


def style_problem(style: EncoderStyle) -> str | None:
    """Return why layers of a model that computes like this cannot read fewer tokens; None if they can."""
    if style.pos_att_type:
        return (
            f"{style.family} scores the distances of all tokens in order (disentangled attention), so none can be left "
            "out; use prune, or a model without them"
        )
    return None


def schedule_problem(shape: Shape, style: EncoderStyle) -> str | None:
    """Return why layers of a model cannot pass on fewer tokens; None if they can.

    Args:
        shape: Shape of the encoder.
        style: How it computes.
    """
    if problem := style_problem(style):
        return problem
    if shape.with_tokens(*[0.5] * shape.depth).token_shares[-1:] in ((), ((1.0, 1.0),)):
        return (
            f"no layer of {shape}, apart from the last, has softmax attention over all tokens, by which it could "
            "choose those that go on"
        )
    return None


def check_reads_all(shape: Shape, cost: str) -> None:
    """Refuse a shape whose layers pass on fewer tokens, of which a cost knows nothing.

    Args:
        shape: The shape.
        cost: What prices it, for the message.

    Raises:
        InputError: Layers pass on fewer tokens.
    """
    if shape.tokens:
        raise InputError(
            f"{cost} was measured on encoders whose layers read all tokens, unlike {shape}; use cost: macs, or prune "
            "before prune_tokens"
        )


def with_schedule(shape: Shape, shares: Sequence[float]) -> Shape:
    """Return a shape with a schedule.

    Args:
        shape: The shape, perhaps with a schedule already.
        shares: Share of a text's tokens that go on after each layer.

    Raises:
        InputError: There is not one share a layer, or a layer passes on fewer tokens already.

    >>> str(with_schedule(Shape.uniform(layers=2, hidden=8, heads=2, ffn=16), (0.5, 0.25)))
    '2x8 heads 2 of 4 ffn 16 tokens 0.5,0.25'
    """
    if len(shares) != shape.depth:
        raise InputError(f"schedule: has {len(shares)} shares, the model {shape.depth} layers; give one for each")
    for index, (layer, share) in enumerate(zip(shape.layers, shares, strict=True)):
        if token_share(share) > layer.tokens:
            raise InputError(
                f"schedule: layer {index} passes on {layer.tokens:g} of the tokens already, got {share:g}; use at most "
                f"{layer.tokens:g}"
            )
    return shape.with_tokens(*shares)


def scheduled_like(shape: Shape, other: Shape) -> Shape:
    """Return a shape with the schedule of another one; where that is of another depth, of its layers evenly.

    >>> scheduled = Shape.uniform(layers=3, hidden=8, heads=2, ffn=16).with_tokens(0.5, 0.25, 0.2)
    >>> scheduled_like(Shape.uniform(layers=2, hidden=8, heads=2, ffn=16), scheduled).tokens
    (0.5, 0.2)
    """
    if not other.tokens or not shape.depth:
        return shape
    step = (other.depth - 1) / max(1, shape.depth - 1)
    return shape.with_tokens(*(other.tokens[round(index * step)] for index in range(shape.depth)))


def geometric(shape: Shape, ratio: float) -> Shape:
    """Return a shape in which every layer passes on the same share of the tokens that it reads.

    After the last layer nothing is left to save, so it passes on what it reads. Layers that passed on fewer tokens
    before still do.

    Args:
        shape: The shape.
        ratio: The share, above 0 and at most 1.

    >>> geometric(Shape.uniform(layers=3, hidden=8, heads=2, ffn=16), 0.5).tokens
    (0.5, 0.25, 0.25)
    """
    powers = [min(index + 1, shape.depth - 1) for index in range(shape.depth)]
    shares = (max(1e-3, round(ratio**power, 3)) for power in powers)
    return shape.with_tokens(*(min(layer.tokens, share) for layer, share in zip(shape.layers, shares, strict=True)))


def within_budget(shape: Shape, cost: Callable[[Shape], float], budget: float) -> Shape | None:
    """Return the shape with the gentlest geometric schedule whose cost is within a budget.

    Args:
        shape: The shape, which costs more.
        cost: Cost of a shape, in any unit; less with fewer tokens.
        budget: The most that it may cost.

    Returns:
        The shape; None if even a single token after the first layer costs more.
    """
    low, high = 0, STEPS  # low is within the budget, once it is above 0; high is beyond it
    while high - low > 1:
        middle = (low + high) // 2
        if cost(geometric(shape, middle / STEPS)) <= budget:
            low = middle
        else:
            high = middle
    return geometric(shape, low / STEPS) if low else None
