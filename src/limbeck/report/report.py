"""A run as a headline, a terminal table, CSV and JSON; ``html.py`` makes the page.

summary = RunSummary(records, measured, chosen, teacher, ...)
console.print(front_table(summary))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.core.measurement import CASCADE, Measurement
from limbeck.core.metrics import METRICS
from limbeck.core.speed_up import is_faster
from limbeck.core.target import TestedLimit
from limbeck.report.ablation import gains, quality_change
from limbeck.report.decisions import decision_lines, decision_values, decisions_json
from limbeck.report.display_names import names, reference_line, reference_words
from limbeck.report.early_exits import exit_lines, exits_json
from limbeck.report.entity_types import types_json
from limbeck.report.formatting import csv_text, megabytes, milliseconds, quality, quality_interval, rate, time_interval
from limbeck.report.prediction_flips import changed_column, changed_values, changes_json
from limbeck.report.stored_vectors import stored_json
from limbeck.report.summary import RunSummary, once
from limbeck.report.table import Row, baseline_problems, better_than_baseline, rows, volume

if TYPE_CHECKING:
    from rich.table import Table

BULKY = frozenset({"rounds", "correct", "resampled", "samples", "shapes", "most_changed"})
"""Parts of a measurement's detail that serve later computations, not readers."""


BESIDE = {
    "rmse": "RMSE",
    "r2": "R²",
    "entity_f1": "F1",
    "entity_precision": "precision",
    "entity_recall": "recall",
    "agreement": "agreement",
    "kl_divergence": "KL divergence (nats)",
    "mean_cosine": "mean cosine",
    "neighbor_overlap": "neighbor overlap",
    "ndcg_at_10": "nDCG@10",
    "recall_at_100": "recall@100",
    "mrr_at_10": "MRR@10",
    "overlap_at_10": "top ten as the reference's",
}
"""Measurements that a kind of task gives beside its metric, and what they are called."""


@once
def headline_rows(summary: RunSummary) -> tuple[Row | None, Row | None]:
    """Return the row of the headline (the chosen candidate, or the nearest to the budget) and the reference's."""
    table = rows(summary)
    reference = next((row for row in table if row.reference), None)
    chosen = [row for key in summary.chosen for row in table if row.key == key]
    if chosen:
        return chosen[0], reference
    others = (row for row in table if not row.teacher and not row.reference)
    return min(others, key=_distance, default=None), reference


def _distance(row: Row) -> tuple[int, float]:
    return len(row.problems), row.latency.value if row.latency is not None else float("inf")


@once
def headline(summary: RunSummary) -> str:
    """Summarize the outcome in one sentence, including failures."""
    row, reference = headline_rows(summary)
    if row is None:
        measured = "The teacher alone was measured" if rows(summary) else "Nothing was measured"
        failed = len(summary.failed)
        return measured + (f": {failed} step{'s' * (failed != 1)} failed" if failed else "")
    reason = baseline_problems(summary, row.quality.get(summary.split))
    if summary.chosen and reason and row.problems == reason:
        return f"Nothing was learned: the chosen model, {row.name}, is {reason[0]}"
    if not summary.chooses:
        return _unchosen(summary)
    if row.problems or not summary.chosen:
        problems = "; ".join(row.problems) or "none was chosen"
        return f"No candidate meets the budget. The nearest is {row.name}: {problems}"
    own, before, which = row.latency, reference.latency if reference is not None else None, row.statistic
    if reference is None or before is None or own is None or row.speedup is None:
        return f"Chosen: {row.name}" + (f", {which} {milliseconds(own.value)} ms" if own is not None else "")
    times = f"({which} {milliseconds(own.value)} ms instead of {milliseconds(before.value)} ms)"
    verdict, other = is_faster(own, before)[0], reference_words(summary)
    if verdict == "slower":
        return f"Slower than {other}: {row.speedup.value:.2f}x {times}"
    if verdict == "no measurable gain":
        return f"Not measurably faster than {other}: {row.speedup} {times}"
    return f"{row.speedup.value:.1f}x faster than {other} {_quality_words(summary, row, reference)} {times}"


def named_headline(summary: RunSummary) -> str:
    """Return the headline, after the name of the target where the recipe has several."""
    return f"{summary.target_name}: {headline(summary)}" if summary.target_name else headline(summary)


