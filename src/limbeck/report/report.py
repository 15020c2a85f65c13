"""A run for people and for machines: the front as a terminal table, CSV, JSON, and one HTML page that opens offline.

    summary = RunSummary(records, measured, chosen, teacher, ...)
    console.print(front_table(summary)); Path("report.html").write_text(report_html(summary))

Nothing is measured here. All text that a user or a library wrote is escaped by the templates.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.measurement import Measurement
from limbeck.report.ablation import Gain, gains, quality_change, signed
from limbeck.report.charts import front_picture, gain_axis, strip_axis, tree_picture
from limbeck.report.display_names import names
from limbeck.report.prediction_flips import flips_of
from limbeck.report.speed_up import is_faster
from limbeck.report.summary import CORRELATIONS, RunSummary
from limbeck.report.table import Row, better_than_baseline, no_better, rows, volume

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.table import Table

__all__ = [
    "Gain",
    "Row",
    "RunSummary",
    "front_csv",
    "front_rows",
    "front_table",
    "gains",
    "headline",
    "is_faster",
    "report_html",
    "rows",
    "to_json",
]

BULKY = frozenset({"rounds", "correct", "samples"})
"""Parts of a measurement's detail that serve later arithmetic and no reader."""


def milliseconds(seconds: float) -> str:
    """Milliseconds with three digits that count.

    >>> milliseconds(0.00134), milliseconds(0.0413), milliseconds(0.7)
    ('1.34', '41.3', '700')
    """
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(value: float) -> str:
    """Decimal megabytes.

    >>> megabytes(91_300_000), megabytes(1_340_000)
    ('91.3', '1.3')
    """
    return f"{value / 1e6:.1f}" if value < 1e8 else f"{value / 1e6:.0f}"


def duration(seconds: float) -> str:
    """Time as a person says it.

    >>> duration(3.25), duration(190), duration(7260)
    ('3.2 s', '3 min 10 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def quality(value: float, metric: str) -> str:
    """A share as per cent, a correlation as it is.

    >>> quality(0.8731, "accuracy"), quality(0.8731, "spearman")
    ('87.3 %', '0.873')
    """
    return f"{value:.3f}" if metric in CORRELATIONS else f"{value * 100:.1f} %"


def quality_interval(fact: Measurement, metric: str) -> str:
    """The 95 % interval of a quality, or nothing."""
    if fact.low is None or fact.high is None:
        return ""
    if metric in CORRELATIONS:
        return f"[{fact.low:.3f}, {fact.high:.3f}]"
    return f"[{fact.low * 100:.1f}, {fact.high * 100:.1f}]"


def time_interval(fact: Measurement) -> str:
    """The 95 % interval of a time in milliseconds, or nothing."""
    return "" if fact.low is None or fact.high is None else f"[{milliseconds(fact.low)}, {milliseconds(fact.high)}]"


def headline_rows(summary: RunSummary) -> tuple[Row | None, Row | None]:
    """The row that the report is about (the chosen one, or the nearest to the budget) and the teacher's."""
    made = rows(summary)
    teacher = next((row for row in made if row.teacher), None)
    chosen = [row for key in summary.chosen for row in made if row.key == key]
    if chosen:
        return chosen[0], teacher
    return min((row for row in made if not row.teacher), key=_distance, default=None), teacher


def _distance(row: Row) -> tuple[int, float]:
    return len(row.problems), row.p50.value if row.p50 is not None else float("inf")


def headline(summary: RunSummary) -> str:
    """What came of it, in one honest sentence."""
    row, teacher = headline_rows(summary)
    if row is None:
        return "Nothing was measured" + (f": {len(summary.failed)} steps failed" if summary.failed else "")
    reason = no_better(summary, row.quality.get(summary.split))
    if summary.chosen and reason and row.problems == reason:
        return f"Nothing was learnt: the chosen model, {row.name}, is {reason[0]}"
    if row.problems or not summary.chosen:
        why = "; ".join(row.problems) or "none was chosen"
        return f"No candidate meets the budget. The nearest is {row.name}: {why}"
    if teacher is None or teacher.p50 is None or row.p50 is None or row.speedup is None:
        return f"Chosen: {row.name}" + (f", p50 {milliseconds(row.p50.value)} ms" if row.p50 is not None else "")
    times = f"(p50 {milliseconds(row.p50.value)} ms instead of {milliseconds(teacher.p50.value)} ms)"
    verdict = is_faster(row.p50, teacher.p50)[0]
    if verdict == "slower":
        return f"Slower than PyTorch: {row.speedup.value:.2f}x {times}"
    if verdict == "no measurable gain":
        return f"Not measurably faster than PyTorch: {row.speedup} {times}"
    return f"{row.speedup.value:.1f}x faster than PyTorch {_at_what_price(summary, row, teacher)} {times}"


