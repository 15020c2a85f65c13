"""Columns whose cells are lists written as text, as CSV files have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from limbeck.data.cells import Scalar, is_unlabeled, parse_list
from limbeck.data.readers import Table

#: a vector without brackets; of three elements or more, since 0,1 is a number with a decimal comma
_VECTOR = re.compile(r"\s*[01](?:[,;|\s]+[01]){2,}\s*")


def parse_lists(table: Table, columns: frozenset[str] | None = None) -> tuple[Table, frozenset[str]]:
    """Parse lists written as text.

    Args:
        table: Any table.
        columns: Columns that hold lists; if None, those whose filled cells are all lists, or vectors of 0 and 1 of
            equal length without brackets.

    Returns:
        The table with parsed lists, and the names of these columns.
    """
    parsed: dict[int, list[Any]] = {}
    for index, name in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        values = [_parse(cell) for cell in cells] if columns is None or name in columns else []
        if name in (columns or ()) or (columns is None and _are_lists(cells, values)):
            parsed[index] = [cell if value is None else value for cell, value in zip(cells, values, strict=True)]
    if not parsed:
        return table, frozenset()
    rows: list[Sequence[Any]] = [list(row) for row in table.rows]
    for index, values in parsed.items():
        for row, value in zip(rows, values, strict=True):
            row[index] = value  # type: ignore[index]
    return replace(table, rows=rows), frozenset(table.columns[index] for index in parsed)


def _parse(cell: object) -> list[Scalar] | None:
    if not isinstance(cell, str):
        return None
    return [int(digit) for digit in re.findall("[01]", cell)] if _VECTOR.fullmatch(cell) else parse_list(cell)


def _are_lists(cells: Sequence[Any], values: Sequence[list[Scalar] | None]) -> bool:
    """Return whether every filled cell is a list; those without brackets have one length."""
    filled = [(cell, value) for cell, value in zip(cells, values, strict=True) if not is_unlabeled(cell)]
    bare = [len(value) for cell, value in filled if value is not None and _VECTOR.fullmatch(cell)]
    return bool(filled) and all(value is not None for _, value in filled) and len(set(bare)) <= 1