def _unchosen(summary: RunSummary) -> str:
    """Describe the outcome of a recipe without a choice."""
    table = rows(summary)
    front = sum(row.on_front for row in table)
    text = f"The recipe chooses nothing: {len(table)} candidate{'s' * (len(table) != 1)} measured, {front} on the front"
    if summary.budget.given:
        text += f", {sum(not row.problems for row in table)} within the budget"
    return f"{text}. To get a model to serve, end the recipe with 'cheapest' or 'best'"


def _quality_words(summary: RunSummary, row: Row, reference: Row) -> str:
    points, low, high = headline_change(row, reference, headline_split(summary))
    if points is None:
        return f"({summary.metric} not measured)"
    if abs(points) < 0.05:
        return f"at the same {summary.metric}"
    noise = ", within the noise" if low is not None and high is not None and low <= 0 <= high else ""
    return f"at {abs(points):.1f} points {'less' if points < 0 else 'more'} {summary.metric}{noise}"


def headline_change(
    row: Row | None, reference: Row | None, split: str
) -> tuple[float | None, float | None, float | None]:
    """Compute the change of quality against the reference.

    Args:
        row: The row of the headline.
        reference: The row of the model that figures are relative to.
        split: Split to compare on.

    Returns:
        Points of the metric and the ends of their interval; None where unknown.
    """
    return quality_change(row.quality.get(split) if row else None, reference.quality.get(split) if reference else None)


def headline_split(summary: RunSummary) -> str:
    """Return the split of the headline: test if both models have it, because no choice was made on it."""
    row, reference = headline_rows(summary)
    both = row is not None and reference is not None and "test" in row.quality and "test" in reference.quality
    return "test" if both else summary.split


def volume_line(summary: RunSummary) -> str:
    """Describe the hypervolume of the measured front and its reference point; empty if there is no front."""
    front = volume(summary)
    if front is None:
        return ""
    share = METRICS[summary.metric].share
    scale = 100.0 if share else 1.0
    unit = "points" if share else summary.metric
    return (
        f"Hypervolume of the front: {front.value * scale * 1e3:.4g} {unit} x ms, from the reference point "
        f"{quality(front.quality, summary.metric)} {summary.metric} ({summary.split}) "
        f"and {milliseconds(front.latency)} ms"
    )


def front_table(summary: RunSummary) -> Table:
    """Build the terminal table of the measured candidates, the chosen one highlighted."""
    from rich.table import Table
    from rich.text import Text

    splits, candidates = shown_splits(summary), rows(summary)
    predicted = any(row.predicted is not None for row in candidates)
    table = Table(title=f"{summary.metric} with 95 % interval; latency on {summary.target_label}", title_justify="left")
    for heading in ("", "candidate"):
        table.add_column(heading)
    changed = changed_column(candidates, summary.split)
    figures = [*splits, *([changed[0]] if changed is not None else []), "p50 ms"]
    counted = any(row.throughput is not None for row in candidates)
    means = any(row.shows_mean for row in candidates)
    figures += [*(["predicted"] if predicted else []), *(["mean ms"] if means else []), "p99 ms"]
    figures += ["texts/s"] if counted else []
    figures += ["MB", "vs PyTorch", "vs INT8"]
    for heading in figures:
        table.add_column(heading, justify="right")
    tested = _tested(summary, candidates)
    for heading, _ in tested.values():
        table.add_column(heading, justify="right")
    table.add_column("budget")
    for row in candidates:
        better = not baseline_problems(summary, row.quality.get(summary.split))
        mark = "★" if row.chosen and better else "●" if row.on_front else ""
        cells = [mark, row.name, *(_quality_cell(row, split, summary.metric) for split in splits)]
        cells += [changed[1].get(row.key, "–")] if changed is not None else []
        cells += [milliseconds(row.p50.value) if row.p50 is not None else "–"]
        cells += [_predicted_cell(row)] if predicted else []
        slower = [*([row.mean] if means else []), row.p99]
        cells += [milliseconds(fact.value) if fact is not None else "–" for fact in slower]
        cells += [rate(row.throughput.value) if row.throughput is not None else "–"] if counted else []
        cells += [megabytes(row.size.value) if row.size is not None else "–"]
        cells += [f"{ratio.value:.2f}x" if ratio is not None else "–" for ratio in (row.speedup, row.speedup_int8)]
        cells += [f"{row.within[limit]:.2f}" if limit in row.within else "–" for limit in tested]
        cells += ["; ".join(row.problems) or "ok"]
        style = "bold green" if row.chosen else "" if row.on_front or row.teacher or row.reference else "dim"
        table.add_row(*map(Text, cells), style=style)  # Text: a label with [brackets] must not be read as markup
    if summary.baseline is not None:
        scores = [_baseline_cell(summary, split) for split in splits]
        padding = [""] * (len(table.columns) - 2 - len(splits))
        table.add_row(*map(Text, ["", f"constant: {summary.baseline.answer}", *scores, *padding]), style="dim")
    table.caption = "★ chosen   ● on the front (nothing measured is both faster and better)"
    table.caption += "   ✓ ✗ p50 is within the predicted interval or not" if predicted else ""
    table.caption += "".join(f"   {heading} probability that {words}" for heading, words in tested.values())
    lines = [reference_line(summary), volume_line(summary), errors_line(summary)]
    for line in filter(None, [*lines, *decision_lines(summary), *exit_lines(summary)]):
        table.caption += f"\n{line}"
    return table


