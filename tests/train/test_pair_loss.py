from __future__ import annotations

import pytest
import torch

from limbeck.errors import InputError
from limbeck.model.vector_losses import cosent, cosine_error, in_batch_negatives
from limbeck.train.objectives import Outputs
from limbeck.train.pair_loss import PairLoss

ROWS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
SCORES = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


def value(loss):
    return float(loss(Outputs(ROWS, {}), Outputs(ROWS, {}), {"labels": SCORES}))


def test_scores_of_any_scale_become_cosines():
    assert value(PairLoss.of("cosine", SCORES.tolist(), (), 4)) == pytest.approx(float(cosine_error(ROWS, SCORES / 5)))


def test_leading_components_are_vectors_of_their_own():
    leading = torch.cat([ROWS[:, :2], ROWS[:, 4:6]], -1)
    expected = (float(in_batch_negatives(leading)) + float(in_batch_negatives(ROWS))) / 2
    assert value(PairLoss.of("contrastive", [1.0], (2,), 4)) == pytest.approx(expected)
    assert value(PairLoss.of("cosent", [0.0, 1.0], (), 4)) == pytest.approx(float(cosent(ROWS, SCORES)))


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(InputError, match="contrastive"):
        PairLoss.of("cosent", [1.0, 1.0], (), 4)
    with pytest.raises(InputError, match="4 components"):
        PairLoss.of("cosent", [1.0, 2.0], (2, 4), 4)
