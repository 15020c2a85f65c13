"""Positions of everything in a report's charts, as plain numbers that the templates draw as SVG.

No text is turned into markup here; the templates escape it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypedDict

from limbeck.core.metrics import METRICS
from limbeck.report.ablation import Gain
from limbeck.report.display_names import changed_parameters, names, step_label
from limbeck.report.summary import RunSummary
from limbeck.report.table import Row

LETTER = 6.5  # mean width of a letter in labels, in pixels of the chart
LINE = 16.0  # height of a label


@dataclass(frozen=True)
class Frame:
    """Size of a chart, and the rectangle of its data."""

    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Box:
    """Rectangle covered by a label or a point."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Compute the area covered by both."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)


class Label(TypedDict):
    """Position of a point's label; ``leader``: a line connects the two."""

    x: float
    y: float
    leader: bool
    anchor_y: float


class Point(TypedDict):
    """A candidate in the chart of the front; ``kind`` is 'chosen', 'teacher', 'front' or 'dominated'."""

    row: Row
    on_front: bool
    kind: str
    x: float
    y: float
    x_bar: tuple[float, float] | None
    y_bar: tuple[float, float] | None
    label: Label | None


FRONT = Frame(width=960, height=500, left=66, top=26, right=940, bottom=446)


def log_scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """Return a function that maps positive values to positions on a logarithmic axis.

    Args:
        low: Value at the start of the axis.
        high: Value at its end.
        start: Position of the start.
        stop: Position of the end.

    >>> log_scale(1, 100, 0, 10)(10)
    5.0
    """
    span = math.log(high / low) or 1.0
    return lambda value: start + (stop - start) * math.log(value / low) / span


def log_ticks(low: float, high: float) -> list[float]:
    """Return the ticks 1, 2, 5, 10, … within a range.

    >>> log_ticks(0.9, 30)
    [1.0, 2.0, 5.0, 10.0, 20.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = (factor * 10.0**decade for decade in decades for factor in (1, 2, 5))
    return [round(value, 9) for value in values if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]


def linear_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return round ticks within a range.

    Args:
        low: Lower end of the range.
        high: Upper end.
        count: Approximate number of ticks.

    >>> linear_ticks(0.81, 0.893)
    [0.82, 0.84, 0.86, 0.88]
    """
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 9) for number in range(first, last + 1)]


def front_picture(summary: RunSummary, rows: Sequence[Row]) -> dict[str, Any]:
    """Lay out the chart of the front: latency against quality, with intervals, budget lines and separated labels."""
    plotted = [row for row in rows if row.latency is not None and summary.split in row.quality]
    if not plotted:
        return {}
    low_x, high_x = _latency_range(summary, plotted)
    floor = _quality_floor(summary, plotted)
    low_y, high_y = _quality_range(summary, plotted, floor)
    x = log_scale(low_x, high_x, FRONT.left, FRONT.right)
    share = METRICS[summary.metric].share

    def y(value: float) -> float:
        return FRONT.bottom - (value - low_y) / (high_y - low_y) * (FRONT.bottom - FRONT.top)

    points = [_point(summary, row, x, y) for row in plotted]
    budget = summary.budget.latency_ms
    whole = "the teacher" if summary.reference == summary.teacher else names(summary).get(summary.reference or "", "")
    corners = _stairs([point for point in points if point["on_front"]])
    lines = _segments(corners) + [segment for point in points for segment in _bars(point)]
    lines += [Box(FRONT.left, y(floor) - 1, FRONT.right, y(floor) + 20)] if floor is not None else []
    lines += [Box(x(budget) - 1, FRONT.top, x(budget) + 90, FRONT.top + 20)] if budget is not None else []
    return {
        "frame": FRONT,
        "points": _with_labels(points, lines),
        "x_ticks": [{"at": x(tick), "text": f"{tick:g}"} for tick in log_ticks(low_x, high_x)],
        "y_ticks": [
            {"at": y(tick), "text": f"{tick * 100:.4g}" if share else f"{tick:.3g}"}
            for tick in linear_ticks(low_y, high_y)
        ],
        "stairs": " ".join(f"{across:.1f},{down:.1f}" for across, down in corners),
        "budget": {"at": x(budget), "text": f"budget {budget:g} ms"} if budget is not None else None,
        "floor": {
            "at": y(floor),
            "text": f"{summary.budget.max_drop:g} point{'' if summary.budget.max_drop == 1 else 's'} below {whole}",
        }
        if floor is not None
        else None,
        "y_title": f"{summary.metric}, {summary.split}" + (", %" if share else ""),
    }


