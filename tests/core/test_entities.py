"""Whole entities against seqeval, which defines how they are counted, in every scheme."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from limbeck.core.entities import (
    Entity,
    Piece,
    count_entities,
    find_spans,
    group_pieces,
    join_pieces,
    join_rows,
    join_windows,
    scheme_of,
    scores_of,
)

SCHEMES = {"IO": "I", "IOB": "BI", "IOE": "IE", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
AS_SEQEVAL = str.maketrans("LUM", "ESI")  # by default it knows the letters B, I, E and S alone


def names_of(letters):
    return ("O", *(f"{letter}-{kind}" for kind in ("PER", "ORG-x", "LOC") for letter in letters))


def random_rows(letters, seed, rows=40):
    """Random sequences, most of them in no scheme's order, and some empty ones; predictions are half right."""
    rng, width = np.random.default_rng(seed), len(names_of(letters))
    truth = [np.where(rng.random(n) < 0.4, 0, rng.integers(0, width, n)) for n in rng.integers(0, 15, rows)]
    noise = [rng.integers(0, width, len(row)) for row in truth]
    return [np.where(rng.random(len(row)) < 0.6, row, other) for row, other in zip(truth, noise, strict=True)], truth


def written(names, rows):
    return [[names[tag][0].translate(AS_SEQEVAL) + names[tag][1:] for tag in row] for row in rows]


@pytest.mark.parametrize("letters", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("seed", range(10))
def test_random_sequences_score_as_in_seqeval(letters, seed):
    names = names_of(letters)
    scheme = scheme_of(names)
    predicted, truth = random_rows(letters, seed)
    counts = count_entities(scheme, predicted, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = written(names, truth), written(names, predicted)
        expected = precision_score(*pair), recall_score(*pair), f1_score(*pair)
        per_type = f1_score(*pair, average=None)
    assert scores_of(counts.sum((0, 1))) == pytest.approx(expected, abs=1e-12)
    occurs = counts.sum((0, 2)) > 0
    assert [scores_of(sums).f1 for sums in counts.sum(0)[occurs]] == pytest.approx(per_type.tolist(), abs=1e-12)


@pytest.mark.parametrize("letters", SCHEMES.values(), ids=SCHEMES)
def test_spans_are_those_of_seqeval_sentence_by_sentence(letters):
    names = names_of(letters)
    scheme = scheme_of(names)
    for row in random_rows(letters, 11)[1]:
        spans = find_spans(join_rows(scheme, [row]))
        ours = [(scheme.types[kind], int(first), int(last)) for kind, first, last in zip(*spans, strict=True)]
        assert ours == get_entities(written(names, [row])[0])


def test_sentences_are_counted_apart():
    scheme = scheme_of(("O", "B-A", "I-A"))
    counts = count_entities(scheme, [[1], [2], []], [[1], [2], []])
    assert counts.tolist() == [[[1, 1, 1]], [[1, 1, 1]], [[0, 0, 0]]]
    assert count_entities(scheme, [], []).shape == (0, 1, 3)
    assert scores_of([0, 0, 0]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("names", "types"),
    [
        (("O", "B-PER", "I-PER", "S-LOC"), ("LOC", "PER")),
        (("B", "I", "O"), ("_",)),
        (("O", "B-PER-1"), ("PER-1",)),
        (("O",), None),
        (("B-PER", "I-PER"), None),
        (("O", "person"), None),
        (("O", "X-PER"), None),
    ],
)
def test_which_tags_mark_entities(names, types):
    scheme = scheme_of(names)
    assert (scheme and scheme.types) == types


def test_pieces_become_entities_with_their_offsets():
    scheme = scheme_of(("O", "B-PER", "I-PER"))
    pieces = [Piece(1, 0.8, 0, 2), Piece(2, 0.6, 2, 4), Piece(1, 0.9, 5, 9), Piece(0, 1.0, 10, 13)]
    assert group_pieces(scheme, pieces) == [
        Entity("PER", 0, 4, pytest.approx(0.7)),
        Entity("PER", 5, 9, pytest.approx(0.9)),
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("O", "B-A", "I-A"), True), (("O", "I-A"), True), (("O", "B-A", "I-A", "E-A"), False), (("O", "U-A"), False)],
)
def test_schemes_that_mark_ends_are_told_apart(names, expected):
    assert scheme_of(names).has_only_begin_and_inside is expected


def test_the_pieces_of_a_word_take_the_tag_of_its_first():
    pieces = [Piece(1, 0.8, 0, 2), Piece(0, 0.6, 2, 4), Piece(2, 0.9, 4, 5), Piece(0, 0.7, 6, 9)]
    assert join_pieces(pieces, [False, True, True, False]) == [Piece(1, 0.8, 0, 5), pieces[3]]
    assert join_pieces(pieces[1:2], [True]) == pieces[1:2]  # a window may begin within a word


def test_of_overlapping_windows_the_longer_entity_stays():
    first, longer, likelier = Entity("A", 0, 4, 0.9), Entity("A", 2, 9, 0.5), Entity("B", 2, 9, 0.6)
    apart = Entity("C", 9, 12, 0.1)
    assert join_windows([apart, longer, first]) == [longer, apart]
    assert join_windows([first, longer, likelier, first]) == [likelier]
    assert join_windows([]) == []
