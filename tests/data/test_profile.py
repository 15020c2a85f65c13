"""Single columns: texts, labels and ids are told apart by what is in them."""

from __future__ import annotations

import pytest

from limbeck.data.profile import Profile

SENTENCES = [f"a rather {word} film" for word in ("good", "bad", "long", "short", "odd", "dull")]


@pytest.mark.parametrize(
    ("name", "cells", "index"),
    [
        ("", ["0", "1", "2"], True),
        ("id", ["x1", "x7", "x7"], True),
        ("Unnamed: 0", ["0", "1", "2"], True),
        ("reviewId", [f"a{n}" for n in range(9)], True),
        ("3", [str(n) for n in range(7, 16)], True),
        ("intent_id", ["0", "1", "0"], False),
        ("id", SENTENCES, False),
        ("valid", ["1", "0", "1"], False),
        ("score", [str(n) for n in range(9)], False),
        ("0", [("1", "2", "3"), ("1", "2")], True),
        ("1", [("EU", "says"), ("so",)], False),
    ],
)
def test_ids_and_row_numbers(name, cells, index):
    assert Profile(name, cells).is_index is index


def test_texts_and_labels():
    texts, classes = Profile("x", SENTENCES), Profile("y", ["World News", "Sport"] * 4)
    assert (texts.is_text, texts.is_label) == (True, False)
    assert (classes.is_text, classes.is_label) == (False, True)
    assert Profile("n", ["0,5", "1"]).is_label
    few = Profile("z", ["good", "bad"])  # too few rows to say
    assert (few.is_text, few.is_label) == (False, False)
    assert Profile("b", ["1", "", "0"]).binary
    assert not Profile("b", ["1", "2"]).binary


@pytest.mark.parametrize(
    ("cells", "vectors"),
    [
        ([(1, 0), (0, 1)], True),
        ([(1, 0), (0, 1, 1)], False),
        ([("a", "b"), ("c", "d")], False),
        ([(1,), (0,)], False),
        ([("0", "1"), ("1.0", 0)], True),
        ([(1, 0), (-1, -1), (0, None)], True),
        ([(1, 0), (0, 0.5)], False),
        ([(1, 0), (0, 2)], False),
        (["1 0"], False),
        ([], False),
    ],
)
def test_vectors_of_0_and_1(cells, vectors):
    assert Profile("labels", cells).vectors == vectors


def test_scores_of_pairs_are_numbers_or_have_their_name():
    assert Profile("alike", ["0.5", "1"]).may_be_score
    assert Profile("score", ["high"]).may_be_score
    assert not Profile("negative", SENTENCES).may_be_score


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        ([(0.1, 0.9), (1, 0)], 0),
        ([None, (1, 0), ("0", "0.5")], 2),
        ([(1.0, 0.0)], None),
        ([(0.1, 0.9), (0.1,)], None),
        ([("a", 0.5)], None),
        ([("a",), ("a", "b")], None),
        ([], None),
    ],
)
def test_vectors_with_fractions(cells, row):
    assert Profile("labels", cells).fractions == row