def _latency_range(summary: RunSummary, rows: Sequence[Row]) -> tuple[float, float]:
    values = [row.latency.value * 1e3 for row in rows if row.latency is not None]
    values += [summary.budget.latency_ms] if summary.budget.latency_ms is not None else []
    return min(values) / 1.35, max(values) * 1.5


def _quality_floor(summary: RunSummary, rows: Sequence[Row]) -> float | None:
    """Return the lowest quality that the budget allows; None if it has no such limit."""
    whole = next((row.quality[summary.split].value for row in rows if row.reference), None)
    if whole is None or summary.budget.max_drop is None:
        return None
    return whole - summary.budget.max_drop / 100


def _quality_range(summary: RunSummary, rows: Sequence[Row], floor: float | None) -> tuple[float, float]:
    """Return the range of the axis: all values and the intervals of important rows; other intervals may be clipped."""
    values = [row.quality[summary.split].value for row in rows] + ([floor] if floor is not None else [])
    for row in rows:
        fact = row.quality[summary.split]
        if row.on_front or row.chosen or row.reference:
            values += [bound for bound in (fact.low, fact.high) if bound is not None]
    margin = max((max(values) - min(values)) * 0.08, 0.004)
    return min(values) - margin, max(values) + margin


def _point(summary: RunSummary, row: Row, x: Callable[[float], float], y: Callable[[float], float]) -> Point:
    latency, quality = row.latency, row.quality[summary.split]
    assert latency is not None
    return {
        "row": row,
        "on_front": row.on_front,
        "kind": "chosen" if row.chosen else "teacher" if row.reference else "front" if row.on_front else "dominated",
        "x": x(latency.value * 1e3),
        "y": y(quality.value),
        "x_bar": (x(latency.low * 1e3), x(latency.high * 1e3)) if latency.low and latency.high else None,
        "y_bar": (y(quality.low), y(quality.high)) if quality.low is not None and quality.high is not None else None,
        "label": None,
    }


def _stairs(points: Iterable[Point]) -> list[tuple[float, float]]:
    """Return the corners of the front's step line, from the fastest point to the right border."""
    corners: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: point["x"]):
        corners += [(point["x"], corners[-1][1])] if corners else []
        corners.append((point["x"], point["y"]))
    return [*corners, (FRONT.right, corners[-1][1])] if corners else []


def _segments(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """Return thin boxes along a line of horizontal and vertical segments, for labels to avoid."""
    return [Box(min(a, c) - 2, min(b, d) - 2, max(a, c) + 2, max(b, d) + 2) for (a, b), (c, d) in pairwise(corners)]


def _bars(point: Point) -> list[Box]:
    """Return boxes along a point's error bar, likewise."""
    if point["y_bar"] is None:
        return []
    low, high = sorted(point["y_bar"])
    return [Box(point["x"] - 1, low, point["x"] + 1, high)]


def _with_labels(points: list[Point], lines: list[Box]) -> list[Point]:
    """Place the labels, important points first; dominated points without room get none."""
    order = {"chosen": 0, "teacher": 1, "front": 2, "dominated": 3}
    occupied = [Box(point["x"] - 9, point["y"] - 9, point["x"] + 9, point["y"] + 9) for point in points] + lines
    for point in sorted(points, key=lambda point: (order[point["kind"]], point["x"])):
        point["label"] = _label(point, occupied)
    return points


def _label(point: Point, occupied: list[Box]) -> Label | None:
    width = LETTER * len(point["row"].name) * (1.08 if point["kind"] == "chosen" else 1.0)
    best, lowest = None, float("inf")
    for distance in (0, 14, 28, 44, 62, 84):
        for across, down in ((1, 0), (0, -1), (0, 1), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1)):
            center_x = point["x"] + across * (13 + width / 2 + distance * 0.35)
            center_y = point["y"] + down * (17 + distance) + (0 if down else math.copysign(distance, 240 - point["y"]))
            box = Box(center_x - width / 2, center_y - LINE / 2, center_x + width / 2, center_y + LINE / 2)
            cost = sum(box.overlap(other) for other in occupied) + _outside(box) + distance * 0.5
            if cost < lowest:
                best, lowest = (box, center_x, center_y, distance), cost
    if best is None or lowest > (60 if point["kind"] == "dominated" else 1500):
        return None
    occupied.append(best[0])
    return {"x": best[1], "y": best[2] + 4, "leader": best[3] > 20, "anchor_y": best[2]}


