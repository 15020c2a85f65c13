"""From what a user asks of ``limbeck bench`` to what is timed: base model, grid, number formats, lengths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.core import grid
from limbeck.core.grid import Approach, Point
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.engine.bench import Bench
from limbeck.measure.counts import NumberFormat
from limbeck.measure.stand_in import Setting

PIECES = re.compile(r"\w+|[^\w\s]")
BASES = {
    "bert-large-uncased": Shape.uniform(layers=24, hidden=1024, heads=16, ffn=4096),
    "bert-base-uncased": Shape.uniform(layers=12, hidden=768, heads=12, ffn=3072),
}
"""Architectures that need no download."""


def plan(
    base: str,
    asked: Mapping[str, Any],
    approach: Approach,
    target: Target,
    *,
    formats: Sequence[NumberFormat] = ("float",),
    lengths: Sequence[int] = (128,),
    task: str | None = None,
    shared: bool = False,
    timing: Mapping[str, Any] | None = None,
) -> Bench:
    """What to time, from what a user asks for: ``asked`` names the dimensions of :func:`points_of`."""
    shape, style = base_of(base)
    points = points_of(shape, **asked, approach=approach)
    real = lengths_of(task) if task else ()
    settings = tuple(
        Setting(style, target, number_format, length)
        for number_format in formats
        for length in ([round(sum(real) / len(real))] if real else lengths)
    )
    within = shape if shared else None
    made = Bench(points, settings, lengths=real, within=within, **(timing or {}))
    made.check()
    return made


def points_of(
    base: Shape,
    layers: Sequence[int] = (),
    hidden: Sequence[int] = (),
    miniatures: bool = False,
    ratios: Sequence[float] = (),
    approach: Approach = "head_num",
) -> tuple[Point, ...]:
    """The points that are asked for; layers and shares of attention given together are taken in pairs."""
    if layers and ratios:
        found = grid.paired(base, layers, ratios, approach)
    else:
        found = grid.depths(base, layers) + grid.attention(base, ratios, approach)
    return tuple(found + grid.widths(base, hidden) + (grid.miniatures() if miniatures else []))


def base_of(source: str) -> tuple[Shape, dict[str, Any]]:
    """Shape and style of a base model: a known architecture, or what a model folder's configuration says."""
    from limbeck.measure.stand_in import style_of
    from limbeck.model.encoder import Style
    from limbeck.model.files import peek, peek_style

    if source in BASES:
        return BASES[source], style_of(Style())
    return peek(source)["shape"], style_of(peek_style(source))


def lengths_of(task: str, samples: int = 40) -> tuple[int, ...]:
    """Tokens of a sample of a task's test texts, spread as they are: in words and marks, for there is no tokenizer."""
    from limbeck.data.sources import load_task
    from limbeck.measure.latency import sample_rows

    loaded = load_task(task)
    split = "test" if "test" in loaded.splits else "train"
    texts = loaded.split(split).texts
    return tuple(len(PIECES.findall(str(texts[row]))) + 2 for row in sample_rows(loaded, split, samples))
