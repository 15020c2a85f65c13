"""Fitted thresholds and temperatures in words and plain values, for table, page, card, CSV and JSON.

The figures are facts of the ledger (``measure/decision.py``); runs without that probe have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from limbeck.core.candidate import Record
from limbeck.core.decision import CALIBRATION_ERROR, DETECTION, TEMPERATURE, THRESHOLD
from limbeck.core.measurement import Measurement
from limbeck.report.display_names import names
from limbeck.report.summary import RunSummary

RATES = {"recall": "recall", "precision": "precision", "alarm_rate": "alarm rate"}
SPLITS = ("validation", "test")


class DecisionRow(NamedTuple):
    """One model on one split, formatted; each figure is (by the usual rule, with what was fitted)."""

    name: str
    split: str
    n: str
    thresholds: str
    recall: tuple[str, str]
    precision: tuple[str, str]
    alarm_rate: tuple[str, str]
    others: tuple[str, str]
    temperature: str
    calibration_error: tuple[str, str]


def share(value: float | None) -> str:
    """Format a share; a ratio without denominator has none.

    >>> share(0.5), share(None)
    ('50.0 %', '–')
    """
    return "–" if value is None else f"{100 * value:.1f} %"


def decision_rows(summary: RunSummary) -> list[DecisionRow]:
    """Return a row for each measured model and split: the reference first, then in the order of the run."""
    display = names(summary)
    keys = sorted(summary.candidates, key=lambda key: key != summary.reference)
    records = [(display[key], summary.records[key]) for key in keys]
    rows = (_row(name, record, split) for name, record in records for split in _splits(record))
    return [row for row in rows if row is not None]


def _splits(record: Record) -> list[str]:
    splits = {fact.split for fact in record.facts if fact.name in (DETECTION, CALIBRATION_ERROR)}
    return sorted(splits, key=lambda split: (SPLITS.index(split) if split in SPLITS else len(SPLITS), split))


def _row(name: str, record: Record, split: str) -> DecisionRow | None:
    detection, error = record.fact(DETECTION, split), record.fact(CALIBRATION_ERROR, split)
    temperature = record.fact(TEMPERATURE, "validation")
    fact = detection or error
    if fact is None:
        return None

    def pair(figure: str) -> tuple[str, str]:
        if detection is None:
            return "–", "–"
        return share(detection.detail["usual"][figure]), share(detection.detail["fitted"][figure])

    others: Mapping[str, float] = detection.detail.get("others", {}) if detection is not None else {}
    return DecisionRow(
        name,
        split,
        str(fact.n),
        thresholds_words(record),
        pair("recall"),
        pair("precision"),
        pair("alarm_rate"),
        (share(others.get("usual")), share(others.get("fitted"))),
        f"{temperature.value:.3g}" if temperature is not None else "–",
        ("–", "–") if error is None else (f"{error.detail['before']:.4f}", f"{error.value:.4f}"),
    )


def thresholds_words(record: Record) -> str:
    """Return the fitted thresholds, or the first few of them; '–' where none were fitted."""
    fact = record.fact(THRESHOLD, "validation")
    if fact is None:
        return "–"
    by_others = fact.detail["positive_score"] == "max-softmax"
    sign = "others ≤ " if by_others else ""
    words = [f"{name}: {sign}{value:.3g}" for name, value in fact.detail["thresholds"].items()]
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def goal_words(summary: RunSummary) -> str:
    """Say what thresholds were fitted for, and how calibration is measured; empty where nothing was fitted."""
    goals = [fact for key in summary.candidates if (fact := summary.records[key].fact(THRESHOLD, "validation"))]
    errors = [
        fact for key in summary.candidates for fact in summary.records[key].facts if fact.name == CALIBRATION_ERROR
    ]
    words = []
    if goals:
        detail = goals[0].detail
        wanted = detail["goal"].replace("-", " ").replace("f1", "F1")
        own = detail.get("original_threshold")
        rule = "by its usual rule" if own is None else f"with its threshold of {own:g}"
        wanted += f" as that of the original {rule}" if wanted.startswith("same") else ""
        label = f" of {detail['positive']}" if detail["positive"] is not None else ""
        words.append(f"Thresholds{label} are fitted on validation for the {wanted}.")
        words += [f"{note}." for note in dict.fromkeys(note for fact in goals for note in fact.detail["notes"])][:5]
    if errors:
        temperatures = [summary.records[key].fact(TEMPERATURE, "validation") for key in summary.candidates]
        notes = (note for fact in temperatures if fact is not None for note in fact.detail.get("notes", ()))
        words.append(
            "A temperature is fitted on validation; the expected calibration error is in "
            f"{errors[0].detail['bins']} bins of equal width."
        )
        words += [f"{note[:1].upper()}{note[1:]}." for note in dict.fromkeys(notes)]
    return " ".join(words)


def _examples(fact: Measurement, figure: str) -> str:
    """Return how many texts a figure of the detection is a share of, of all labels together where none is named.

    Args:
        fact: The detection.
        figure: recall is of texts with the label, precision of alarms, ``others`` of texts without the label.
    """
    by_label, positive = fact.detail["by_label"], fact.detail["positive"]
    shown = [positive] if positive in by_label else list(by_label)
    if fact.n is None or not shown:
        return "–"
    of_all = fact.n * len(shown)
    with_label = sum(by_label[name]["n"] for name in shown)
    alarms = round(fact.detail["fitted"]["alarm_rate"] * of_all)
    return str({"recall": with_label, "precision": alarms, "others": of_all - with_label}.get(figure, of_all))


def decision_lines(summary: RunSummary) -> list[str]:
    """Return a line for the reference and one for the chosen model, on test where that was measured."""
    lines = []
    for key in dict.fromkeys(filter(None, (summary.reference, *summary.chosen[:1]))):
        record = summary.records.get(key)
        if record is None or not (splits := _splits(record)):
            continue
        row = _row(names(summary)[key], record, splits[-1])
        assert row is not None
        lines.append(f"{row.name}, {row.split}: {_words(row, record.fact(DETECTION, row.split))}")
    return lines


def _words(row: DecisionRow, detection: Measurement | None) -> str:
    parts = []
    if detection is not None:
        fitted = row.thresholds != "–"
        parts += [f"threshold {row.thresholds}"] if fitted else [str(detection.detail["positive"])]
        for name, (before, after) in zip(RATES.values(), (row.recall, row.precision, row.alarm_rate), strict=True):
            parts.append(f"{name} {after}" + (f" (usual rule {before})" if fitted else ""))
        if row.others != ("–", "–"):
            before, after = row.others
            parts.append(f"accuracy on the others {after}" + (f" (usual rule {before})" if fitted else ""))
    if row.temperature != "–":
        before, after = row.calibration_error
        parts.append(f"temperature {row.temperature}, calibration error {after} (before {before})")
    return ", ".join(parts)


def decision_figures(record: Record, reference: Record | None, split: str) -> list[tuple[str, str, str, str, str]]:
    """Return the lines of a card: label, value, interval, n, and the figure of the original by its usual rule.

    Args:
        record: The model.
        reference: The original, if that is another model.
        split: Split of the figures.
    """
    lines = []
    before = reference.fact(DETECTION, split) if reference is not None else None
    if (fact := record.fact(DETECTION, split)) is not None:
        of = f" of {fact.detail['positive']}" if fact.detail["positive"] is not None else ""
        fitted = record.fact(THRESHOLD, "validation") is not None
        for figure, label in RATES.items():
            interval = "–"
            if figure == "recall" and fact.low is not None and fact.high is not None:
                interval = f"[{share(fact.low)}, {share(fact.high)}]"
            value = share(fact.detail["fitted"][figure])
            value += f" (usual rule {share(fact.detail['usual'][figure])})" if fitted else ""
            original = share(before.detail["usual"][figure]) if before is not None else "–"
            what = f"{label}{of}{' with threshold' if fitted else ''}, {split}"
            lines.append((what, value, interval, _examples(fact, figure), original))
        if others := fact.detail.get("others"):
            value = share(others["fitted"]) + (f" (usual rule {share(others['usual'])})" if fitted else "")
            original = share(before.detail.get("others", {}).get("usual")) if before is not None else "–"
            lines.append((f"accuracy on the others, {split}", value, "–", _examples(fact, "others"), original))
    if (error := record.fact(CALIBRATION_ERROR, split)) is not None:
        other = reference.fact(CALIBRATION_ERROR, split) if reference is not None else None
        value = f"{error.value:.4f} ({error.detail['before']:.4f} without temperature)"
        original = f"{other.detail['before']:.4f}" if other is not None else "–"
        lines.append((f"calibration error ({error.detail['bins']} bins), {split}", value, "–", str(error.n), original))
    return lines


def decision_values(record: Record, split: str) -> dict[str, float | None]:
    """Return the figures of a split as columns of a table, with fitted thresholds and temperature.

    Args:
        record: The model.
        split: The split.
    """
    values: dict[str, float | None] = {}
    if (fact := record.fact(DETECTION, split)) is not None:
        for figure in RATES:
            values[f"{figure}_{split}"] = fact.detail["fitted"][figure]
            values[f"{figure}_usual_{split}"] = fact.detail["usual"][figure]
    if (error := record.fact(CALIBRATION_ERROR, split)) is not None:
        values |= {
            f"calibration_error_{split}": error.value,
            f"calibration_error_before_{split}": error.detail["before"],
        }
    return values


def decisions_json(summary: RunSummary) -> dict[str, Any]:
    """Return what was fitted and measured, by key of the candidate and name of the fact."""
    shown_facts = (TEMPERATURE, CALIBRATION_ERROR, THRESHOLD, DETECTION)
    decided: dict[str, Any] = {}
    for key in summary.candidates:
        facts: dict[str, Any] = {}
        for fact in summary.records[key].facts:
            if fact.name in shown_facts:
                facts.setdefault(fact.name, {})[fact.split] = fact.to_json()
        if facts:
            decided[key] = facts
    return decided
