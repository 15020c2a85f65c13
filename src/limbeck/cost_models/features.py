"""The components of a shape's latency as columns: many shapes at once, without a loop over layers.

With n tokens per text, b texts and m = b n tokens per call, d the hidden width, a = heads x head width, f the neurons,
an encoder's time is taken to be the sum of these operations, each at its own price (:func:`design`):

* once per call: one; m d (embeddings); b d^2 (the head);
* every layer but the last: one; whether it has attention; whether it has neurons; m d (norms); 4 m d a (the four
  projections); 2 m n a (scores and contexts: the terms in n^2); m n heads (softmax); 2 m d f; m f (activation);
* the last layer: likewise, but an exported classifier needs its first token alone, so the projections count
  b d a (3 n + 1), and the neurons b d f and b f. Where every token is answered, it is a layer like the others.
* every layer whose core is not softmax: 2 m r a, where a token takes part in r products (``analytic_cost.reach``), in
  place of the terms in n^2 and of softmax; each core at a price of its own.

The prices are found by least squares of the relative error, none negative. Shapes of one setting share n and b, so that
columns such as m n a and m n heads are told apart only where the head width varies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from limbeck.core.analytic_cost import reach
from limbeck.core.shape import Shape
from limbeck.measure.dummy_model import Setting

TERMS = (
    "call",
    "embeddings",
    "head",
    "layers",
    "attentions",
    "feed-forwards",
    "norms",
    "projections",
    "scores and contexts",
    "softmax",
    "feed-forward products",
    "activations",
    "last attention",
    "last feed-forward",
    "last projections",
    "last scores and contexts",
    "last softmax",
    "last feed-forward products",
    "last activations",
    "linformer attention",
    "window attention",
    "kernel attention",
)
"""The columns of :func:`design`."""
LINEAR = ("linformer", "window", "kernel")


@dataclass(frozen=True)
class Columns:
    """Shapes as arrays: hidden, head_dim, depth [shapes]; heads, ffn [shapes, layers], 0 beyond a shape's depth.

    ``linear``: for each core but softmax, heads times the products that a token takes part in [shapes, layers]; nothing
    where no shape has it. ``linear_first``: likewise where only the first token attends.
    """

    hidden: np.ndarray
    head_dim: np.ndarray
    depth: np.ndarray
    heads: np.ndarray
    ffn: np.ndarray
    linear: Mapping[str, np.ndarray] = field(default_factory=dict)
    linear_first: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def exists(self) -> np.ndarray:
        """Whether a shape has that layer [shapes, layers]."""
        return np.arange(self.heads.shape[1]) < self.depth[:, None]

    @cached_property
    def inner(self) -> np.ndarray:
        """Whether a shape has that layer and it is not its last [shapes, layers]."""
        return np.arange(self.heads.shape[1]) < self.depth[:, None] - 1


def columns_of(shapes: Sequence[Shape]) -> Columns:
    """Convert many shapes to arrays."""
    count = len(shapes)
    stacks = [shape.layers for shape in shapes]
    depth = np.fromiter(map(len, stacks), np.int64, count)
    rows = [row for stack in stacks for row in stack]
    exists = np.arange(depth.max(initial=0)) < depth[:, None]
    heads, ffn = np.zeros(exists.shape), np.zeros(exists.shape)
    heads[exists] = [row.heads for row in rows]
    ffn[exists] = [row.ffn for row in rows]
    hidden = np.fromiter((shape.hidden for shape in shapes), float, count)
    widths = np.fromiter((shape.head_dim for shape in shapes), float, count)
    names = {attention.partition(":")[0] for attention in {row.attention for row in rows}} - {"softmax"}
    owners = np.repeat(widths, depth) if names else widths

    def products(name: str, first_only: bool) -> np.ndarray:
        counts = np.zeros(exists.shape)
        counts[exists] = [
            row.heads * reach(name, row.core[1], 0.0, width, first_only) if row.core[0] == name else 0.0
            for row, width in zip(rows, owners, strict=True)
        ]
        return counts

    linear, first = ({name: products(name, first_only) for name in names} for first_only in (False, True))
    return Columns(hidden, widths, depth, heads, ffn, linear, first)


def kinds(shapes: Iterable[Shape]) -> set[str]:
    """Return the names of the attention cores of some shapes; a layer without heads has none."""
    words = {row.attention for shape in shapes for row in shape.layers if row.heads}
    return {word.partition(":")[0] for word in words}


def design(columns: Columns, setting: Setting) -> np.ndarray:
    """Count every kind of operation [shapes, TERMS]."""
    texts, length = setting.target.batch, setting.seq_len
    tokens = texts * length
    d, ones = columns.hidden, np.ones(len(columns.hidden))
    inner = columns.exists if setting.reads_all else columns.inner
    last = columns.exists & ~inner

    def of(layers: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sum over a selection of layers: layers with heads, layers with neurons; heads; neurons [shapes]."""
        heads, ffn = columns.heads * layers, columns.ffn * layers
        return (heads > 0).sum(1), (ffn > 0).sum(1), heads.sum(1), ffn.sum(1)

    linear = np.sum([columns.linear.get(name, np.zeros_like(columns.heads)) for name in LINEAR], axis=0)
    soft = columns.heads * (linear == 0)
    attentions, forwards, heads, ffn = of(inner)
    last_attention, last_forward, last_heads, last_ffn = of(last)
    width, last_width = heads * columns.head_dim, last_heads * columns.head_dim
    soft_heads, last_soft_heads = (soft * inner).sum(1), (soft * last).sum(1)
    soft_width, last_soft_width = soft_heads * columns.head_dim, last_soft_heads * columns.head_dim
    count = inner.sum(1)
    terms = [ones, tokens * d, texts * d * d, count, attentions, forwards, count * tokens * d]
    terms += [4 * tokens * d * width, 2 * tokens * length * soft_width, tokens * length * soft_heads]
    terms += [2 * tokens * d * ffn, tokens * ffn, last_attention, last_forward]
    terms += [texts * d * last_width * (3 * length + 1), 2 * tokens * length * last_soft_width]
    terms += [tokens * length * last_soft_heads, 2 * texts * d * last_ffn, texts * last_ffn]
    none = np.zeros(len(d))
    terms += [
        2 * tokens * columns.head_dim * (columns.linear[name] * inner + columns.linear_first[name] * last).sum(1)
        if name in columns.linear
        else none
        for name in LINEAR
    ]
    return np.stack(terms, axis=1).astype(float)


