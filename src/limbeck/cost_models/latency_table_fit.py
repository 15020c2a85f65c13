"""Which encoders are timed for a latency table, and the fit of its amounts to their times."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

from limbeck.core.analytic_cost import NumberFormat
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.token_schedule import scheduled_like
from limbeck.cost_models.latency_table import Curve, FewerTokens, LatencyTable, tokens_beyond
from limbeck.errors import InputError

MOST_LAYERS = 6  #: layers of the encoders that are timed; more add nothing but memory
FEW_HEADS, FEW_NEURONS = (1 / 12, 1 / 3, 1), (1 / 8, 1 / 2, 1)
"""Shares of heads and neurons that are measured with fewer tokens, among those that are with all."""
Widths = tuple[tuple[int, ...], tuple[int, ...]]
"""Measured numbers of heads and of neurons."""


def nodes(full: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Widths to measure: 0, 1 at least, and the given shares of the full width.

    >>> nodes(12, (0.25, 0.5, 1))
    (0, 3, 6, 12)
    """
    return tuple(sorted({0, *(max(1, round(full * share)) for share in shares)}))


def head_nodes(full: int) -> tuple[int, ...]:
    """Return the numbers of heads to measure."""
    return nodes(full, (1 / 12, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1))


def ffn_nodes(full: int) -> tuple[int, ...]:
    """Return the numbers of neurons to measure."""
    return nodes(full, (1 / 32, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1))


def last_nodes(full: int) -> tuple[int, ...]:
    """Return the widths of the last layer to measure."""
    return nodes(full, (1 / 12, 1))


def deepest(full: Shape) -> Shape:
    """Return the largest shape that the table of a full one is fitted to: all its heads and neurons in a few layers."""
    heads, ffn = max((row.heads for row in full.layers), default=0), max((row.ffn for row in full.layers), default=0)
    if not heads or not ffn:
        raise InputError(f"no latency table for an encoder without heads or neurons: {full}")
    depth, core = min(full.depth, MOST_LAYERS), _cores(full)[0]
    return Shape.uniform(depth, full.hidden, heads, ffn, head_dim=full.head_dim, attention=core)