def _at_what_price(summary: RunSummary, row: Row, teacher: Row) -> str:
    split = headline_split(summary)
    points, low, high = _change(row, teacher, split)
    if points is None:
        return f"({summary.metric} not measured)"
    if abs(points) < 0.05:
        return f"at the same {summary.metric}"
    noise = ", within the noise" if low is not None and high is not None and low <= 0 <= high else ""
    return f"at {abs(points):.1f} points {'less' if points < 0 else 'more'} {summary.metric}{noise}"


def _change(row: Row | None, teacher: Row | None, split: str) -> tuple[float | None, float | None, float | None]:
    """Points of the metric against the teacher, with an interval where it can be had."""
    return quality_change(row.quality.get(split) if row else None, teacher.quality.get(split) if teacher else None)


def headline_split(summary: RunSummary) -> str:
    """Test where the chosen and the teacher have it: no choice was made on it."""
    row, teacher = headline_rows(summary)
    both = row is not None and teacher is not None and "test" in row.quality and "test" in teacher.quality
    return "test" if both else summary.split


def volume_line(summary: RunSummary) -> str:
    """The hypervolume of the measured front with its reference point, in words; nothing where there is no front."""
    found = volume(summary)
    if found is None:
        return ""
    share = 1.0 if summary.metric in CORRELATIONS else 100.0
    unit = summary.metric if summary.metric in CORRELATIONS else "points"
    return (
        f"Hypervolume of the front: {found.value * share * 1e3:.4g} {unit} x ms, from the reference point "
        f"{quality(found.quality, summary.metric)} {summary.metric} ({summary.split}) "
        f"and {milliseconds(found.latency)} ms"
    )


def front_table(summary: RunSummary) -> Table:
    """The measured candidates as a table for the terminal; the chosen one stands out."""
    from rich.table import Table
    from rich.text import Text

    splits, made = shown_splits(summary), rows(summary)
    foretold = any(row.predicted is not None for row in made)
    table = Table(title=f"{summary.metric} with 95 % interval; latency on {summary.target}", title_justify="left")
    for heading in ("", "candidate"):
        table.add_column(heading)
    for heading in (*splits, "p50 ms", *(["predicted"] if foretold else []), "p99 ms", "MB", "vs PyTorch", "vs INT8"):
        table.add_column(heading, justify="right")
    table.add_column("budget")
    for row in made:
        mark = (
            "★"
            if row.chosen and not no_better(summary, row.quality.get(summary.split))
            else "●"
            if row.on_front
            else ""
        )
        cells = [mark, row.name, *(_quality_cell(row, split, summary.metric) for split in splits)]
        cells += [milliseconds(row.p50.value) if row.p50 is not None else "–"]
        cells += [_predicted_cell(row)] if foretold else []
        cells += [milliseconds(row.p99.value) if row.p99 is not None else "–"]
        cells += [megabytes(row.size.value) if row.size is not None else "–"]
        cells += [f"{ratio.value:.2f}x" if ratio is not None else "–" for ratio in (row.speedup, row.speedup_int8)]
        cells += ["; ".join(row.problems) or "ok"]
        style = "bold green" if row.chosen else "" if row.on_front or row.teacher else "dim"
        table.add_row(*map(Text, cells), style=style)  # Text: a label with [brackets] is no markup
    if summary.baseline is not None:
        rest = [""] * (len(table.columns) - 2 - len(splits))
        shown = [_constant_cell(summary, split) for split in splits]
        table.add_row(*map(Text, ["", f"constant: {summary.baseline.answer}", *shown, *rest]), style="dim")
    table.caption = "★ chosen   ● on the front (nothing measured is both faster and better)"
    table.caption += "   ✓ ✗ p50 is within the predicted interval or not" if foretold else ""
    for line in filter(None, (volume_line(summary), errors_line(summary))):
        table.caption += f"\n{line}"
    return table


def _predicted_cell(row: Row) -> str:
    """The latency that a search foretold, and whether it came so."""
    if row.predicted is None:
        return "–"
    mark = {True: "✓", False: "✗", None: ""}[row.as_predicted]
    return f"{milliseconds(row.predicted.value)} {time_interval(row.predicted)} {mark}".rstrip()