def _tested(summary: RunSummary, candidates: Sequence[Row]) -> dict[TestedLimit, tuple[str, str]]:
    """Return the heading of each limit that holds with a probability, and what that means."""
    words: dict[TestedLimit, tuple[str, str]] = {
        "max_drop": (f"P(≤{summary.budget.max_drop or 0:g})", "no more points are truly lost"),
        "max_flips": (f"P(≤{summary.budget.max_flips or 0:g} %)", "no more answers truly change"),
    }
    return {limit: texts for limit, texts in words.items() if any(limit in row.within for row in candidates)}


def _predicted_cell(row: Row) -> str:
    """Format the latency that a search predicted, with a mark whether the measured one is in its interval."""
    if row.predicted is None:
        return "–"
    mark = {True: "✓", False: "✗", None: ""}[row.as_predicted]
    return f"{milliseconds(row.predicted.value)} {time_interval(row.predicted)} {mark}".rstrip()


def shown_splits(summary: RunSummary) -> list[str]:
    """List the splits on which candidates were measured: validation, test, then others by name."""
    order = {"validation": 0, "test": 1}
    splits = {fact.split for key in summary.candidates for fact in summary.records[key].facts if fact.name == "quality"}
    return sorted(splits, key=lambda split: (order.get(split, 2), split))


def _quality_cell(row: Row, split: str, metric: str) -> str:
    fact = row.quality.get(split)
    return "–" if fact is None else f"{quality(fact.value, metric)} {quality_interval(fact, metric)}".strip()


def _baseline_cell(summary: RunSummary, split: str) -> str:
    fact = summary.baseline.quality.get(split) if summary.baseline is not None else None
    return "–" if fact is None else quality(fact.value, summary.metric)


def errors_line(summary: RunSummary) -> str:
    """Describe what stands beside the metric of the chosen model, teacher and reference; empty where nothing does.

    That is RMSE and R² of a regression, precision and recall of entities, and other measures of fidelity.
    """
    keys = {"teacher": summary.teacher, "chosen": summary.chosen[0] if summary.chosen else None}
    if summary.reference is not None and summary.reference not in keys.values():
        keys[names(summary)[summary.reference]] = summary.reference
    parts = []
    for name, key in keys.items():
        record = summary.records.get(key or "")
        for split in shown_splits(summary):
            facts = [(label, record.fact(fact, split)) for fact, label in BESIDE.items()] if record is not None else []
            shown = [f"{label} {_bounds(fact, label)}" for label, fact in facts if fact is not None]
            if shown:
                parts.append(f"{name}, {split}: {', '.join(shown)}")
    return "; ".join(parts)


def _bounds(fact: Measurement, label: str) -> str:
    digits = ".4g" if label == "RMSE" else ".3f"
    return f"{fact.value:{digits}} [{fact.low:{digits}}, {fact.high:{digits}}]"


def front_csv(summary: RunSummary) -> str:
    """Write the measured candidates as CSV, one per line, with units in the column names."""
    return csv_text(front_rows(summary))


def front_rows(summary: RunSummary) -> list[dict[str, Any]]:
    """Return the measured candidates as flat dictionaries, with units in the field names."""
    return [_flat(summary, row) for row in rows(summary)]


