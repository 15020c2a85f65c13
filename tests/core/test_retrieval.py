from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from limbeck.core.retrieval import ndcg, order, overlap, recall, reciprocal_rank


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("seed", range(4))
def test_ndcg_equals_that_of_scikit_learn(seed, k):
    rng = np.random.default_rng(seed)
    scores, gains = rng.normal(size=20), rng.integers(0, 4, 20)
    ranked = order(scores).tolist()
    expected = ndcg_score(gains[None], scores[None], k=k)
    assert ndcg(ranked, dict(enumerate(gains.tolist())), k) == pytest.approx(expected)


def test_documents_without_a_judgment_count_as_irrelevant():
    assert ndcg(["x", "a"], {"a": 1.0, "b": -1.0}) == pytest.approx(1 / np.log2(3))
    assert ndcg(["x"], {}) == 0


def test_the_first_relevant_document_decides_the_reciprocal_rank():
    assert reciprocal_rank(["x", "y", "a", "b"], {"a", "b"}) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "y", "a"], {"a"}, k=2) == 0


def test_recall_is_over_all_relevant_documents():
    assert recall(["a", "x", "b"], {"a", "b", "c"}, k=2) == pytest.approx(1 / 3)
    assert recall(["a"], set()) == 0


def test_overlap_of_short_rankings():
    assert overlap(["a", "b"], ["b", "a"]) == 1
    assert overlap(list("abcd"), list("cdef"), k=4) == 0.5
    assert overlap([], ["a"]) == 1


def test_equal_scores_keep_their_order():
    assert order([1.0, 2.0, 1.0]).tolist() == [1, 0, 2]
