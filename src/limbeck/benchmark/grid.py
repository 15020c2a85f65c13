"""Grids of architectures, dimensions varied one at a time or jointly: what ``limbeck bench`` times and trains.

The dimensions are those of elastic BERTs: depth, hidden width with heads that scale with it, the 24 BERT miniatures
(Turc et al., 2019, arXiv:1908.08962), and the share of the attention that is kept, by one of three approaches:

``head_num``: fewer heads, each as wide as before. ``head_size_1``: as many heads, each narrower, and each keeps its own
leading channels. ``head_size_2``: as many heads, each narrower, but the leading channels of the whole attention are
kept and split anew into that many heads, so every head but the first starts from other channels than before. The last
two are the same shape and take the same time; they differ in the weights that a slice of a trained model begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from limbeck.core.shape import Shape, attention_core
from limbeck.errors import InputError

Approach = Literal["head_num", "head_size_1", "head_size_2"]
MINIATURE_LAYERS, MINIATURE_WIDTHS = (2, 4, 6, 8, 10, 12), (128, 256, 512, 768)
HEAD_WIDTH = 64  #: of the miniatures
WIDTHS_DEPTH = 12  #: layers where the hidden width alone varies


@dataclass(frozen=True)
class Point:
    """One architecture of a grid: where it stands in it, and its shape.

    Attributes:
        group: The list of the grid that it comes from.
        label: Its name among the others of the group.
        shape: The architecture.
        ratio: Share of the attention that is kept.
        approach: What that share leaves.
        checkpoint: Hub name of pretrained weights of exactly this architecture, where there are any.
    """

    group: str
    label: str
    shape: Shape
    ratio: float | None = None
    approach: Approach | None = None
    checkpoint: str | None = None


def depths(base: Shape, layers: Sequence[int]) -> list[Point]:
    """Return the base with other numbers of layers."""
    return [Point("layers", _layers(count), deepened(base, count)) for count in layers]


def widths(base: Shape, hidden: Sequence[int]) -> list[Point]:
    """Return the base, its first 12 layers at most, with other hidden widths.

    Heads keep their width, so their number scales, as do the neurons.

    >>> [str(point.shape) for point in widths(Shape.uniform(24, 128, 2, 512), [64, 256])]
    ['12x64 heads 1 of 64 ffn 256', '12x256 heads 4 of 64 ffn 1024']
    """
    shallow = deepened(base, min(base.depth, WIDTHS_DEPTH))
    return [Point("hidden", f"hidden {width}", widened(shallow, width)) for width in hidden]


def miniatures(layers: Sequence[int] = MINIATURE_LAYERS, hidden: Sequence[int] = MINIATURE_WIDTHS) -> list[Point]:
    """Return the BERT miniatures: heads of 64 channels, four times as many neurons as channels; all are pretrained.

    >>> miniatures([2], [128])[0].checkpoint
    'google/bert_uncased_L-2_H-128_A-2'
    """
    points = []
    for count, width in product(layers, hidden):
        heads = width // HEAD_WIDTH
        shape = Shape.uniform(count, width, heads, 4 * width)
        checkpoint = f"google/bert_uncased_L-{count}_H-{width}_A-{heads}"
        points.append(Point("miniatures", f"L{count} H{width}", shape, checkpoint=checkpoint))
    return points


def cores(base: Shape, names: Sequence[str]) -> list[Point]:
    """Return the base with other attention cores in all layers.

    >>> [(point.label, str(point.shape)) for point in cores(Shape.uniform(2, 64, 2, 128), ["linformer"])]
    [('linformer:256', '2x64 heads 2 of 32 ffn 128 linformer:256')]
    """
    return [Point("cores", name, base.with_attention(name)) for name in dict.fromkeys(map(attention_core, names))]


def attention(base: Shape, ratios: Sequence[float], approach: Approach) -> list[Point]:
    """Return the base with a share of its attention.

    Args:
        base: Shape of the base model.
        ratios: Shares of the attention to keep, each in (0, 1].
        approach: What is reduced: the number of heads, or the channels of each.
    """
    return [
        Point("attention", f"attention {ratio:g}", narrowed(base, ratio, approach), ratio, approach) for ratio in ratios
    ]


def paired(base: Shape, layers: Sequence[int], ratios: Sequence[float], approach: Approach) -> list[Point]:
    """Pair depths and shares of attention: the first depth with the first share, and so on.

    Args:
        base: Shape of the base model.
        layers: Numbers of layers.
        ratios: Shares of the attention to keep, as many as there are depths.
        approach: What is reduced: the number of heads, or the channels of each.
    """
    if len(layers) != len(ratios):
        raise InputError(
            f"layers and attention_ratio are taken in pairs, so both lists should be equally long; got {len(layers)} "
            f"({', '.join(map(str, layers))}) and {len(ratios)} ({', '.join(f'{ratio:g}' for ratio in ratios)})"
        )
    return [
        Point(
            "layers and attention",
            f"{_layers(count)}, attention {ratio:g}",
            narrowed(deepened(base, count), ratio, approach),
            ratio,
            approach,
        )
        for count, ratio in zip(layers, ratios, strict=True)
    ]


def jointly(
    base: Shape, layers: Sequence[int], hidden: Sequence[int], ratios: Sequence[float], approach: Approach
) -> list[Point]:
    """Return every combination of the given dimensions, of which there must be at least two.

    >>> found = jointly(Shape.uniform(2, 128, 2, 512), [1, 2], [64, 128], [], "head_num")
    >>> [point.label for point in found]
    ['1 layer, hidden 64', '1 layer, hidden 128', '2 layers, hidden 64', '2 layers, hidden 128']

    Args:
        base: Shape of the base model.
        layers: Numbers of layers; may be empty.
        hidden: Hidden widths; may be empty.
        ratios: Shares of the attention to keep; may be empty.
        approach: What is reduced: the number of heads, or the channels of each.
    """
    if sum(map(bool, (layers, hidden, ratios))) < 2:
        raise InputError("jointly combines two or three of layers, hidden and attention_ratio; give at least two")
    points = []
    for count, width, ratio in product(layers or (None,), hidden or (None,), ratios or (None,)):
        shape, names = base, []
        if count is not None:
            shape, names = deepened(shape, count), [_layers(count)]
        if width is not None:
            shape, names = widened(shape, width), [*names, f"hidden {width}"]
        if ratio is not None:
            shape, names = narrowed(shape, ratio, approach), [*names, f"attention {ratio:g}"]
        points.append(Point("jointly", ", ".join(names), shape, ratio, None if ratio is None else approach))
    return points


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def deepened(base: Shape, layers: int) -> Shape:
    """Return the base with that many layers like its first."""
    if layers < 1:
        raise InputError(f"layers: should be at least 1, got {layers}")
    return replace(base, layers=(base.layers[0],) * layers)


def widened(base: Shape, width: int) -> Shape:
    """Return the base with another hidden width."""
    row = base.layers[0]
    if width < 1 or width % base.head_dim:
        low, high = width // base.head_dim * base.head_dim, (width // base.head_dim + 1) * base.head_dim
        near = high if low < 1 or high - width < width - low else low
        raise InputError(f"hidden: heads are {base.head_dim} wide, which does not divide {width}; use {near}")
    heads, ffn = (round(part * width / base.hidden) for part in (row.heads, row.ffn))
    return Shape.uniform(base.depth, width, max(1, heads), ffn, head_dim=base.head_dim, attention=row.attention)


def narrowed(base: Shape, ratio: float, approach: Approach) -> Shape:
    """Return the base with a share of its attention: of its heads, or of the channels of each.

    >>> base = Shape.uniform(1, 64, 4, 256)
    >>> str(narrowed(base, 0.5, "head_num")), str(narrowed(base, 0.5, "head_size_1"))
    ('1x64 heads 2 of 16 ffn 256', '1x64 heads 4 of 8 ffn 256')

    Args:
        base: Shape of the base model.
        ratio: Share of the attention to keep, in (0, 1].
        approach: What is reduced: the number of heads, or the channels of each.
    """
    if not 0 < ratio <= 1:
        raise InputError(f"attention_ratio: should be above 0 and at most 1, got {ratio:g}")
    if approach == "head_num":
        rows = tuple(replace(row, heads=max(1, round(row.heads * ratio))) for row in base.layers)
        return replace(base, layers=rows)
    return replace(base, head_dim=max(1, round(base.head_dim * ratio)))