def _flat(summary: RunSummary, row: Row) -> dict[str, Any]:
    """Return one row as plain values without nesting."""
    line: dict[str, Any] = {"key": row.key, "name": row.name}
    for split in shown_splits(summary):
        fact = row.quality.get(split)
        for part, value in _interval_parts(fact).items():
            line[f"{summary.metric}_{split}" + ("" if part == "value" else f"_{part}")] = value
        line |= changed_values(rows(summary), row, split)
        line |= {name: None for key in summary.candidates for name in decision_values(summary.records[key], split)}
        line |= decision_values(summary.records[row.key], split)
    for name, latency in (("p50", row.p50), ("mean", row.mean), ("p90", row.p90), ("p99", row.p99)):
        line[f"latency_{name}_ms"] = latency.value * 1e3 if latency is not None else None
    line["latency_p50_low_ms"] = row.p50.low * 1e3 if row.p50 is not None and row.p50.low is not None else None
    line["latency_p50_high_ms"] = row.p50.high * 1e3 if row.p50 is not None and row.p50.high is not None else None
    if row.predicted is not None:
        for suffix, seconds in (("", row.predicted.value), ("_low", row.predicted.low), ("_high", row.predicted.high)):
            line[f"latency_predicted{suffix}_ms"] = seconds * 1e3 if seconds is not None else None
        line["latency_as_predicted"] = row.as_predicted
    line["size_mb"] = row.size.value / 1e6 if row.size is not None else None
    line["parameters"] = int(row.parameters.value) if row.parameters is not None else None
    if row.throughput is not None:
        for part, value in _interval_parts(row.throughput).items():
            line["throughput_texts_per_s" + ("" if part == "value" else f"_{part}")] = value
    line |= {} if row.portability is None else {"portability": row.portability.value}
    for name, ratio in (("speedup", row.speedup), ("speedup_over_int8", row.speedup_int8)):
        line |= {name: None, f"{name}_low": None, f"{name}_high": None}
        if ratio is not None:
            line |= {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
    line |= {f"probability_within_{limit}": probability for limit, probability in row.within.items()}
    line |= {"drop_points": row.drop, "on_front": row.on_front, "chosen": row.chosen, "teacher": row.teacher}
    line["reference"] = row.reference
    line |= {"meets_budget": row.meets_budget, "problems": "; ".join(row.problems)}
    return line


def run_json(summaries: Mapping[str, RunSummary]) -> dict[str, Any]:
    """Return the whole run as JSON values for ``--json``; of several targets one object for each, by name.

    Args:
        summaries: The run, on each of its targets.
    """
    if "" in summaries:
        return to_json(summaries[""])
    headlines = "; ".join(named_headline(summary) for summary in summaries.values())
    return {"headline": headlines, "targets": {name: to_json(summary) for name, summary in summaries.items()}}


def to_json(summary: RunSummary) -> dict[str, Any]:
    """Return the whole run as JSON values for ``--json``: rows, gains, lineage and setting."""
    return {
        "headline": headline(summary),
        "metric": summary.metric,
        **({"target_name": summary.target_name} if summary.target_name else {}),
        "target": str(summary.target),
        "budget": summary.budget.given,
        "chosen": list(summary.chosen),
        "teacher": summary.teacher,
        "reference": summary.reference,
        "baseline": _baseline_json(summary),
        "better_than_baseline": better_than_baseline(summary),
        "hypervolume": front._asdict() if (front := volume(summary)) is not None else None,
        "rows": front_rows(summary),
        "changes": {row.key: changes for row in rows(summary) if (changes := changes_json(row))},
        **({"decisions": decisions} if (decisions := decisions_json(summary)) else {}),
        **({"early_exits": exits} if (exits := exits_json(summary)) else {}),
        **({"cascades": cascades} if (cascades := exits_json(summary, CASCADE)) else {}),
        **({"entities": types} if (types := types_json(summary)) else {}),
        **({"stored_vectors": stored} if (stored := stored_json(summary)) else {}),
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
        "gaps": list(summary.gaps),
        "seeds": list(summary.seeds),
        "environment": dict(summary.environment),
        "recipe": str(summary.recipe),
    }


def _baseline_json(summary: RunSummary) -> dict[str, Any] | None:
    """Return the constant answer and its quality by split."""
    if summary.baseline is None:
        return None
    facts = {split: _interval_parts(fact) for split, fact in summary.baseline.quality.items()}
    return {"answer": summary.baseline.answer, "quality": facts}


def _interval_parts(fact: Measurement | None) -> dict[str, float | int | None]:
    if fact is None:
        return dict.fromkeys(("value", "low", "high", "n"))
    return {"value": fact.value, "low": fact.low, "high": fact.high, "n": fact.n}


def slim(fact: Measurement) -> dict[str, Any]:
    """Return a measurement as JSON without the parts that only later computations need."""
    plain = fact.to_json()
    detail = {name: value for name, value in plain.pop("detail", {}).items() if name not in BULKY}
    return plain | ({"detail": detail} if detail else {})
