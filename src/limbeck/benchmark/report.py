"""A bench for people: a terminal table, and a page with accuracy against latency, and latency against dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.benchmark import length_charts as bench_lengths
from limbeck.benchmark.charts import front
from limbeck.benchmark.options import Mode
from limbeck.benchmark.run import Row
from limbeck.core.measurement import environment
from limbeck.report.charts import Frame, linear_ticks

if TYPE_CHECKING:
    from rich.table import Table

FRAME = Frame(width=960, height=400, left=64, top=30, right=770, bottom=342)
WORDS = ("architecture", "shape", "approach", "weights", "runtime", "format", "tokens")
"""Columns that say what a row is about: where all rows agree, only the first two are shown."""
ALWAYS = WORDS[:2]
AXES = {
    "layers": ("layers", lambda row: row.point.shape.depth),
    "hidden": ("hidden width", lambda row: row.point.shape.hidden),
    "attention": ("share of the attention", lambda row: row.point.ratio),
    "layers and attention": ("layers", lambda row: row.point.shape.depth),
    "miniatures": ("layers", lambda row: row.point.shape.depth),
}


@dataclass(frozen=True)
class Line:
    """One line of a picture: its name, its place in the order of colors, and where its points stand."""

    name: str
    color: int
    points: tuple[dict[str, Any], ...]

    @property
    def path(self) -> str:
        """The points as SVG wants them."""
        return " ".join(f"{point['x']:.1f},{point['y']:.1f}" for point in self.points)


def pictures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One picture for each group of points that has more than one."""
    groups = dict.fromkeys(row.point.group for row in rows)
    charts = [
        _picture(group, [row for row in rows if row.point.group == group]) for group in groups if group != "cores"
    ]
    charts = [picture for picture in charts if any(len(line.points) > 1 for line in picture["lines"])]
    return charts + bench_lengths.pictures(rows)


def _picture(group: str, rows: Sequence[Row]) -> dict[str, Any]:
    title, position = _axis(group, rows)
    named: dict[str, list[Row]] = {}
    for name, row in zip(_names(title, rows), rows, strict=True):
        named.setdefault(name, []).append(row)
    xs = sorted({float(position(row)) for row in rows})
    most = max(max(row.medians) for row in rows) * 1e3
    low, high = min(xs), max(xs)

    def x(value: float) -> float:
        return FRAME.left + 20 + (value - low) / ((high - low) or 1.0) * (FRAME.right - FRAME.left - 40)

    def y(milliseconds: float) -> float:
        return FRAME.bottom - milliseconds / (1.06 * most) * (FRAME.bottom - FRAME.top)

    lines = []
    for color, (name, line_rows) in enumerate(named.items()):
        ordered = sorted(line_rows, key=position)
        points = tuple(
            {
                "x": x(float(position(row))),
                "y": y(row.median * 1e3),
                "low": y(min(row.medians) * 1e3),
                "high": y(max(row.medians) * 1e3),
                "tip": f"{row.point.label}, {name}: {row.median * 1e3:.3g} ms",
            }
            for row in ordered
        )
        lines.append(Line(name, color % 8, points))
    return {
        "title": f"Latency against {title}" + (" of the BERT miniatures" if group == "miniatures" else ""),
        "x_title": title,
        "y_title": "ms a call",
        "frame": FRAME,
        "lines": lines,
        "x_ticks": [{"at": x(value), "text": f"{value:g}"} for value in xs],
        "y_ticks": [{"at": y(value), "text": f"{value:g}"} for value in linear_ticks(0, most)],
    }


def _axis(group: str, rows: Sequence[Row]) -> tuple[str, Any]:
    """Return the title and values of the horizontal axis; of dimensions that vary jointly, the first."""
    if group == "jointly":
        group = "layers" if len({row.point.shape.depth for row in rows}) > 1 else "hidden"
    return AXES[group]


def _parts(title: str, row: Row) -> list[str]:
    """Return the words that may name a line of a chart."""
    setting, group = row.setting, row.point.group
    width = f"H{row.point.shape.hidden}" if group in ("miniatures", "jointly") and title != "hidden width" else ""
    share = f"attention {row.point.ratio:g}" if group == "jointly" and row.point.ratio is not None else ""
    return [width, share, setting.target.runtime, setting.form, f"{setting.seq_len} tokens"]


def _names(title: str, rows: Sequence[Row]) -> list[str]:
    """Name the line of each row by what distinguishes the lines."""
    parts = [_parts(title, row) for row in rows]
    telling = [index for index in range(len(parts[0])) if len({words[index] for words in parts}) > 1]
    labels = [", ".join(words[index] for index in telling) for words in parts]
    return [name or row.setting.form for name, row in zip(labels, rows, strict=True)]


def report(rows: Sequence[Row], title: str, summary: str = "") -> str:
    """Render charts and table as one self-contained page.

    Args:
        rows: The measured rows.
        title: Title of the page.
        summary: How the models were trained, in one sentence.
    """
    from limbeck.report.html import page_environment

    values = {"title": title, "machine": environment()["processor"], "summary": summary, "table": cells(rows)}
    values |= {"front": front(rows), "pictures": pictures(rows), "trials": len(rows[0].seconds)}
    values |= {"break_evens": list(map(str, bench_lengths.break_evens(rows)))}
    return page_environment().get_template("bench.html.j2").render(values)


class Cell(NamedTuple):
    """A figure, and its range or interval."""

    text: str
    note: str = ""
    number: bool = True


def cells(rows: Sequence[Row]) -> list[dict[str, Cell]]:
    """Return the table's lines: what distinguishes the rows, and what was measured of each."""
    values = [row.to_json() for row in rows]
    names = [name for name in WORDS if name in ALWAYS or len({line[name] for line in values}) > 1]
    modes = dict.fromkeys((mode, fact.detail["metric"]) for row in rows for mode, fact in row.scores.items())
    lines = []
    for row, line in zip(rows, values, strict=True):
        line_cells = {name: Cell(str(line[name]), number=False) for name in names}
        extremes = f"{line['fastest_trial_ms']:.4g} – {line['slowest_trial_ms']:.4g}"
        line_cells["latency ms"] = Cell(f"{line['latency_ms']:.4g}", extremes)
        line_cells["p90 ms"] = Cell(f"{line['p90_ms']:.4g}")
        line_cells["million parameters"] = Cell(f"{line['million_parameters']:.1f}")
        line_cells["million MACs"] = Cell(f"{line['million_macs']:.1f}")
        if any(other.memory is not None for other in rows):
            line_cells["peak memory MB"] = Cell("–" if row.memory is None else f"{line['peak_memory_mb']:.1f}")
        for mode, metric in modes:
            line_cells[f"{metric} {mode}"] = _quality_cell(row, mode)
        lines.append(line_cells)
    return lines


def _quality_cell(row: Row, mode: Mode) -> Cell:
    from limbeck.report.formatting import quality, quality_interval

    fact = row.scores.get(mode)
    if fact is None:
        return Cell("–")
    return Cell(quality(fact.value, fact.detail["metric"]), quality_interval(fact, fact.detail["metric"]))


def table(rows: Sequence[Row]) -> Table:
    """Return the figures as a table for the terminal."""
    from rich.table import Table

    lines = cells(rows)
    table = Table()
    for name, cell in lines[0].items():
        table.add_column(name, justify="right" if cell.number else "left", no_wrap=name == "shape")
    for line in lines:
        table.add_row(*(f"{cell.text}\n{cell.note}" if cell.note else cell.text for cell in line.values()))
    return table
