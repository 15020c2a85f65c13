import pytest

from limbeck.data.column_names import ID_WORDS, LABEL_WORDS, PAIR_WORDS, TEXT_WORDS, check_columns, looks_like_header
from limbeck.errors import InputError


@pytest.mark.parametrize(
    ("first", "rest", "header"),
    [
        (["text", "label"], [["a film", "good"]], True),
        (["titel", "note"], [["a film", "1"], ["a play", "2"]], True),  # above numbers
        (["titel", "wertung"], [["a film", "gut"], ["a play", "gut"]], True),  # above values that repeat
        (["good", "pos"], [["bad", "neg"], ["fine", "pos"]], False),  # its label occurs again
        (["a film", "good"], [["a play", "bad"]], False),
        (["", "0", "1"], [["0", "a film", "good"]], True),  # as pandas writes columns without names
        (["0.5", "0.7"], [["0.1", "0.2"]], False),
    ],
)
def test_headers_are_recognized(first, rest, header):
    assert looks_like_header(first, rest) is header


def test_a_column_is_named_once():
    assert check_columns("a.csv", ["a", "b"]) == ("a", "b")
    with pytest.raises(InputError, match=r"a.csv: the header has 'a' twice \(columns 1 and 3\)"):
        check_columns("a.csv", ["a", "b", "a"])


def test_no_name_has_two_roles():
    assert not {*LABEL_WORDS} & {*TEXT_WORDS, *ID_WORDS, *(word for pair in PAIR_WORDS for word in pair)}
