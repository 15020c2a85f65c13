"""A bench for people: a terminal table, and a page with latency against depth, width or share of attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.core.facts import environment
from limbeck.engine.bench import Row
from limbeck.engine.picture import Frame, linear_ticks

FRAME = Frame(width=760, height=380, left=64, top=24, right=600, bottom=322)
ALWAYS = ("architecture", "shape", "latency_ms", "fastest_trial_ms", "slowest_trial_ms")
"""Columns of the page's table that are shown also where all rows agree."""
AXES = {
    "layers": ("layers", lambda row: row.point.shape.depth),
    "hidden": ("hidden width", lambda row: row.point.shape.hidden),
    "attention": ("share of the attention", lambda row: row.point.ratio),
    "layers and attention": ("layers", lambda row: row.point.shape.depth),
    "miniatures": ("layers", lambda row: row.point.shape.depth),
}


@dataclass(frozen=True)
class Line:
    """One line of a picture: its name, its place in the order of colours, and where its points stand."""

    name: str
    colour: int
    points: tuple[dict[str, Any], ...]

    @property
    def path(self) -> str:
        """The points as SVG wants them."""
        return " ".join(f"{point['x']:.1f},{point['y']:.1f}" for point in self.points)


def pictures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One picture for each group of points that has more than one."""
    groups = dict.fromkeys(row.point.group for row in rows)
    found = [_picture(group, [row for row in rows if row.point.group == group]) for group in groups]
    return [picture for picture in found if any(len(line.points) > 1 for line in picture["lines"])]


def _picture(group: str, rows: Sequence[Row]) -> dict[str, Any]:
    title, place = AXES[group]
    named: dict[str, list[Row]] = {}
    for name, row in zip(_names(group, rows), rows, strict=True):
        named.setdefault(name, []).append(row)
    xs = sorted({float(place(row)) for row in rows})
    most = max(max(row.medians) for row in rows) * 1e3
    low, high = min(xs), max(xs)

    def x(value: float) -> float:
        return FRAME.left + 20 + (value - low) / ((high - low) or 1.0) * (FRAME.right - FRAME.left - 40)

    def y(milliseconds: float) -> float:
        return FRAME.bottom - milliseconds / (1.06 * most) * (FRAME.bottom - FRAME.top)

    lines = []
    for colour, (name, mine) in enumerate(named.items()):
        ordered = sorted(mine, key=place)
        points = tuple(
            {
                "x": x(float(place(row))),
                "y": y(row.median * 1e3),
                "low": y(min(row.medians) * 1e3),
                "high": y(max(row.medians) * 1e3),
                "tip": f"{row.point.label}, {name}: {row.median * 1e3:.3g} ms",
            }
            for row in ordered
        )
        lines.append(Line(name, colour % 8, points))
    return {
        "title": f"Latency against {title}" + (" of the BERT miniatures" if group == "miniatures" else ""),
        "x_title": title,
        "frame": FRAME,
        "lines": lines,
        "x_ticks": [{"at": x(value), "text": f"{value:g}"} for value in xs],
        "y_ticks": [{"at": y(value), "text": f"{value:g}"} for value in linear_ticks(0, most)],
    }


def _parts(group: str, row: Row) -> list[str]:
    """What a line of a picture may be told by."""
    setting = row.setting
    width = f"H{row.point.shape.hidden}" if group == "miniatures" else ""
    return [width, setting.target.runtime, setting.number_format, f"{setting.seq_len} tokens"]


def _names(group: str, rows: Sequence[Row]) -> list[str]:
    """The line that each row is on, by what tells the lines apart."""
    parts = [_parts(group, row) for row in rows]
    telling = [place for place in range(len(parts[0])) if len({mine[place] for mine in parts}) > 1]
    return [", ".join(mine[place] for place in telling) or mine[2] for mine in parts]


def report(rows: Sequence[Row], title: str) -> str:
    """Pictures and table as one self-contained page."""
    from limbeck.engine.report import page_environment

    told = [row.to_json() for row in rows]
    columns = [name for name in told[0] if len({str(line[name]) for line in told}) > 1 or name in ALWAYS]
    about = {"title": title, "machine": environment()["processor"], "rows": told, "columns": columns}
    about |= {"pictures": pictures(rows), "trials": len(rows[0].seconds)}
    return page_environment().get_template("bench.html.j2").render(about)


def table(rows: Sequence[Row]) -> Any:
    """The figures for a terminal."""
    from rich.table import Table

    names = ["architecture", "shape", "weights", "runtime", "format", "tokens", "latency_ms", "fastest_trial_ms"]
    names += ["slowest_trial_ms", "p90_ms", "million_parameters"]
    made = Table(*(name.replace("_", " ") for name in names))
    for row in rows:
        figures = row.to_json()
        made.add_row(*(str(figures[name]) for name in names))
    return made
