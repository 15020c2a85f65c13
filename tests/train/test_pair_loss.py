from __future__ import annotations

import pytest
import torch

from limbeck.errors import InputError
from limbeck.model.vector_losses import cosent, cosine_error, in_batch_negatives
from limbeck.train.objectives import Outputs
from limbeck.train.pair_loss import PairLoss

ROWS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
SCORES = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


IDS = torch.arange(24).reshape(12, 2)  # first and second text of each pair, in turns


def value(loss, ids=IDS):
    return float(loss(Outputs(ROWS, {}), Outputs(ROWS, {}), {"labels": SCORES, "input_ids": ids}))


def test_scores_of_any_scale_become_cosines():
    assert value(PairLoss.of("cosine", SCORES.tolist(), (), 4)) == pytest.approx(float(cosine_error(ROWS, SCORES / 5)))


def test_leading_components_are_vectors_of_their_own():
    leading = torch.cat([ROWS[:, :2], ROWS[:, 4:6]], -1)
    expected = (float(in_batch_negatives(leading)) + float(in_batch_negatives(ROWS))) / 2
    assert value(PairLoss.of("contrastive", [1.0], (2,), 4)) == pytest.approx(expected)
    assert value(PairLoss.of("cosent", [0.0, 1.0], (), 4)) == pytest.approx(float(cosent(ROWS, SCORES)))


def test_pairs_with_a_text_in_common_are_no_negatives_of_each_other():
    """A query with two documents, and a document of two queries."""
    ids = IDS.clone()
    ids[2], ids[7] = ids[0], ids[5]
    alike = torch.eye(6, dtype=torch.bool)
    alike[0, 1] = alike[1, 0] = alike[2, 3] = alike[3, 2] = True
    found = value(PairLoss.of("contrastive", [1.0], (), 4), ids)
    assert found == pytest.approx(float(in_batch_negatives(ROWS, alike)))
    assert found < value(PairLoss.of("contrastive", [1.0], (), 4)) - 1e-3


def test_a_text_is_no_negative_of_itself_on_the_other_side_of_a_pair():
    ids = IDS.clone()
    ids[3] = ids[0]  # the second text of pair 1 is the first of pair 0
    alike = torch.eye(6, dtype=torch.bool)
    alike[0, 1] = True
    found = value(PairLoss.of("contrastive", [1.0], (), 4), ids)
    assert found == pytest.approx(float(in_batch_negatives(ROWS, alike)))


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(InputError, match="contrastive"):
        PairLoss.of("cosent", [1.0, 1.0], (), 4)
    with pytest.raises(InputError, match="4 components"):
        PairLoss.of("cosent", [1.0, 2.0], (2, 4), 4)
