"""How a model's answers differ from the reference's, in words and plain values: flips, and drift of the score.

The figures are facts of the ledger (``core/answer_changes.py``); runs of earlier versions have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limbeck.core.answer_changes import DRIFT, FLIPS
from limbeck.core.measurement import Measurement
from limbeck.report.table import Row

GROUPS = 20  #: answers listed on the page, those with the most flips first


def percent(share: float) -> str:
    """Format a share.

    >>> percent(0.0123)
    '1.2 %'
    """
    return f"{share * 100:.1f} %"


def changed_column(rows: Sequence[Row], split: str) -> tuple[str, dict[str, str]] | None:
    """Return the heading and the cells, by key, of a column for a table; None where there is nothing to compare.

    Args:
        rows: The rows of the table.
        split: Split to compare on.
    """
    for heading, shown in ((FLIPS, percent), (DRIFT, "{:.2g}".format)):
        facts = {row.key: fact for row in rows if (fact := row.changes.get((heading, split))) and not row.reference}
        if facts:
            return heading, {key: shown(fact.value) for key, fact in facts.items()}
    return None


def changed_words(row: Row | None, split: str) -> str:
    """Say how answers differ from the reference's, in sentences; empty where they were not compared.

    Args:
        row: The model's row.
        split: Split to compare on.
    """
    if row is None or row.reference:
        return ""
    flips, drift = (row.changes.get((name, split)) for name in (FLIPS, DRIFT))
    words = []
    if flips is not None:
        interval = ""
        if flips.low is not None and flips.high is not None:
            interval = f"[{percent(flips.low)}, {percent(flips.high)}] "
        words.append(
            f"{percent(flips.value)} {interval}of {flips.n} answers differ: {flips.detail['lost']} right ones became "
            f"wrong, {flips.detail['won']} wrong ones right."
        )
    if drift is not None:
        words.append(f"The score that decides moved by {drift_words(drift)}.")
        if texts := drift.detail.get("left_out"):
            words.append(f"{texts} texts that the two tokenizers divide differently are left out.")
    return " ".join(words)


def drift_words(drift: Measurement) -> str:
    """Format the mean, the 95th percentile and the maximum of a drift."""
    return f"{drift.value:.2g} on average, {drift.detail['p95']:.2g} at p95, {drift.detail['largest']:.2g} at most"


def groups(row: Row | None, split: str) -> list[dict[str, Any]]:
    """Return the flips by answer of the reference, those with the most first, and by third of length.

    Args:
        row: The model's row.
        split: Split to compare on.
    """
    flips = row.changes.get((FLIPS, split)) if row is not None and not row.reference else None
    if flips is None:
        return []
    answers = sorted(flips.detail["by_answer"], key=lambda group: -group["changed"])
    return [*answers[:GROUPS], *flips.detail["by_length"]]


def most_changed(row: Row | None, split: str) -> list[dict[str, Any]]:
    """Return the texts that changed most.

    Args:
        row: The model's row.
        split: Split to compare on.
    """
    drift = row.changes.get((DRIFT, split)) if row is not None and not row.reference else None
    return list(drift.detail["most_changed"]) if drift is not None else []


def changed_values(rows: Sequence[Row], row: Row, split: str) -> dict[str, float | None]:
    """Return the figures of one row as plain values, by column; no columns where no row has them.

    Args:
        rows: The rows of the table.
        row: One of them.
        split: Split to compare on.
    """
    names = [name for name in (FLIPS, DRIFT) if any((name, split) in each.changes for each in rows)]
    values: dict[str, float | None] = {}
    for name in names:
        fact = row.changes.get((name, split))
        values[f"{name}_{split}"] = fact.value if fact is not None else None
        if name == FLIPS:
            values[f"{name}_{split}_low"] = fact.low if fact is not None else None
            values[f"{name}_{split}_high"] = fact.high if fact is not None else None
        else:
            for part in ("p95", "largest"):
                values[f"{name}_{split}_{part}"] = fact.detail[part] if fact is not None else None
    return values


def changes_json(row: Row) -> dict[str, dict[str, Any]]:
    """Return everything that was compared, by name and split, with groups and the texts that changed most."""
    facts: dict[str, dict[str, Any]] = {}
    for (name, split), fact in row.changes.items():
        facts.setdefault(name, {})[split] = fact.to_json()
    return facts
