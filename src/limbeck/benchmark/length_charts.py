"""Attention cores against the length of a text: latency and memory as pictures, and from where a linear core pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from limbeck.benchmark.run import Row
from limbeck.report.charts import Frame, log_scale, log_ticks

FRAME = Frame(width=960, height=400, left=64, top=30, right=770, bottom=342)
SOFTMAX = "softmax"


class BreakEven(NamedTuple):
    """The length from which on a core is faster than softmax: ``tokens`` None where it is at no measured length.

    ``within``: whether two measured lengths enclose it, or the core is faster at the shortest already. ``gain`` is how
    many times as fast it is at ``longest``, the longest measured length.
    """

    core: str
    runtime: str
    number_format: str
    tokens: float | None
    within: bool
    gain: float
    longest: int

    def __str__(self) -> str:
        """One line for a person."""
        where = f"{self.core}, {self.runtime} {self.number_format}"
        at = f"{self.gain:.2f} times as fast as softmax at {self.longest:,} tokens"
        if self.tokens is None:
            return f"{where}: slower than softmax at {self.longest:,} tokens; {at}"
        if not self.within:
            return f"{where}: faster at all measured lengths, from {self.tokens:,.0f} tokens on; {at}"
        return f"{where}: faster from about {self.tokens:,.0f} tokens on; {at}"


def break_even(lengths: Sequence[int], softmax: Sequence[float], linear: Sequence[float]) -> tuple[float | None, bool]:
    """Find the length from which ``linear`` stays below ``softmax``, and whether two measured lengths enclose it.

    Between measured lengths, ratios of seconds are taken to be straight lines on logarithmic axes.

    >>> break_even([64, 256], [1.0, 4.0], [2.0, 2.0])
    (128.0, True)
    >>> break_even([64, 256], [1.0, 4.0], [2.0, 8.0])
    (None, False)

    Args:
        lengths: Measured lengths in tokens, ascending.
        softmax: Seconds of softmax attention at these lengths.
        linear: Seconds of the other attention at these lengths.
    """
    ratios = [math.log(b / a) for a, b in zip(softmax, linear, strict=True)]
    if ratios[-1] >= 0:
        return None, False
    indices = range(len(lengths))
    for (low, above), (high, below) in reversed(list(pairwise(zip(indices, ratios, strict=True)))):
        if above >= 0 > below:
            share = above / (above - below)
            span = math.log(lengths[high] / lengths[low])
            return round(lengths[low] * math.exp(share * span), 6), True
    return float(lengths[0]), False


def break_evens(rows: Sequence[Row]) -> list[BreakEven]:
    """Of every core but softmax, in every runtime and number format; nothing where softmax was not timed."""
    crossings = []
    for (runtime, form), kind_rows in _by_kind([row for row in rows if row.point.group == "cores"]).items():
        curves = {name: sorted(each, key=lambda row: row.setting.seq_len) for name, each in kind_rows.items()}
        if SOFTMAX not in curves:
            continue
        for name, each in curves.items():
            if name == SOFTMAX:
                continue
            lengths = [row.setting.seq_len for row in each]
            soft, linear = ([row.median for row in side] for side in (curves[SOFTMAX], each))
            tokens, within = break_even(lengths, soft, linear)
            crossings.append(BreakEven(name, runtime, form, tokens, within, soft[-1] / linear[-1], lengths[-1]))
    return crossings


def _by_kind(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, list[Row]]]:
    """Rows by runtime and number format, and then by core."""
    kinds: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        kind = (row.setting.target.runtime, row.setting.form)
        kinds.setdefault(kind, {}).setdefault(row.point.label, []).append(row)
    return kinds


def pictures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Latency against length, and peak memory where it was measured; both axes are logarithmic."""
    core_rows = [row for row in rows if row.point.group == "cores"]
    if len({row.setting.seq_len for row in core_rows}) < 2:
        return []
    charts = [
        _picture("Latency against length", "ms a call", core_rows, lambda row: [median * 1e3 for median in row.medians])
    ]
    if all(row.memory is not None for row in core_rows):
        amount = "MB while it answers"
        charts.append(_picture("Memory against length", amount, core_rows, lambda row: [(row.memory or 0.0) / 1e6]))
    return charts


def _picture(title: str, y_title: str, rows: Sequence[Row], values: Callable[[Row], Sequence[float]]) -> dict[str, Any]:
    lengths = sorted({row.setting.seq_len for row in rows})
    every = [max(value, 1e-6) for row in rows for value in values(row)]
    low, high = min(every) / 1.2, max(every) * 1.2
    x = log_scale(lengths[0], lengths[-1], FRAME.left + 20, FRAME.right - 20)
    y = log_scale(low, high, FRAME.bottom, FRAME.top)
    many = len(_by_kind(rows)) > 1
    lines: list[dict[str, Any]] = []
    for (runtime, form), cores in _by_kind(rows).items():
        for name, core_rows in cores.items():
            label = f"{name}, {runtime} {form}" if many else name
            points = []
            for row in sorted(core_rows, key=lambda row: row.setting.seq_len):
                ordered = sorted(max(value, 1e-6) for value in values(row))
                middle = ordered[len(ordered) // 2]
                point = {"x": x(row.setting.seq_len), "y": y(middle), "low": y(ordered[0]), "high": y(ordered[-1])}
                points.append(point | {"tip": f"{label}, {row.setting.seq_len:,} tokens: {middle:.3g} {y_title}"})
            path = " ".join(f"{point['x']:.1f},{point['y']:.1f}" for point in points)
            lines.append({"name": label, "color": len(lines) % 8, "points": points, "path": path})
    return {
        "title": title,
        "x_title": "tokens",
        "y_title": y_title,
        "frame": FRAME,
        "lines": lines,
        "x_ticks": [{"at": x(length), "text": f"{length:,}"} for length in lengths],
        "y_ticks": [{"at": y(tick), "text": f"{tick:g}"} for tick in log_ticks(low, high)],
    }
