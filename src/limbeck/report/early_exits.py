"""How many texts leave a model after which layer."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from limbeck.core import early_exits
from limbeck.core.measurement import EARLY_EXITS, Measurement
from limbeck.report.display_names import names
from limbeck.report.summary import RunSummary


class ExitRow(NamedTuple):
    """One model: its rule, the share of texts that leave at each place, and how many answers that changes."""

    name: str
    rule: str
    shares: str
    changed: str


def exits_of(summary: RunSummary, key: str) -> Measurement | None:
    """Return the early exits of a candidate, as its nearest ancestor has them; None where no head answers early.

    Args:
        summary: The run.
        key: The candidate.
    """
    for record in reversed(summary.lineage(key)):
        fact = record.fact(EARLY_EXITS)
        if fact is not None:
            return fact if fact.detail.get("threshold") is not None else None
    return None


def exit_rows(summary: RunSummary) -> list[ExitRow]:
    """Return a row for each measured candidate with early exits; the figures are those of the fitting, in float.

    Args:
        summary: The run.
    """
    display = names(summary)
    found = ((key, exits_of(summary, key)) for key in summary.candidates)
    return [
        ExitRow(display[key], _rule(fact), share_words(fact), _changed(fact)) for key, fact in found if fact is not None
    ]


def exit_lines(summary: RunSummary) -> list[str]:
    """Return a sentence without a full stop for each measured candidate with early exits."""
    return [f"{row.name} ({row.rule}): {row.shares}; the exits changed {row.changed}" for row in exit_rows(summary)]


def exits_json(summary: RunSummary) -> dict[str, dict[str, Any]]:
    """Return rule and shares of every measured candidate with early exits, by key."""
    found = {key: exits_of(summary, key) for key in summary.candidates}
    return {key: dict(fact.detail) | {"split": fact.split, "n": fact.n} for key, fact in found.items() if fact}


def share_words(fact: Measurement) -> str:
    """Say how many texts leave where, by the fact of a candidate's early exits."""
    return early_exits.share_words(cast(list[int], fact.detail["layers"]), cast(list[float], fact.detail["shares"]))


def _rule(fact: Measurement) -> str:
    return f"{fact.detail['criterion']} {fact.detail['threshold']:g}"


def _changed(fact: Measurement) -> str:
    highest = 100 * float(fact.detail["highest"])
    return f"{fact.detail['changed']} of {fact.n:,} {fact.split} answers (95 %: at most {highest:.2f} % of all)"