def shown_splits(summary: RunSummary) -> list[str]:
    """Splits on which at least one candidate was measured, in the order of a reader."""
    found = {fact.split for key in summary.candidates for fact in summary.records[key].facts if fact.name == "quality"}
    return sorted(
        found, key=lambda split: (["validation", "test"].index(split) if split in ("validation", "test") else 2, split)
    )


def _quality_cell(row: Row, split: str, metric: str) -> str:
    fact = row.quality.get(split)
    return "–" if fact is None else f"{quality(fact.value, metric)} {quality_interval(fact, metric)}".strip()


def _constant_cell(summary: RunSummary, split: str) -> str:
    fact = summary.baseline.quality.get(split)
    return "–" if fact is None else quality(fact.value, summary.metric)


def errors_line(summary: RunSummary) -> str:
    """RMSE and R² of the chosen model and of the teacher, for a regression; nothing for other tasks."""
    keys = {"teacher": summary.teacher, "chosen": summary.chosen[0] if summary.chosen else None}
    parts = []
    for name, key in keys.items():
        record = summary.records.get(key or "")
        for split in shown_splits(summary):
            error, share = (record.fact(fact, split) if record is not None else None for fact in ("rmse", "r2"))
            if error is not None and share is not None:
                parts.append(
                    f"{name}, {split}: RMSE {error.value:.4g} [{error.low:.4g}, {error.high:.4g}], "
                    f"R² {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
                )
    return "; ".join(parts)


def front_csv(summary: RunSummary) -> str:
    """The measured candidates as CSV, a line each, units in the names of the columns."""
    flat = front_rows(summary)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for line in flat for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def front_rows(summary: RunSummary) -> list[dict[str, Any]]:
    """Return the measured candidates as plain dictionaries without nesting, units in the names of the fields."""
    return [_flat(summary, row) for row in rows(summary)]


def _flat(summary: RunSummary, row: Row) -> dict[str, Any]:
    """One row as plain values without nesting."""
    line: dict[str, Any] = {"key": row.key, "name": row.name}
    for split in shown_splits(summary):
        fact = row.quality.get(split)
        for part in ("value", "low", "high", "n"):
            column = f"{summary.metric}_{split}" + ("" if part == "value" else f"_{part}")
            line[column] = getattr(fact, part) if fact is not None else None
    for name, latency in (("p50", row.p50), ("p90", row.p90), ("p99", row.p99)):
        line[f"latency_{name}_ms"] = latency.value * 1e3 if latency is not None else None
    line["latency_p50_low_ms"] = row.p50.low * 1e3 if row.p50 is not None and row.p50.low is not None else None
    line["latency_p50_high_ms"] = row.p50.high * 1e3 if row.p50 is not None and row.p50.high is not None else None
    if row.predicted is not None:
        for part in ("value", "low", "high"):
            seconds, column = getattr(row.predicted, part), "" if part == "value" else f"_{part}"
            line[f"latency_predicted{column}_ms"] = seconds * 1e3 if seconds is not None else None
        line["latency_as_predicted"] = row.as_predicted
    line["size_mb"] = row.size.value / 1e6 if row.size is not None else None
    line["parameters"] = int(row.parameters.value) if row.parameters is not None else None
    line |= {} if row.portability is None else {"portability": row.portability.value}
    for name, ratio in (("speedup", row.speedup), ("speedup_over_int8", row.speedup_int8)):
        line |= {name: None, f"{name}_low": None, f"{name}_high": None}
        if ratio is not None:
            line |= {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
    line |= {"drop_points": row.drop, "on_front": row.on_front, "chosen": row.chosen, "teacher": row.teacher}
    line |= {"meets_budget": row.meets_budget, "problems": "; ".join(row.problems)}
    return line


def to_json(summary: RunSummary) -> dict[str, Any]:
    """The whole run as plain values for ``--json``: rows, gains, lineage, where and how it was measured."""
    return {
        "headline": headline(summary),
        "metric": summary.metric,
        "target": str(summary.target),
        "budget": {name: value for name, value in vars(summary.budget).items() if value is not None},
        "chosen": list(summary.chosen),
        "teacher": summary.teacher,
        "baseline": _baseline_json(summary),
        "better_than_baseline": better_than_baseline(summary),
        "hypervolume": found._asdict() if (found := volume(summary)) is not None else None,
        "rows": front_rows(summary),
        "gains": [
            {
                "key": gain.key,
                "without": gain.without,
                "steps": list(gain.steps),
                "verdict": gain.verdict,
                "speed": gain.speed._asdict(),
                "points": {"value": gain.points, "low": gain.points_low, "high": gain.points_high},
                "sentence": gain.sentence,
            }
            for gain in gains(summary)
        ],
        "lineage": {key: [record.key for record in summary.lineage(key)] for key in summary.candidates},
        "replicas": {key: list(keys) for key, keys in summary.replicas.items()},
        "failed": [{name: failure[name] for name in ("step", "key", "error")} for failure in summary.failures],
        "seeds": list(summary.seeds),
        "environment": dict(summary.environment),
        "recipe": str(summary.recipe),
    }


def _baseline_json(summary: RunSummary) -> dict[str, Any] | None:
    """The constant answer and its quality by split."""
    if summary.baseline is None:
        return None
    facts = {
        split: {part: getattr(fact, part) for part in ("value", "low", "high", "n")}
        for split, fact in summary.baseline.quality.items()
    }
    return {"answer": summary.baseline.answer, "quality": facts}


def slim(fact: Measurement) -> dict[str, Any]:
    """A fact as JSON without the parts that only arithmetic needs."""
    data = fact.to_json()
    detail = {name: value for name, value in data.pop("detail", {}).items() if name not in BULKY}
    return data | ({"detail": detail} if detail else {})


def report_html(summary: RunSummary, *, example: str = "") -> str:
    """The run as one self-contained page; ``example`` is the code that runs the artefact, when one was written."""
    made, found = rows(summary), gains(summary)
    row, teacher = headline_rows(summary)
    split = headline_split(summary)
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            headline=headline(summary),
            rows=made,
            headline_row=row,
            teacher=teacher,
            split=split,
            splits=shown_splits(summary),
            sizes=_sizes(made),
            volume=volume_line(summary),
            errors=errors_line(summary),
            baseline=summary.baseline,
            change=_change(row, teacher, split),
            flips=flips_of(summary, row, teacher, split),
            front=front_picture(summary, made),
            tree=tree_picture(summary),
            gain_groups=_by_candidate(summary, found),
            gain_axis=gain_axis(found),
            strip=strip_axis(made),
            replicas=replicas(summary),
            example=example,
            recipe=str(summary.recipe).strip(),
        )
    )


