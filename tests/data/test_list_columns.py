"""Columns of lists that are written as text."""

from __future__ import annotations

import pytest

from limbeck.data.list_columns import parse_lists, refuse_other_cells
from limbeck.data.readers import table_of_columns
from limbeck.errors import InputError


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
        (["a", "['a']", "[1]"], ["a", ["a"], [1]]),
        (["['a', nan]", "['a']", "", "['b']"], ["['a', nan]", ["a"], "", ["b"]]),
        (["a", "0 1 1", "1 0 0"], None),
        (["", ""], None),
    ],
)
def test_a_column_is_parsed_where_most_filled_cells_are_lists(cells, parsed):
    table = table_of_columns("here", {"x": cells, "y": ["['word']", "some", "more", "", ""][: len(cells)]})
    read, names = parse_lists(table)
    assert names == (frozenset() if parsed is None else {"x"})
    assert [row[0] for row in read.rows] == (cells if parsed is None else parsed)


def test_named_columns_are_parsed_cell_by_cell():
    table = table_of_columns("here", {"x": ["[1]", "one"], "y": ["[2]", "[3]"]})
    read, names = parse_lists(table, frozenset({"x"}))
    assert (read.rows, names) == ([[[1], "[2]"], ["one", "[3]"]], {"x"})


def test_the_first_cell_that_is_no_list_is_named():
    table, _ = parse_lists(table_of_columns("here", {"x": ["", "['a']", "[1]", "['b' ... 'c']"], "y": ["e"] * 4}))
    with pytest.raises(InputError, match=r"here, row 4: column 'x' has lists.*got \"\['b' ... 'c'\]\""):
        refuse_other_cells(table, ["x"])
    refuse_other_cells(table, [])
