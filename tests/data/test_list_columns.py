"""Columns of lists that are written as text."""

from __future__ import annotations

import pytest

from limbeck.data.list_columns import parse_lists
from limbeck.data.readers import table_of_columns


@pytest.mark.parametrize(
    ("cells", "parsed"),
    [
        (["['a', 'b']", "[1 0]", "[]"], [["a", "b"], [1, 0], []]),
        (["", "['a']"], ["", ["a"]]),
        (["0,1,1", " 1, 0, 0 "], [[0, 1, 1], [1, 0, 0]]),
        (["0 1 1", "[1, 0, 0]"], [[0, 1, 1], [1, 0, 0]]),
        (["0,1", "1,0"], None),
        (["0 1 1", "0 1 1 1"], None),
        (["0 1 1", "0 1 2"], None),
        (["a", "['a']"], None),
        (["", ""], None),
    ],
)
def test_a_column_is_parsed_where_every_filled_cell_is_a_list(cells, parsed):
    table = table_of_columns("here", {"x": cells, "y": ["some", "['word']", ""][: len(cells)]})
    read, names = parse_lists(table)
    assert names == (frozenset() if parsed is None else {"x"})
    assert [row[0] for row in read.rows] == (cells if parsed is None else parsed)


def test_named_columns_are_parsed_cell_by_cell():
    table = table_of_columns("here", {"x": ["[1]", "one"], "y": ["[2]", "[3]"]})
    read, names = parse_lists(table, frozenset({"x"}))
    assert (read.rows, names) == ([[[1], "[2]"], ["one", "[3]"]], {"x"})
