"""A label for every word."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.assessment import UnseenWord
from limbeck.core.kinds.tokens import KIND
from limbeck.core.metrics import IGNORED
from limbeck.errors import InputError


def test_reviews_of_words_stay_aligned():
    logits = np.array([[0, 9], [np.nan, np.nan], [0, 9], [0, 0.1], [9, 0]])  # word 1 has no token
    predicted, guarded = KIND.review(logits, (0, 0, 1, 0, IGNORED), 0.9)
    assert predicted == (1, 0, 1, 1, 0)
    assert guarded == (1, 0, 1, 0, IGNORED)
    assert KIND.review(logits, (0, 0, 1, 0, IGNORED), 1.0)[1] == (0, 0, 1, 0, IGNORED)


def test_ignored_positions_are_left_out_padded_or_ragged():
    logits = np.zeros((2, 3, 3))
    logits[0, 0, 2] = logits[0, 1, 1] = logits[1, 0, 1] = 1.0
    labels = np.array([[2, 1, IGNORED], [2, IGNORED, IGNORED]])
    ragged = KIND.score("accuracy", (), [logits[0][:2], logits[1][:1]], [[2, 1], [2]])
    assert KIND.score("accuracy", (), logits, labels) == ragged == pytest.approx(2 / 3)


def test_answers_are_compared_word_by_word():
    first, second = np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 2, 2]]
    same = KIND.same_answers([first, first], [second, second], [[0, 1, IGNORED], [0, IGNORED, 1]])
    assert same.tolist() == [False, True]


def test_without_a_tag_for_other_words_every_word_counts():
    assert KIND.usual_metric(("O", "person")) == "token_f1"
    assert KIND.usual_metric(("O", "B-person", "I-person")) == "entity_f1"
    assert KIND.usual_metric(("noun", "O")) == "accuracy"


def test_there_is_a_tag_for_each_word():
    assert KIND.encode([0, 2], 3, 2) == (0, 2)
    with pytest.raises(InputError, match="3 words but 2 tags"):
        KIND.encode([0, 2], 3, 3)


def test_words_without_a_token_count_as_outside():
    names = ("O", "person")
    assessment = KIND.assess("accuracy", names, [np.eye(2)[[1]]], [[1]], [[UnseenWord(0, 0), UnseenWord(2, 1)]])
    assert assessment.quality.value == pytest.approx(2 / 3)
    assert assessment.detail["unseen_words"] == 2


def test_a_word_without_a_token_divides_an_entity_where_it_stands():
    names = ("O", "B-person", "I-person")
    logits = [np.eye(3)[[1, 2, 0]]]  # the second of four words has no token
    assessment = KIND.assess("entity_f1", names, logits, [[1, 2, 0]], [[UnseenWord(1, 2)]])
    assert assessment.quality.value == 0.0
    figures = assessment.detail["per_type"]["person"]
    assert (figures["examples"], figures["predicted"], figures["correct"]) == (1, 2, 0)
    assert KIND.assess("entity_f1", names, logits, [[1, 2, 0]], [[UnseenWord(3, 0)]]).quality.value == 1.0


def test_entities_have_intervals_over_sentences_beside_the_metric():
    names = ("O", "B-person", "I-person")
    right, wrong = np.eye(3)[[1, 2, 0]], np.eye(3)[[1, 0, 0]]
    assessed = KIND.assess("token_f1", names, [right, wrong] * 20, [[1, 2, 0]] * 40)
    assert set(assessed.beside) == {"entity_f1", "entity_precision", "entity_recall"}
    assert assessed.beside["entity_f1"].value == 0.5
    assert assessed.beside["entity_f1"].low < 0.5 < assessed.beside["entity_f1"].high
