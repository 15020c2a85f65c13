"""Pieces of a step's work: named by their content, and wanted where their results are unknown."""

from __future__ import annotations

import pytest

from limbeck.core.pieces import Divisible, KnownResults, PiecesWanted, names_of

PIECES = [{"row": 1}, {"row": 2}]


def test_a_name_depends_on_the_piece_and_on_what_all_read():
    names = {*names_of(PIECES), *names_of(PIECES, {"seed": 1}), *names_of([{"row": 1, "keeps": "a"}])}
    assert len(names) == 5
    assert names_of([{"b": 1, "a": (1, 2)}]) == names_of([{"a": [1, 2], "b": 1}])  # as they arrive elsewhere


def test_results_come_in_the_order_of_the_pieces():
    first, second = names_of(PIECES)
    spread = KnownResults({second: {"value": 2}, first: {"value": 1}})
    assert spread([*PIECES, PIECES[0]]) == [{"value": 1}, {"value": 2}, {"value": 1}]
    assert spread([]) == []


def test_what_is_unknown_is_wanted_and_nothing_takes_that_for_an_error():
    first, second = names_of(PIECES, {"seed": 1})
    try:
        with pytest.raises(PiecesWanted) as wanted:
            KnownResults({first: {}})(PIECES, {"seed": 1})
    except Exception:  # pragma: no cover
        pytest.fail("it is no error")
    assert not isinstance(wanted.value, Exception)
    assert (wanted.value.pieces, wanted.value.shared) == ({second: {"row": 2}}, {"seed": 1})


def test_most_steps_hand_out_nothing():
    with pytest.raises(NotImplementedError, match="Divisible hands out no pieces"):
        Divisible().work_on([], {}, None, None)