def _sizes(made: list[Row]) -> dict[str, str]:
    """How many examples each split's figures rest on."""
    found: dict[str, set[int]] = {}
    for row in made:
        for split, fact in row.quality.items():
            found.setdefault(split, set()).update([fact.n] if fact.n else [])
    return {split: ", ".join(map(str, sorted(counts))) for split, counts in found.items()}


def _by_candidate(summary: RunSummary, found: list[Gain]) -> list[dict[str, Any]]:
    """Gains under the candidate they speak of, the chosen first."""
    named, groups = names(summary), {}  # type: ignore[var-annotated]
    for gain in found:
        group = groups.setdefault(
            gain.key, {"name": named[gain.key], "chosen": gain.key in summary.chosen, "gains": []}
        )
        group["gains"].append({"gain": gain, "without": named[gain.without]})
    return sorted(groups.values(), key=lambda group: not group["chosen"])


def replicas(summary: RunSummary) -> list[dict[str, Any]]:
    """For each chosen candidate trained with several seeds: each result, mean and standard deviation, by split."""
    named, made = names(summary), []
    for key, others in summary.replicas.items():
        keys = [k for k in dict.fromkeys((key, *others)) if k in summary.records]
        for split in ("validation", "test"):
            facts = [fact for k in keys if (fact := summary.records[k].fact("quality", split)) is not None]
            if len(facts) > 1:
                values = [fact.value for fact in facts]
                mean = sum(values) / len(values)
                spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
                made.append(
                    {"name": named.get(key, key), "split": split, "values": values, "mean": mean, "spread": spread}
                )
    return made


def page_environment() -> Environment:
    """Templates that escape everything unless it is a template's own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ms": milliseconds,
        "mb": megabytes,
        "duration": duration,
        "quality": quality,
        "quality_interval": quality_interval,
        "time_interval": time_interval,
        "signed": signed,
        "settings": settings,
    }
    return made


def settings(values: Mapping[str, Any], limit: int | None = None) -> str:
    """Parameters of a step in one line, cut to ``limit`` letters.

    >>> settings({"epochs": 3, "seed": None})
    'epochs 3'
    """
    parts = (
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value not in (None, "", [], {})
    )
    text = ", ".join(parts)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
