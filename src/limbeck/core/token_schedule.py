"""Schedules of the tokens that layers pass on: which models can have one, and the gentlest within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from limbeck.core.model import EncoderStyle
from limbeck.core.shape import Shape, token_share
from limbeck.errors import InputError

STEPS = 1000
"""Ratios that are tried, below 1."""


def style_problem(style: EncoderStyle) -> str | None:
    """Return why layers of a model that computes like this cannot read fewer tokens; None if they can."""
    if style.pos_att_type:
        return (
            f"{style.family} scores the distances of all tokens in order (disentangled attention), so none can be left "
            "out; use prune, or a model without them"
        )
    if style.masks_queries:
        return f"{style.family} also masks the queries of padding, by the whole text's mask; use prune"
    return None


def schedule_problem(shape: Shape, style: EncoderStyle) -> str | None:
    """Return why layers of a model cannot pass on fewer tokens; None if they can.

    Args:
        shape: Shape of the encoder.
        style: How it computes.
    """
    if shape.depth < 2:
        return f"needs at least two layers, for after the last one no token costs anything, got {shape}"
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


def shares_problem(shares: Sequence[float]) -> str | None:
    """Return why these shares after each layer are no schedule; None if they are, or there are none."""
    for index, (low, high) in enumerate(pairwise(shares), 1):
        if high > low:
            return f"schedule: tokens do not come back, so no share may rise, but share {index} does, {low} to {high}"
    if shares and min(shares) == 1:
        return "schedule: all tokens go on after every layer, which changes nothing; give shares below 1"
    return None


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


def choosing_layers(shape: Shape) -> tuple[int, ...]:
    """Return the layers that can leave tokens behind: with softmax attention over all of them, but for the last.

    >>> choosing_layers(Shape.uniform(layers=4, hidden=8, heads=2, ffn=16).with_layer(1, attention="local:8"))
    (0, 2)
    """
    rows = enumerate(shape.layers[:-1])
    return tuple(index for index, layer in rows if layer.heads and layer.attention == "softmax")


def even_exponents(depth: int) -> tuple[float, ...]:
    """Return the exponents of the schedule in which every layer passes on the same share of the tokens that it reads.

    After the last layer nothing is left to save, so it passes on what it reads.

    >>> even_exponents(4)
    (1.0, 2.0, 3.0, 3.0)
    """
    return tuple(float(min(index + 1, depth - 1)) for index in range(depth))


def scheduled(shape: Shape, exponents: Sequence[float], ratio: float) -> Shape:
    """Return a shape whose layers pass on powers of a ratio; layers that passed on fewer tokens before still do.

    Args:
        shape: The shape.
        exponents: The power of each layer, never falling: 0 passes on all tokens.
        ratio: Above 0 and at most 1; the less, the stricter is the schedule.

    >>> scheduled(Shape.uniform(layers=3, hidden=8, heads=2, ffn=16), (0, 2, 2), 0.5).tokens
    (1.0, 0.25, 0.25)
    """
    shares = (max(1e-3, round(ratio**exponent, 3)) for exponent in exponents)
    return shape.with_tokens(*(min(layer.tokens, share) for layer, share in zip(shape.layers, shares, strict=True)))


def geometric(shape: Shape, ratio: float) -> Shape:
    """Return a shape in which every layer passes on the same share of the tokens that it reads.

    Args:
        shape: The shape.
        ratio: The share, above 0 and at most 1.

    >>> geometric(Shape.uniform(layers=3, hidden=8, heads=2, ffn=16), 0.5).tokens
    (0.5, 0.25, 0.25)
    """
    return scheduled(shape, even_exponents(shape.depth), ratio)


def within_budget(
    shape: Shape, cost: Callable[[Shape], float], budget: float, exponents: Sequence[float] | None = None
) -> Shape | None:
    """Return the shape with the gentlest schedule of these exponents whose cost is within a budget.

    Args:
        shape: The shape, which costs more.
        cost: Cost of a shape, in any unit; less with fewer tokens.
        budget: The most that it may cost.
        exponents: As for :func:`scheduled`; unless given, every layer passes on the same share of what it reads.

    Returns:
        The shape; None if even the strictest schedule costs more.
    """
    powers = even_exponents(shape.depth) if exponents is None else exponents
    low, high = 0, STEPS  # low is within the budget, once it is above 0; high is beyond it
    while high - low > 1:
        middle = (low + high) // 2
        if cost(scheduled(shape, powers, middle / STEPS)) <= budget:
            low = middle
        else:
            high = middle
    return scheduled(shape, powers, low / STEPS) if low else None


def within_share(
    shape: Shape, cost: Callable[[Shape], float], keep: float, exponents: Sequence[float] | None = None
) -> Shape:
    """Return the shape with the gentlest schedule of these exponents that keeps a share of the cost.

    Args:
        shape: The shape.
        cost: As for :func:`within_budget`.
        keep: Share of the shape's cost.
        exponents: As for :func:`within_budget`.

    Raises:
        InputError: Even the strictest schedule costs more.
    """
    whole = cost(shape)
    if (fewer := within_budget(shape, cost, keep * whole, exponents)) is not None:
        return fewer
    least = cost(with_schedule(shape, (0.001,) * shape.depth)) / whole
    raise InputError(
        f"keep: {keep:g} is below the {least:.3g} that is left with one token after the first layer; use at least "
        "that, and prune besides"
    )
