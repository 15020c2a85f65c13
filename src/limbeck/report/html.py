"""A run as one HTML page that opens offline; the templates escape all text that a user or a library wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.measurement import CASCADE
from limbeck.report import formatting
from limbeck.report.ablation import Gain, gains
from limbeck.report.charts import front_picture, gain_axis, strip_axis, tree_picture
from limbeck.report.decisions import decision_rows, goal_words
from limbeck.report.display_names import names, reference_line, reference_words
from limbeck.report.early_exits import exit_rows
from limbeck.report.entity_types import type_rows
from limbeck.report.prediction_flips import changed_words, groups, most_changed
from limbeck.report.report import (
    errors_line,
    headline,
    headline_change,
    headline_rows,
    headline_split,
    shown_splits,
    volume_line,
)
from limbeck.report.shareable import without_paths
from limbeck.report.stored_vectors import stored_rows
from limbeck.report.summary import RunSummary
from limbeck.report.table import Row, rows

if TYPE_CHECKING:
    from jinja2 import Environment


def report_html(
    summary: RunSummary, *, example: str = "", front: Mapping[str, Any] | None = None, texts: bool = True
) -> str:
    """Render the run as one self-contained page.

    Args:
        summary: The run.
        example: Code that runs the artefact, if one was written.
        front: The layout of the front, if it has been computed already.
        texts: Whether the page quotes texts of the task; what is published with a model should not.
    """
    table, effects = rows(summary), gains(summary)
    row, reference = headline_rows(summary)
    split = headline_split(summary)
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            headline=headline(summary),
            rows=table,
            headline_row=row,
            faster_than=reference_words(summary),
            reference=reference,
            relative=reference_line(summary),
            split=split,
            splits=shown_splits(summary),
            sizes=_example_counts(table),
            volume=volume_line(summary),
            errors=errors_line(summary),
            entity_types=type_rows(row, reference, split),
            early_exits=exit_rows(summary),
            cascades=exit_rows(summary, CASCADE),
            stored_vectors=stored_rows(row, split),
            baseline=summary.baseline,
            change=headline_change(row, reference, split),
            decisions=decision_rows(summary),
            decision_goal=goal_words(summary),
            changed=changed_words(row, split),
            flips=groups(row, split),
            most_changed=most_changed(row, split),
            texts=texts,
            front=front_picture(summary, table) if front is None else front,
            tree=tree_picture(summary),
            gain_groups=_by_candidate(summary, effects),
            gain_axis=gain_axis(effects),
            strip=strip_axis(table),
            replicas=replicas(summary),
            example=example,
            recipe=str(summary.recipe).strip(),
        )
    )


def front_svg(summary: RunSummary, front: Mapping[str, Any] | None = None) -> str:
    """Render the chart of the front as an SVG file, in light and dark colors; empty where no latency was measured.

    Args:
        summary: The run.
        front: The layout of the front, if it has been computed already.
    """
    picture = front_picture(summary, rows(summary)) if front is None else front
    template = page_environment().get_template("front.svg.j2")
    return template.render(summary=summary, picture=picture) if picture else ""


def _example_counts(table: Sequence[Row]) -> dict[str, str]:
    """Return the number of examples behind the figures of each split."""
    counts: dict[str, set[int]] = {}
    for row in table:
        for split, fact in row.quality.items():
            counts.setdefault(split, set()).update([fact.n] if fact.n else [])
    return {split: ", ".join(map(str, sorted(numbers))) for split, numbers in counts.items()}


def _by_candidate(summary: RunSummary, effects: Sequence[Gain]) -> list[dict[str, Any]]:
    """Group gains by candidate, chosen ones first."""
    display, groups = names(summary), dict[str, dict[str, Any]]()
    for gain in effects:
        group = groups.setdefault(
            gain.key, {"name": display[gain.key], "chosen": gain.key in summary.chosen, "gains": []}
        )
        group["gains"].append({"gain": gain, "without": display[gain.without]})
    return sorted(groups.values(), key=lambda group: not group["chosen"])


def replicas(summary: RunSummary) -> list[dict[str, Any]]:
    """Return results, mean and standard deviation of every candidate trained with several seeds, by split."""
    display, groups = names(summary), []
    for key, others in summary.replicas.items():
        keys = [k for k in dict.fromkeys((key, *others)) if k in summary.records]
        for split in ("validation", "test"):
            facts = [fact for k in keys if (fact := summary.records[k].fact("quality", split)) is not None]
            if len(facts) > 1:
                values = [fact.value for fact in facts]
                mean = sum(values) / len(values)
                spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
                groups.append(
                    {"name": display.get(key, key), "split": split, "values": values, "mean": mean, "spread": spread}
                )
    return groups


def page_environment() -> Environment:
    """Create the environment of the templates, which escapes everything that is not part of a template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ms": formatting.milliseconds,
        "mb": formatting.megabytes,
        "rate": formatting.rate,
        "duration": formatting.duration,
        "quality": formatting.quality,
        "quality_interval": formatting.quality_interval,
        "time_interval": formatting.time_interval,
        "signed": formatting.signed,
        "settings": formatting.settings,
        "without_paths": without_paths,
    }
    return environment
