"""What a run with several targets chose for each of them, side by side, and how one model does on all."""

from __future__ import annotations

from typing import NamedTuple

from limbeck.report.display_names import names
from limbeck.report.formatting import csv_text, milliseconds, quality, quality_interval, time_interval
from limbeck.report.html import page_environment
from limbeck.report.report import front_rows, headline, headline_rows, headline_split, shown_splits
from limbeck.report.summary import RunSummary
from limbeck.report.table import rows


class TargetChoice(NamedTuple):
    """One target: its setting, the model that was chosen for it, and a given model there; '–' where there is none."""

    name: str
    setting: str
    chosen: str
    quality: str
    latency: str
    budget: str
    here: str = "–"


def target_choices(summary: RunSummary, key: str = "") -> list[TargetChoice]:
    """Return a line for each target of a run; none where it has a single one.

    Args:
        summary: The run on one of its targets; the others follow it.
        key: A model whose latency on each target is of interest.
    """
    return [_choice(each, key) for each in summary.on_targets] if summary.others else []


def _choice(summary: RunSummary, key: str) -> TargetChoice:
    row, record = headline_rows(summary)[0], summary.records.get(key)
    latency = record.fact(summary.budget.latency_fact) if record is not None else None
    here = f"{milliseconds(latency.value)} ms {time_interval(latency)}".rstrip() if latency is not None else "–"
    if row is None or not row.chosen:
        return TargetChoice(summary.target_name, str(summary.target), "none", "–", "–", "–", here)
    fact, split = row.quality.get(headline_split(summary)), headline_split(summary)
    scored = "–"
    if fact is not None:
        interval = quality_interval(fact, summary.metric)
        scored = f"{quality(fact.value, summary.metric)} {interval}".rstrip() + f" ({split})"
    own = f"{milliseconds(row.latency.value)} ms {time_interval(row.latency)}".rstrip() if row.latency else "–"
    chosen, budget = names(summary)[row.key], "; ".join(row.problems) or "met"
    return TargetChoice(summary.target_name, str(summary.target), chosen, scored, own, budget, here)


def targets_html(summary: RunSummary) -> str:
    """Render the page of all targets: what was chosen for each, and every candidate there.

    Args:
        summary: The run on its first target; the others follow it.
    """
    sections = [
        {"summary": each, "rows": rows(each), "headline": headline(each), "splits": shown_splits(each)}
        for each in summary.on_targets
    ]
    template = page_environment().get_template("targets.html.j2")
    return template.render(summary=summary, choices=target_choices(summary), sections=sections)


def targets_csv(summary: RunSummary) -> str:
    """Write the measured candidates of all targets as CSV, one per line and target.

    Args:
        summary: The run on its first target; the others follow it.
    """
    return csv_text([{"target": each.target_name} | row for each in summary.on_targets for row in front_rows(each)])
