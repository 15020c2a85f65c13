"""Columns whose cells are lists written as text, as CSV files have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from limbeck.data.cells import Scalar, is_unlabeled, parse_list
from limbeck.data.readers import Table
from limbeck.errors import InputError, shown

#: a vector without brackets; of three elements or more, since 0,1 is a number with a decimal comma
_VECTOR = re.compile(r"\s*[01](?:[,;|\s]+[01]){2,}\s*")


def parse_lists(table: Table, columns: frozenset[str] | None = None) -> tuple[Table, frozenset[str]]:
    """Parse lists written as text.

    Args:
        table: Any table.
        columns: Columns that hold lists; if None, those where most of the filled cells are lists, or all are vectors of
            0 and 1 of equal length without brackets.

    Returns:
        The table with parsed lists, and the names of these columns; other cells stay as they are.
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
    """Return whether the filled cells are lists, most of those with brackets, and all of those without."""
    filled = [(cell, value) for cell, value in zip(cells, values, strict=True) if not is_unlabeled(cell)]
    bare = {len(value) for cell, value in filled if value is not None and _VECTOR.fullmatch(cell)}
    count = sum(value is not None for _, value in filled)
    return (count == len(filled) > 0 and len(bare) == 1) if bare else 2 * count > len(filled)


def refuse_other_cells(table: Table, columns: Iterable[str]) -> None:
    """Refuse text that is no list in columns of lists: divided at white space, it would be other words.

    Args:
        table: A table with parsed lists.
        columns: The columns to check.

    Raises:
        InputError: Names the first such row.
    """
    for name in columns:
        index = table.columns.index(name)
        for row, cells in enumerate(table.rows):
            if isinstance(cells[index], str) and not is_unlabeled(cells[index]):
                raise InputError(
                    f"{table.at(row)}: column '{name}' has lists written as text, but this is not one of words and "
                    f"numbers, got {shown(cells[index])}; write it in full, as ['a', 'b']"
                )
