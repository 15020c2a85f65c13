"""Every shape that a search evaluated, with its score and its cost, as a table (``search/evaluated_shapes.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.measurement import EVALUATED_SHAPES
from limbeck.core.shape import Shape
from limbeck.report.formatting import csv_text


def shapes_csv(records: Iterable[Record]) -> str:
    """Return all evaluated shapes of these records as CSV, the best of each search first; empty if there are none.

    Heads and neurons are those of every layer, separated by spaces.
    """
    lines = [line for record in records for line in _lines(record)]
    return csv_text(lines) if lines else ""


def _lines(record: Record) -> Iterator[dict[str, Any]]:
    fact = record.fact(EVALUATED_SHAPES)
    if fact is None:
        return
    detail = fact.detail
    column, scale = ("latency_ms", 1e3) if detail["unit"] == "s" else (detail["cost"], 1.0)
    for plain, score, cost, winner in sorted(detail["shapes"], key=lambda row: (-row[1], row[2])):
        shape = Shape.from_json(plain)
        yield {
            "search": record.key,
            "shape": str(shape),
            "layers": shape.depth,
            "hidden": shape.hidden,
            "head_dim": shape.head_dim,
            "heads": " ".join(str(row.heads) for row in shape.layers),
            "ffn": " ".join(str(row.ffn) for row in shape.layers),
            f"{detail['metric']}_{fact.split}": score,
            column: cost * scale,
            "winner": "yes" if winner else "",
        }
