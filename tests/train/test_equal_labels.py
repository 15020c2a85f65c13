from __future__ import annotations

import pytest

from limbeck.train.equal_labels import pair_loss_problem, rank_loss_problem


@pytest.mark.parametrize("kind", ["cosent", "cosine", "contrastive"])
def test_only_pairs_that_belong_together_may_have_equal_scores(kind):
    assert pair_loss_problem(kind, [0.0, 2.5]) == ""
    reason = pair_loss_problem(kind, [2.5, 2.5])
    assert ("all pairs have 2.5" in reason) == (kind != "contrastive")


@pytest.mark.parametrize(
    ("gains", "refused"),
    [
        ([0.0, 1.0, 3.0], set()),
        ([0.2, 0.9], {"binary"}),
        ([-3.0, -0.5], {"binary", "listwise"}),
        ([1.0, 1.0], {"binary", "listwise", "pointwise"}),
    ],
)
def test_a_loss_is_refused_where_its_labels_are_one(gains, refused):
    assert {kind for kind in ("binary", "listwise", "pointwise") if rank_loss_problem(kind, gains)} == refused


def test_the_loss_for_scores_of_a_teacher_is_named():
    assert "set pointwise" in rank_loss_problem("binary", [0.1, 0.7])
    assert "gain of 1" in rank_loss_problem("binary", [1.0, 1.0])
