"""Figures of each type of entity, where a run labels entities."""

from __future__ import annotations

from typing import NamedTuple, TypedDict, cast

from limbeck.core.measurement import Measurement
from limbeck.report.summary import RunSummary
from limbeck.report.table import Row


class TypeFigures(TypedDict):
    """What the ``quality`` probe counts of a type."""

    correct: int
    predicted: int
    examples: int
    precision: float
    recall: float
    f1: float


class TypeRow(NamedTuple):
    """One type: entities present, precision, recall and F1 of a model, and the F1 of the reference."""

    type: str
    n: int
    precision: str
    recall: str
    f1: str
    before: str


def types_of(fact: Measurement | None) -> dict[str, TypeFigures]:
    """Return the figures of a ``quality`` measurement by type; empty where the labels mark no entities."""
    return cast(dict[str, TypeFigures], fact.detail.get("per_type", {})) if fact is not None else {}


def type_rows(row: Row | None, reference: Row | None, split: str) -> list[TypeRow]:
    """Format the figures of a model by type, the most frequent type first.

    Args:
        row: The row of the model.
        reference: The row of the model that figures are relative to.
        split: The split they were measured on.
    """
    own = types_of(row.quality.get(split) if row is not None else None)
    other = types_of(reference.quality.get(split) if reference is not None else None)
    return [
        TypeRow(
            name,
            figures["examples"],
            f"{figures['precision']:.1%}",
            f"{figures['recall']:.1%}",
            f"{figures['f1']:.1%}",
            f"{other[name]['f1']:.1%}" if name in other else "–",
        )
        for name, figures in sorted(own.items(), key=lambda item: (-item[1]["examples"], item[0]))
    ]


def types_json(summary: RunSummary) -> dict[str, dict[str, dict[str, TypeFigures]]]:
    """Return the figures by type of every measured candidate and split."""
    figures: dict[str, dict[str, dict[str, TypeFigures]]] = {}
    for key in summary.candidates:
        for fact in summary.records[key].facts:
            if fact.name == "quality" and fact.split and types_of(fact):
                figures.setdefault(key, {})[fact.split] = types_of(fact)
    return figures
