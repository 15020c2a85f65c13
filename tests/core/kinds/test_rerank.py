from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.kinds import find
from limbeck.core.metrics import METRICS
from limbeck.core.requests import Judged, ideal_gain
from limbeck.core.retrieval import ndcg, overlap, reciprocal_rank
from limbeck.core.statistics import unpack_numbers

KIND = find("rerank")
DOCUMENTS = 15


def requests(seed=0, queries=9):
    """Scores, gains and labels of some queries; the last one has no relevant document."""
    rng = np.random.default_rng(seed)
    gains = rng.integers(0, 3, (queries, DOCUMENTS)) * (rng.random((queries, DOCUMENTS)) < 0.4)
    gains[-1] = 0
    found_elsewhere = [2.0] * 3  # relevant documents that are no candidates
    labels = [
        tuple(Judged(query, float(gain), ideal_gain([*row.tolist(), *(found_elsewhere if row.any() else [])])))
        for query, row in enumerate(gains)
        for gain in row
    ]
    return rng.normal(size=(queries, DOCUMENTS)), gains, labels


def test_metrics_equal_a_loop_over_queries_and_count_documents_that_are_no_candidates():
    scores, gains, labels = requests()
    expected = {"ndcg_at_10": [], "mrr_at_10": []}
    for row, judged in zip(scores[:-1], gains[:-1], strict=True):
        ranked = np.argsort(-row).tolist()
        relevance = dict(enumerate(judged.tolist())) | {f"elsewhere {index}": 2.0 for index in range(3)}
        expected["ndcg_at_10"].append(ndcg(ranked, relevance))
        expected["mrr_at_10"].append(reciprocal_rank(ranked, {key for key, gain in relevance.items() if gain > 0}, 10))
    for name, values in expected.items():
        assert KIND.score(name, (), scores.reshape(-1, 1), labels) == pytest.approx(np.mean(values))
        assert METRICS[name](scores.ravel(), labels) == pytest.approx(np.mean(values))


def test_overlap_reads_the_labels_as_a_ranking():
    scores, _, labels = requests()
    teacher = np.random.default_rng(1).normal(size=scores.shape)
    own = [(label[0], score, 0.0) for label, score in zip(labels, teacher.ravel(), strict=True)]
    pairs = zip(scores, teacher, strict=True)
    expected = np.mean([overlap(np.argsort(-a).tolist(), np.argsort(-b).tolist()) for a, b in pairs])
    assert KIND.score("overlap_at_10", (), scores.reshape(-1, 1), own) == pytest.approx(expected)
    likeness = KIND.likeness(teacher.reshape(-1, 1), scores.reshape(-1, 1), labels)
    assert likeness["overlap_at_10"].value == pytest.approx(expected)
    assert KIND.likeness(teacher.reshape(-1, 1), teacher.reshape(-1, 1), labels)["overlap_at_10"].value == 1


def test_queries_with_ten_documents_or_fewer_are_no_part_of_the_overlap():
    """Any order has the same first ten."""
    scores, _, labels = requests()
    short = [(100, float(gain), 0.0) for gain in range(5)]
    own = [(label[0], -score, 0.0) for label, score in zip(labels, scores.ravel(), strict=True)]
    alone = KIND.score("overlap_at_10", (), scores.reshape(-1, 1), own)
    both = np.concatenate([scores.ravel(), np.arange(5.0)]).reshape(-1, 1)
    assert KIND.score("overlap_at_10", (), both, [*own, *short]) == alone < 1


def test_queries_are_resampled_not_rows():
    scores, _, labels = requests(queries=7)
    result = KIND.assess("ndcg_at_10", (), list(scores.reshape(-1, 1)), labels)
    assert result.examples == 6
    values = [KIND.score("ndcg_at_10", (), scores[q].reshape(-1, 1), labels[q * 15 : q * 15 + 15]) for q in range(6)]
    again = np.random.default_rng(0)
    expected = [np.mean(np.array(values)[again.integers(0, 6, 6)]) for _ in range(5)]
    np.testing.assert_allclose(unpack_numbers(result.detail["resampled"])[:5], expected, rtol=1e-5)
    assert result.beside.keys() == {"mrr_at_10"}


def test_the_order_of_rows_and_a_shift_of_all_scores_change_nothing():
    scores, _, labels = requests()
    flat, shuffled = scores.reshape(-1, 1), np.random.default_rng(2).permutation(scores.size)
    for name in ("ndcg_at_10", "mrr_at_10", "overlap_at_10"):
        value = KIND.score(name, (), flat, labels)
        assert KIND.score(name, (), flat + 3, labels) == pytest.approx(value)
        mixed = KIND.score(name, (), flat[shuffled], [labels[row] for row in shuffled])
        if name != "overlap_at_10":  # whose equal gains are in the order of the rows
            assert mixed == pytest.approx(value)


def test_answers_are_alike_where_the_same_documents_come_first():
    scores, _, labels = requests(queries=1)
    other = scores.copy()
    other[0, np.argsort(-scores[0])[[9, 10]]] = other[0, np.argsort(-scores[0])[[10, 9]]]
    same = KIND.same_answers(scores.reshape(-1, 1), other.reshape(-1, 1), labels)
    assert (~same).sum() == 2


def test_no_query_with_a_relevant_document_scores_nothing():
    labels = [(0, 0.0, 0.0), (0, 0.0, 0.0)]
    assert KIND.score("ndcg_at_10", (), [[1.0], [2.0]], labels) == 0
    assert KIND.assess("ndcg_at_10", (), [[1.0], [2.0]], labels).examples == 0
