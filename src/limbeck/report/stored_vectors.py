"""What is lost where vectors are stored in fewer bytes, as a table."""

from __future__ import annotations

from typing import NamedTuple, TypedDict, cast

from limbeck.core.measurement import Measurement
from limbeck.report.formatting import quality
from limbeck.report.summary import RunSummary
from limbeck.report.table import Row

FORMS = {"int8": "int8 (range of each component)", "binary": "one bit (sign)"}
"""Ways to store vectors in words; others keep leading components in float32."""


class StoredFigures(TypedDict):
    """What the ``quality`` probe measures of a way to store vectors."""

    metric: str
    bytes: int
    value: float
    low: float
    high: float
    loss: float
    loss_low: float
    loss_high: float


class StoredRow(NamedTuple):
    """One way to store vectors: bytes of a vector, the metric, and what is lost with its interval."""

    form: str
    bytes: int
    metric: str
    value: str
    loss: str


def stored_figures(fact: Measurement | None) -> dict[str, StoredFigures]:
    """Return the figures of a ``quality`` measurement by the way of storing; empty where answers are no vectors."""
    return cast(dict[str, StoredFigures], fact.detail.get("stored", {})) if fact is not None else {}


def stored_rows(row: Row | None, split: str) -> list[StoredRow]:
    """Format the figures of a model.

    Args:
        row: The row of the model.
        split: The split they were measured on.
    """
    figures = stored_figures(row.quality.get(split) if row is not None else None)
    return [
        StoredRow(
            FORMS.get(form, f"{form} components"),
            each["bytes"],
            each["metric"],
            quality(each["value"], each["metric"]),
            f"{each['loss']:.4f} [{each['loss_low']:.4f}, {each['loss_high']:.4f}]",
        )
        for form, each in figures.items()
    ]


def stored_json(summary: RunSummary) -> dict[str, dict[str, dict[str, StoredFigures]]]:
    """Return the figures of every measured candidate and split."""
    figures: dict[str, dict[str, dict[str, StoredFigures]]] = {}
    for key in summary.candidates:
        for fact in summary.records[key].facts:
            if fact.name == "quality" and fact.split and stored_figures(fact):
                figures.setdefault(key, {})[fact.split] = stored_figures(fact)
    return figures