def designs(full: Shape, seed: int = 0, ragged: int = 8, held_out: int = 8) -> tuple[list[Shape], list[Shape]]:
    """Choose shapes to fit and shapes to validate on: one dimension varied at a time, and random ragged ones.

    Args:
        full: The largest shape.
        seed: Seed of the ragged shapes.
        ragged: Number of ragged shapes to fit.
        held_out: Number of ragged shapes to validate on.
    """
    largest, cores = deepest(full), _cores(full)
    depth, heads, ffn = largest.depth, largest.layers[0].heads, largest.layers[0].ffn
    few, step = min(depth, 4), 16 if ffn >= 256 else 1  # 16: kernels are fastest at such widths, and pruning keeps them

    def same(layers: int, heads: int, ffn: int, core: str = cores[0]) -> Shape:
        return Shape.uniform(layers, full.hidden, heads, ffn, head_dim=full.head_dim, attention=core)

    shapes = [same(few, width, ffn // 2, core) for core in cores for width in head_nodes(heads)]
    shapes += [same(few, heads // 2, width) for width in ffn_nodes(ffn)]
    shapes += [largest, same(depth, 0, 0)]
    shapes += [same(1, width, ffn // 2, core) for core in cores for width in last_nodes(heads)]
    shapes += [same(1, heads // 2, width) for width in last_nodes(ffn)]
    rng = random.Random(seed)

    def sample() -> Shape:
        widths = [(rng.randint(0, heads), rng.randrange(0, ffn + 1, step)) for _ in range(depth)]
        rows = [LayerShape(*both, cores[index % len(cores)]) for index, both in enumerate(widths)]
        return Shape(full.hidden, full.head_dim, tuple(rows[: rng.randint(max(1, depth - 2), depth)]))

    fitted = list(dict.fromkeys([*shapes, *(sample() for _ in range(ragged))]))
    validated = [sample() for _ in range(held_out)]
    if not full.tokens:
        return fitted, validated
    scheduled = [scheduled_like(sample(), full) for _ in range(ragged)]
    fitted = list(dict.fromkeys([*fitted, *_fewer_tokens(full, heads, ffn), *scheduled]))
    return fitted, [scheduled_like(shape, full) if index % 2 else shape for index, shape in enumerate(validated)]


def _fewer_tokens(full: Shape, heads: int, ffn: int) -> list[Shape]:
    """Choose shapes whose first layer passes on as few tokens as the last layer of ``full`` reads.

    Args:
        full: The largest shape.
        heads: Most heads of a layer.
        ffn: Most neurons of a layer.
    """
    share, few, cores = full.token_shares[-1][0], min(full.depth, MOST_LAYERS, 4), _cores(full)

    def after(judges: int, layers: int, heads: int, ffn: int, core: str = "softmax") -> Shape:
        later = Shape.uniform(layers, full.hidden, heads, ffn, head_dim=full.head_dim, attention=core).layers
        return Shape(full.hidden, full.head_dim, (LayerShape(judges, 0, tokens=share), *later))

    shapes = [after(1, few, width, ffn // 2, core) for core in cores for width in nodes(heads, FEW_HEADS)]
    shapes += [after(1, few, heads // 2, width) for width in nodes(ffn, FEW_NEURONS)]
    shapes += [after(1, 1, width, ffn // 2, core) for core in cores for width in last_nodes(heads)]
    shapes += [after(1, 1, heads // 2, width) for width in last_nodes(ffn)]
    return [*shapes, after(heads, few, heads, ffn), after(heads, 1, heads, ffn)]


def _amounts(width: int, widths: Sequence[int]) -> list[float]:
    """Return the fraction, 0 to 1, of each step between neighboring measured widths that a width covers."""
    steps = pairwise(widths)
    return [min(max((width - low) / (high - low), 0.0), 1.0) for low, high in steps]


class _Columns:
    """The amounts that a shape's latency is the sum of.

    A constant, layers but the last, and what they and the last layer have of every step between neighboring measured
    widths. Where layers pass on fewer tokens, what they would have with the least share of tokens comes besides, and
    the first columns count by how many tokens more they read; so fewer tokens are never predicted to be slower.

    Args:
        full: The largest shape.
        all_tokens: Whether all tokens are read at the end: each is answered, or they are averaged.
    """

    def __init__(self, full: Shape, all_tokens: bool) -> None:
        self.full, self.all_tokens, self.cores = full, all_tokens, _cores(full)
        heads, ffn = max(row.heads for row in full.layers), max(row.ffn for row in full.layers)
        last = (last_nodes(heads), last_nodes(ffn))
        self.widths = ((head_nodes(heads), ffn_nodes(ffn)), last)
        self.few_widths = ((nodes(heads, FEW_HEADS), nodes(ffn, FEW_NEURONS)), last)
        self.share = full.token_shares[-1][0]

    def of(self, shape: Shape) -> list[float]:
        """Return the amounts of a shape."""
        inner, last = (self._parts(LayerShape(0, 0), widths, (1.0, 1.0)) for widths in self.widths)
        few_inner, few_last = (self._parts(LayerShape(0, 0), widths, (1.0, 1.0)) for widths in self.few_widths)
        layers, few_layers, judges, judging_heads = 0.0, 0.0, 0.0, 0.0
        for index, (row, (read, left)) in enumerate(zip(shape.layers, shape.token_shares, strict=True)):
            is_last = index == shape.depth - 1
            more, run = tokens_beyond(read, left, self.share, last=is_last, all_tokens=self.all_tokens)
            parts, few = (
                self._parts(row, self.widths[is_last], (more, run)),
                self._parts(row, self.few_widths[is_last], (1.0, 1.0)),
            )
            if is_last:
                last, few_last = last + parts, few_last + few
            else:
                inner, few_inner, layers, few_layers = inner + parts, few_inner + few, layers + more, few_layers + 1
            judges, judging_heads = judges + (left < read), judging_heads + (left < read) * row.heads * read
        amounts = [1.0, layers, *inner.tolist(), *last.tolist()]
        if not self.full.tokens:
            return amounts
        return [*amounts, few_layers, *few_inner.tolist(), *few_last.tolist(), judges, judging_heads]

    def _parts(self, row: LayerShape, widths: Widths, weights: tuple[float, float]) -> np.ndarray:
        """Return the fraction of each step that a layer covers: of the heads with each core, and of the neurons."""
        head_widths, ffn_widths = widths
        by_core = [_amounts(row.heads if row.attention == core else 0, head_widths) for core in self.cores]
        heads, ffn = np.array(list(chain(*by_core))), np.array(_amounts(row.ffn, ffn_widths))
        return np.concatenate([weights[0] * heads, weights[1] * ffn])

    def curves(self, steps: list[float], widths: Widths) -> tuple[dict[str, Curve], Curve]:
        """Take the increments of a layer from the front of ``steps``; return attention by core, and feed-forward."""

        def curve(each: tuple[int, ...]) -> Curve:
            increases = [steps.pop(0) for _ in each[1:]]
            return Curve(each, (0.0, *np.cumsum(increases).tolist()))

        return {core: curve(widths[0]) for core in self.cores}, curve(widths[1])


def fit(
    full: Shape,
    shapes: Sequence[Shape],
    times: np.ndarray,
    target: str,
    number_format: NumberFormat,
    seq_len: int,
    *,
    all_tokens: bool = False,
) -> LatencyTable:
    """Fit a table by least squares of the relative error, with no negative increment.

    Args:
        full: The largest shape.
        shapes: Measured shapes.
        times: Their latencies in seconds [shapes].
        target: Description of the target.
        number_format: Number format of the measured encoders.
        seq_len: Tokens in a text.
        all_tokens: Whether all tokens are read at the end: each is answered, or they are averaged.
    """
    from scipy.optimize import nnls

    columns = _Columns(full, all_tokens)
    relative = np.array([columns.of(shape) for shape in shapes]) / times[:, None]
    constant, layer, *steps = nnls(relative, np.ones(len(shapes)))[0].tolist()
    curves = [columns.curves(steps, widths) for widths in columns.widths]
    fewer = None
    if full.tokens:
        few_layer = steps.pop(0)
        few = [columns.curves(steps, widths) for widths in columns.few_widths]
        fewer = FewerTokens(
            columns.share, all_tokens, few_layer, *few[0], *few[1], judge=steps[0], judging_head=steps[1]
        )
        layer += few_layer
        curves = [
            ({core: heads[core] + few_heads[core] for core in heads}, ffn + few_ffn)
            for (heads, ffn), (few_heads, few_ffn) in zip(curves, few, strict=True)
        ]
    (attention_curves, ffn_curve), (last_curves, last_ffn) = curves
    parts_of_all = (attention_curves, ffn_curve, last_curves, last_ffn)
    widths = (full.hidden, full.head_dim)
    return LatencyTable(*widths, constant, layer, *parts_of_all, target, number_format, seq_len, fewer=fewer)


def _cores(shape: Shape) -> list[str]:
    """Return the attention cores of a shape in the order of their first layers."""
    return list(dict.fromkeys(row.attention for row in shape.layers))
