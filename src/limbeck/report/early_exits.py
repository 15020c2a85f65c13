"""How many texts leave a model after which layer, and how many the smaller of two models answers."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, cast

from limbeck.core import early_exits
from limbeck.core.measurement import CASCADE, EARLY_EXITS, Measurement
from limbeck.report.display_names import names
from limbeck.report.summary import RunSummary

FITTED_IN = "floating point"
"""What the answers were computed in that the rule of early exits was fitted on."""


class ExitRow(NamedTuple):
    """One model: its rule, the share of texts that leave at each place, and how many answers that changes."""

    name: str
    rule: str
    shares: str
    changed: str


def exits_of(summary: RunSummary, key: str) -> Measurement | None:
    """Return the early exits of a candidate, as its nearest ancestor has them; None where no head answers early.

    Of a cascade it is the share of texts that its smaller model answers.

    Args:
        summary: The run.
        key: The candidate.
    """
    for record in reversed(summary.lineage(key)):
        fact = record.fact(CASCADE) or record.fact(EARLY_EXITS)
        if fact is not None:
            return fact if fact.detail.get("threshold") is not None else None
    return None


def facts_of(summary: RunSummary, name: str) -> dict[str, Measurement]:
    """Return the facts of this name of all measured candidates, by key.

    Args:
        summary: The run.
        name: That of early exits, or of cascades.
    """
    facts = {key: exits_of(summary, key) for key in summary.candidates}
    return {key: fact for key, fact in facts.items() if fact is not None and fact.name == name}


def exit_rows(summary: RunSummary, name: str = EARLY_EXITS) -> list[ExitRow]:
    """Return a row for each measured candidate with early exits; the figures are those of the fitting.

    Args:
        summary: The run.
        name: Name of the facts; that of cascades gives theirs.
    """
    display = names(summary)
    return [
        ExitRow(display[key], _rule(fact), share_words(fact), _changed(fact, summary.records[key].traits))
        for key, fact in facts_of(summary, name).items()
    ]


def exit_lines(summary: RunSummary) -> list[str]:
    """Return a sentence without a full stop for each measured candidate with early exits, and each cascade."""
    agents = {EARLY_EXITS: "the exits", CASCADE: "the smaller model"}
    return [
        f"{row.name} ({row.rule}): {row.shares}; {agent} changed {row.changed}"
        for name, agent in agents.items()
        for row in exit_rows(summary, name)
    ]


def exits_json(summary: RunSummary, name: str = EARLY_EXITS) -> dict[str, dict[str, Any]]:
    """Return rule and shares of every measured candidate with early exits, by key.

    Args:
        summary: The run.
        name: Name of the facts; that of cascades gives theirs, with the keys of both models.
    """
    plain = {}
    for key, fact in facts_of(summary, name).items():
        plain[key] = dict(fact.detail) | {"split": fact.split, "n": fact.n}
        if name == CASCADE:
            record = summary.records[key]
            plain[key] |= {"small": record.parameters["partner"], "large": record.parent}
    return plain


def share_words(fact: Measurement) -> str:
    """Say how many texts leave where, by the fact of a candidate's early exits."""
    shares = cast(list[float], fact.detail["shares"])
    if fact.name == CASCADE:
        return f"{100 * shares[0]:.0f} % by the smaller model, {100 * shares[1]:.0f} % by the larger"
    return early_exits.share_words(cast(list[int], fact.detail["layers"]), shares)


def _rule(fact: Measurement) -> str:
    return f"{fact.detail['criterion']} {fact.detail['threshold']:g}"


def _changed(fact: Measurement, traits: AbstractSet[str]) -> str:
    """Say how many answers a rule changes; that of early exits was fitted before the model was quantized."""
    form = "" if fact.name == CASCADE else f" in {FITTED_IN}" + (", before INT8" if "int8" in traits else "")
    highest = 100 * float(fact.detail["highest"])
    return f"{fact.detail['changed']} of {fact.n:,} {fact.split} answers{form} (95 %: at most {highest:.2f} % of all)"