def _outside(box: Box) -> float:
    """Return the cost of a label that extends beyond the chart."""
    return 40 * (
        max(0.0, FRONT.left + 2 - box.left)
        + max(0.0, box.right - FRONT.right)
        + max(0.0, FRONT.top - box.top)
        + max(0.0, box.bottom - FRONT.bottom)
    )


NODE_WIDTH, NODE_HEIGHT, GAP_X, GAP_Y = 162.0, 64.0, 26.0, 10.0


def tree_picture(summary: RunSummary) -> dict[str, Any]:
    """Lay out the lineage: a box for every step on the way to a measured or failed candidate, children to the right."""
    nodes, children = _tree_nodes(summary)
    positions: dict[str, tuple[float, float]] = {}
    next_row = 0.0

    def lay_out(key: str, depth: int) -> float:
        nonlocal next_row
        rows = [lay_out(child, depth + 1) for child in children.get(key, ())]
        if not rows:
            rows, next_row = [next_row], next_row + 1
        row = (rows[0] + rows[-1]) / 2
        positions[key] = (2 + depth * (NODE_WIDTH + GAP_X), 2 + row * (NODE_HEIGHT + GAP_Y))
        return row

    for root in children.get("", ()):
        lay_out(root, 0)
    for key, node in nodes.items():
        node["x"], node["y"] = positions[key]
    edges = [
        {"path": _edge(positions[parent], positions[key]), "failed": nodes[key]["kind"] == "failed"}
        for parent, keys in children.items()
        for key in keys
        if parent
    ]
    width = max((x for x, _ in positions.values()), default=0.0) + NODE_WIDTH + 2
    height = max((y for _, y in positions.values()), default=0.0) + NODE_HEIGHT + 2
    return {
        "nodes": list(nodes.values()),
        "edges": edges,
        "width": width,
        "height": height,
        "node": (NODE_WIDTH, NODE_HEIGHT),
    }


def _tree_nodes(summary: RunSummary) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Return the boxes by key, and the keys of each one's children ('' for the roots), in the order of the run."""
    shown = {record.key for key in summary.measured for record in summary.lineage(key)}
    shown |= {record.key for failure in summary.failures for record in summary.lineage(failure["key"])}
    nodes: dict[str, dict[str, Any]] = {}
    children: dict[str, list[str]] = {}
    measured, display = set(summary.measured), names(summary)
    for key in (key for key in summary.records if key in shown):
        record, parent = summary.records[key], summary.records.get(summary.records[key].parent or "")
        kind = "chosen" if key in summary.chosen else "teacher" if key == summary.teacher else ""
        nodes[key] = {
            "title": step_label(record, parent) if parent is not None else display[key].removesuffix(" (PyTorch)"),
            "record": record,
            "parameters": changed_parameters(record),
            "kind": kind or ("measured" if key in measured else "passed"),
        }
        children.setdefault(parent.key if parent is not None else "", []).append(key)
    for number, failure in enumerate(summary.failures):
        if failure["key"] in nodes:
            key = f"failed {number}"
            nodes[key] = {"title": failure["step"], "record": None, "kind": "failed", "failure": failure}
            children.setdefault(failure["key"], []).append(key)
    return nodes, children


def _edge(start: tuple[float, float], stop: tuple[float, float]) -> str:
    from_x, from_y = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT / 2
    to_x, to_y = stop[0], stop[1] + NODE_HEIGHT / 2
    middle = (from_x + to_x) / 2
    return f"M{from_x:.1f} {from_y:.1f}C{middle:.1f} {from_y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def gain_axis(gains: Sequence[Gain]) -> dict[str, Any]:
    """Return a logarithmic axis for all speed ratios, 300 pixels wide; the template draws a bar per gain."""
    bounds = [bound for gain in gains for bound in gain.speed if bound]
    low, high = min([0.8, *bounds]) / 1.05, max([2.0, *bounds]) * 1.05
    scale = log_scale(low, high, 6, 294)
    return {"scale": scale, "ticks": [{"at": scale(tick), "text": f"{tick:g}x"} for tick in log_ticks(low, high)]}


def strip_axis(rows: Sequence[Row]) -> dict[str, Any]:
    """Return a logarithmic axis in milliseconds for p50, mean, p90 and p99 of all rows, 640 pixels wide."""
    times = (fact for row in rows for fact in (row.p50, row.mean, row.p90, row.p99))
    values = [fact.value * 1e3 for fact in times if fact is not None]
    if not values:
        return {}
    low, high = min(values) / 1.25, max(values) * 1.25
    scale = log_scale(low, high, 4, 636)
    return {"scale": scale, "ticks": [{"at": scale(tick), "text": f"{tick:g}"} for tick in log_ticks(low, high)]}
