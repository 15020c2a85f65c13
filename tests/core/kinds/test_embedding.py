from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.kinds import find
from limbeck.core.kinds.embedding import mean_cosine, neighbor_overlap

KIND = find("embedding")


def test_cosines_of_joined_vectors_equal_a_loop():
    rows = np.random.default_rng(0).normal(size=(5, 8))
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(rows[:, :4], rows[:, 4:], strict=True)]
    np.testing.assert_allclose(KIND.decode(rows), expected)


def test_spearman_reads_the_order_of_the_scores_alone():
    rows = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [1, 0, 0, 1]], dtype=float)
    assert KIND.score("spearman", (), rows, [5.0, 4.9, -3.0]) == pytest.approx(1)
    assert KIND.score("spearman", (), rows, [0.0, 1.0, 2.0]) == pytest.approx(-1)


def test_fidelity_of_the_same_vectors_in_another_length_is_whole():
    vectors = np.random.default_rng(0).normal(size=(30, 6))
    assert mean_cosine(3 * vectors, vectors) == pytest.approx(1)
    assert neighbor_overlap(3 * vectors, vectors) == 1
    result = KIND.assess("mean_cosine", (), list(3 * vectors), [tuple(row) for row in vectors])
    assert result.quality.value == pytest.approx(1)
    assert result.beside["neighbor_overlap"].value == 1


def test_neighbors_equal_a_search_text_by_text():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 25, 4))

    def near(vectors, row):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        others = [other for other in range(len(unit)) if other != row]
        return set(sorted(others, key=lambda other: -float(unit[row] @ unit[other]))[:10])

    expected = np.mean([len(near(first, row) & near(second, row)) / 10 for row in range(25)])
    assert neighbor_overlap(first, second) == pytest.approx(expected)


def test_a_single_text_has_no_neighbors_to_lose():
    assert neighbor_overlap([[1.0, 2.0]], [[3.0, 1.0]]) == 1


def test_answers_are_alike_up_to_a_small_angle():
    same = KIND.same_answers([np.array([1.0, 0.0])] * 2, [np.array([1.0, 0.01]), np.array([0.0, 1.0])], [0, 0])
    assert same.tolist() == [True, False]
