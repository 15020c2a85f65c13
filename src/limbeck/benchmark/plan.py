"""From what a user asks of ``limbeck bench`` to what is timed: base model, grid, number formats, lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from limbeck.benchmark import grid as grids
from limbeck.benchmark.grid import Point
from limbeck.benchmark.options import Grid, Timing
from limbeck.benchmark.run import Bench
from limbeck.core.analytic_cost import NumberFormat
from limbeck.core.shape import Shape, skipped_positions
from limbeck.core.target import Precision, Runtime, Target
from limbeck.core.task import Task
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting
from limbeck.measure.samples import lengths_of

LENGTH = 128  #: tokens in a text, where neither lengths nor a task are given
BASES = {
    "bert-large-uncased": Shape.uniform(layers=24, hidden=1024, heads=16, ffn=4096),
    "bert-base-uncased": Shape.uniform(layers=12, hidden=768, heads=12, ffn=3072),
}
"""Architectures that need no download."""
HALVES: Mapping[Runtime, tuple[Precision, ...]] = {
    "torch": ("float16", "bfloat16"),
    "onnxruntime": ("float16",),
    "tensorrt": ("float16",),
    "openvino": (),
}
"""Half precisions of each runtime."""


def plan(grid: Grid, timing: Timing, task: Task | None = None) -> Bench:
    """Plan what to time.

    Args:
        grid: The architectures.
        timing: Where and how they are timed.
        task: Gives the kind of head, and the lengths where ``timing`` does not.
    """
    shape, style = base_of(grid.base)
    if grid.attention:
        style = style | {"max_positions": positions(style, timing.seq_len)}
    points = tuple(dict.fromkeys(points_of(shape, grid)))
    most = Setting(style, Target()).most_tokens
    real = lengths_of(task, most) if task is not None and not timing.seq_len else ()
    lengths = tuple(dict.fromkeys(timing.seq_len)) or (
        (round(sum(real) / len(real)),) if real else (min(LENGTH, most),)
    )
    fixed = lengths[0] if len(lengths) == 1 and not real else None
    if timing.weight_shared and grid.attention_approach == "head_size_2":
        style = style | {"resplit": True}
    per_token = task is not None and task.task_kind.per_token
    settings = [
        Setting(style, target, form, length, per_token)
        for target, form in _targets(timing, fixed)
        for length in lengths
    ]
    bench = Bench(
        points,
        tuple(settings),
        timing.trials,
        timing.calls,
        timing.warmup_ratio,
        real,
        shape if timing.weight_shared else None,
        memory=bool(grid.attention),
    )
    bench.check()
    return bench


def _targets(timing: Timing, seq_len: int | None) -> Iterator[tuple[Target, NumberFormat]]:
    """Yield every runtime in every format that it has; what none of them has is left in, and refused later."""
    runtimes, usual = tuple(dict.fromkeys(timing.runtime)), (timing.device, timing.threads, timing.batch, seq_len)
    for runtime in runtimes:
        device, threads, batch, length = usual
        target = Target(device, runtime, threads, batch, length, compile=timing.compile and runtime == "torch")
        for form in dict.fromkeys(timing.number_format):
            if form == "int8":
                if runtime != "torch" or runtimes == ("torch",):
                    yield target, form
                continue
            for precision in dict.fromkeys(timing.precision):
                if (
                    precision == "float32"
                    or precision in HALVES[runtime]
                    or not any(precision in HALVES[other] for other in runtimes)
                ):
                    yield replace(target, precision=precision), form


def points_of(base: Shape, grid: Grid) -> tuple[Point, ...]:
    """Return the requested points."""
    layers, hidden, ratios, approach = grid.layers, grid.hidden, grid.attention_ratio, grid.attention_approach
    if grid.all:
        layers, hidden = layers or grids.MINIATURE_LAYERS, hidden or grids.MINIATURE_WIDTHS
    if grid.all and (grid.jointly or ratios):
        other = "--jointly" if grid.jointly else "--attention-ratio"
        raise InputError(f"--all varies depth and width by themselves, beside the miniatures; leave out {other}")
    if grid.jointly:
        points = grids.jointly(base, layers, hidden, ratios, approach)
    elif layers and ratios:
        points = grids.paired(base, layers, ratios, approach) + grids.widths(base, hidden)
    else:
        points = grids.depths(base, layers) + grids.attention(base, ratios, approach) + grids.widths(base, hidden)
    return tuple(
        points + (grids.miniatures() if grid.miniatures or grid.all else []) + grids.cores(base, grid.attention)
    )


def positions(style: dict[str, Any], lengths: Sequence[int]) -> int:
    """Positions that the longest of these texts needs, at least those that there are."""
    longest = max(lengths, default=0) + skipped_positions(style["position_offset"])
    return max(int(style["max_positions"]), longest)


def base_of(source: str) -> tuple[Shape, dict[str, Any]]:
    """Shape and style of a base model: a known architecture, or what a model folder's configuration says."""
    from limbeck.measure.dummy_model import style_of
    from limbeck.model.checkpoints import peek, peek_style
    from limbeck.model.style import Style

    if source in BASES:
        return BASES[source], style_of(Style())
    return peek(source)["shape"], style_of(peek_style(source))