def fit_additive(matrix: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Fit the seconds of each kind of operation [terms]: least squares of the relative error, none negative."""
    from scipy.optimize import nnls

    scale = matrix.mean(axis=0)
    scale = np.where(scale > 0, scale, 1.0) / seconds.mean()  # prices near one, whatever the unit
    relative = matrix / scale / seconds[:, None]
    prices: np.ndarray = nnls(relative, np.ones(len(seconds)))[0] / scale
    return prices


def additive(matrix: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Predict seconds by the additive model [shapes], summed row by row: no shape's figure depends on the others."""
    seconds: np.ndarray = (matrix * prices).sum(axis=1)
    return seconds


SHAPE_FEATURES = (
    "layers",
    "hidden",
    "head width",
    "most heads",
    "fewest heads",
    "unevenness of heads",
    "most neurons",
    "fewest neurons",
    "unevenness of neurons",
    "last heads",
    "last neurons",
    "operations",
)
"""The columns of :func:`shape_features`."""


def shape_features(columns: Columns, matrix: np.ndarray) -> np.ndarray:
    """Describe shapes by features [shapes, SHAPE_FEATURES]: outside their measured ranges a prediction extrapolates.

    Unevenness is the standard deviation over the layers as a share of their mean.
    """
    exists, depth = columns.exists, np.maximum(columns.depth, 1)
    where = np.arange(len(depth))
    features = [columns.depth, columns.hidden, columns.head_dim]
    lasts = []
    for widths in (columns.heads, columns.ffn):
        mean = widths.sum(1) / depth
        deviation = np.sqrt((((widths - mean[:, None]) * exists) ** 2).sum(1) / depth)
        uneven = np.round(deviation / np.where(mean > 0, mean, 1.0), 9)
        features += [widths.max(1, initial=0), widths.min(1, initial=np.inf, where=exists), uneven]
        lasts.append(widths[where, depth - 1] if widths.shape[1] else np.zeros(len(depth)))
    features = [np.where(np.isfinite(column), column, 0.0) for column in features]
    names = ("projections", "feed-forward products", "last projections", "last feed-forward products")
    operations = sum(matrix[:, TERMS.index(name)] for name in names)
    return np.stack([*features, *lasts, operations], axis=1).astype(float)
