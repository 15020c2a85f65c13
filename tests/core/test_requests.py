from __future__ import annotations

import pytest

from limbeck.core.requests import Judged, choose_requests, ideal_gain, requests_of
from limbeck.core.retrieval import ndcg

LABELS = [tuple(Judged(query, float(row % 2), 1.0)) for query in range(12) for row in range(query % 3 + 2)]


def test_requests_partition_the_rows_by_query():
    requests = requests_of(LABELS)
    assert sorted(row for rows in requests for row in rows) == list(range(len(LABELS)))
    assert all(len({LABELS[row][0] for row in rows}) == 1 for rows in requests)
    assert len(requests) == 12


@pytest.mark.parametrize("count", [1, 7, 20])
def test_whole_requests_are_chosen_and_fewer_of_them_are_a_subset(count):
    chosen = choose_requests(LABELS, count, seed=0)
    queries = {LABELS[row][0] for row in chosen}
    assert chosen == [row for row, label in enumerate(LABELS) if label[0] in queries]
    assert len(queries) == 1 or len(chosen) <= count
    assert set(chosen) <= set(choose_requests(LABELS, 25, seed=0))
    assert chosen == choose_requests(LABELS, count, seed=0)


def test_the_ideal_gain_is_that_of_the_best_ranking():
    gains = {str(index): float(gain) for index, gain in enumerate([0, 3, 1, -2, 1] + [1] * 9)}
    best = sorted(gains, key=lambda key: -gains[key])
    assert ndcg(best, gains) == pytest.approx(1.0)
    assert ideal_gain(list(gains.values())) == ideal_gain(sorted(gains.values()))
    assert ideal_gain([0.0, -1.0]) == 0
