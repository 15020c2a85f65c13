"""Accuracy against latency of a trained grid: where every point stands, trained alone and weight-shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from limbeck.benchmark.options import Mode
from limbeck.benchmark.run import Row
from limbeck.core.measurement import Measurement
from limbeck.report.charts import LETTER, LINE, Box, Frame, linear_ticks, log_scale, log_ticks

FRAME = Frame(width=960, height=470, left=64, top=30, right=770, bottom=408)
WAYS: dict[Mode, str] = {"alone": "trained alone", "shared": "weight-shared"}
APART = 13.0  #: pixels between the ways of one point, so that neither hides the other


def front(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return the numbers of the chart; None where no quality was measured."""
    judged = [row for row in rows if row.scores]
    if not judged:
        return None
    ordered = sorted(judged, key=lambda row: row.median)
    facts = [fact for row in judged for fact in row.scores.values()]
    x, x_ticks = _latency_axis([row.median * 1e3 for row in judged])
    y, y_ticks = _quality_axis(facts)
    modes = [mode for mode in WAYS if any(mode in row.scores for row in judged)]

    def dot(row: Row, mode: Mode) -> dict[str, Any]:
        return _dot(row, mode, x(row.median * 1e3) + _shift(mode, modes), y)

    metric = facts[0].detail["metric"]
    words = metric.replace("_", " ")
    pairs = [(row, [dot(row, mode) for mode in modes if mode in row.scores]) for row in ordered]
    return {
        "title": f"{words[:1].upper()}{words[1:]} against latency",
        "y_title": f"{words}, {facts[0].split}" + (", %" if _percent(metric) else ""),
        "frame": FRAME,
        "lines": _lines(ordered, modes, dot),
        "pairs": _labeled([{"name": row.point.label, "x": x(row.median * 1e3), "dots": dots} for row, dots in pairs]),
        "x_ticks": x_ticks,
        "y_ticks": y_ticks,
    }


def _lines(ordered: Sequence[Row], modes: Sequence[Mode], dot: Callable[[Row, Mode], dict[str, Any]]) -> list[Any]:
    """All of one way, then the next; curves join the points of a group that varies in one dimension."""
    series: list[dict[str, Any]] = []
    for mode in modes:
        for label in dict.fromkeys(_label(row, ordered) for row in ordered):
            label_rows = [row for row in ordered if mode in row.scores and _label(row, ordered) == label]
            groups = dict.fromkeys(
                row.point.group for row in label_rows if row.point.group not in ("miniatures", "jointly")
            )
            curves = [[dot(row, mode) for row in label_rows if row.point.group == group] for group in groups]
            legend = {"name": ", ".join(filter(None, (WAYS[mode], label))), "way": mode, "color": len(series) % 8}
            paths = [
                " ".join(f"{dot_position['x']:.1f},{dot_position['y']:.1f}" for dot_position in curve)
                for curve in curves
            ]
            series.append({**legend, "points": [dot(row, mode) for row in label_rows], "curves": paths})
    return series


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Return the words in which the settings of the rows differ."""
    parts = (("form", row.setting.form), ("seq_len", f"{row.setting.seq_len} tokens"))
    return ", ".join(text for name, text in parts if len({getattr(other.setting, name) for other in rows}) > 1)


def _shift(mode: Mode, modes: Sequence[Mode]) -> float:
    return (modes.index(mode) - (len(modes) - 1) / 2) * APART


def _dot(row: Row, mode: Mode, x: float, y: Callable[[float], float]) -> dict[str, Any]:
    from limbeck.report.formatting import quality, quality_interval

    fact = row.scores[mode]
    metric = fact.detail["metric"]
    quality_text = f"{quality(fact.value, metric)} {quality_interval(fact, metric)}".strip()
    return {
        "x": x,
        "y": y(fact.value),
        "low": y(fact.value if fact.low is None else fact.low),
        "high": y(fact.value if fact.high is None else fact.high),
        "tip": f"{row.point.label}, {WAYS[mode]}: {quality_text}, {row.median * 1e3:.3g} ms",
    }


def _percent(metric: str) -> bool:
    from limbeck.core.metrics import METRICS

    return METRICS[metric].share


def _latency_axis(values: Sequence[float]) -> tuple[Callable[[float], float], list[dict[str, Any]]]:
    low, high = min(values) / 1.15, max(values) * 1.15
    x = log_scale(low, high, FRAME.left, FRAME.right)
    ticks = log_ticks(low, high)
    return x, [{"at": x(tick), "text": f"{tick:g}"} for tick in (ticks if len(ticks) > 2 else linear_ticks(low, high))]


def _quality_axis(facts: Sequence[Measurement]) -> tuple[Callable[[float], float], list[dict[str, Any]]]:
    bounds = [bound for fact in facts for bound in (fact.value, fact.low, fact.high) if bound is not None]
    margin = max((max(bounds) - min(bounds)) * 0.12, 0.004)
    low, high = min(bounds) - margin, max(bounds) + margin
    unit = 100 if _percent(facts[0].detail["metric"]) else 1

    def y(value: float) -> float:
        return FRAME.bottom - (value - low) / (high - low) * (FRAME.bottom - FRAME.top)

    return y, [{"at": y(tick), "text": f"{tick * unit:.4g}"} for tick in linear_ticks(low, high)]


def _labeled(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Names above or below their points; where there is no room for one, hovering tells it."""
    taken = [Box(dot["x"] - 5, dot["high"], dot["x"] + 5, dot["low"]) for pair in pairs for dot in pair["dots"]]
    for pair in pairs:
        width = LETTER * len(pair["name"])
        middle = min(max(pair["x"], FRAME.left + width / 2), FRAME.right - width / 2)
        above = min(dot["high"] for dot in pair["dots"]) - 7
        below = max(dot["low"] for dot in pair["dots"]) + LINE
        pair["label"] = None
        for base in (above, below, above - LINE, below + LINE):
            box = Box(middle - width / 2, base - LINE + 4, middle + width / 2, base + 3)
            if FRAME.top <= box.top and box.bottom <= FRAME.bottom and not any(map(box.overlap, taken)):
                pair["label"] = {"x": middle, "y": base}
                taken.append(box)
                break
    return pairs
