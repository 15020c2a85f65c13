from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from limbeck.train.objectives import Outputs
from limbeck.train.rank_loss import RankLoss, listwise

QUERIES = torch.tensor([3.0, 1.0, 3.0, 1.0, 3.0, 8.0])
GAINS = torch.tensor([0.0, 2.0, 1.0, 0.0, 3.0, 0.0])
SCORES = torch.randn(6, generator=torch.Generator().manual_seed(0))
LABELS = torch.stack([QUERIES, GAINS, torch.ones(6)], 1)


def value(kind):
    outputs = Outputs(SCORES[:, None], {})
    return float(RankLoss(kind)(outputs, outputs, {"labels": LABELS}))


def test_listwise_equals_a_loop_over_requests():
    losses = []
    for query in (1.0, 3.0):  # the document of query 8 is irrelevant
        rows = (query == QUERIES).nonzero()[:, 0]
        losses.append(-(GAINS[rows] / GAINS[rows].sum() * F.log_softmax(SCORES[rows], 0)).sum())
    assert value("listwise") == pytest.approx(float(torch.stack(losses).mean()))


def test_each_document_counts_by_itself_in_the_others():
    relevant = (GAINS > 0).float()
    assert value("binary") == pytest.approx(float(F.binary_cross_entropy_with_logits(SCORES, relevant)))
    assert value("pointwise") == pytest.approx(float(((SCORES - GAINS) ** 2).mean()))
    assert RankLoss("listwise").by_request
    assert not RankLoss("binary").by_request


def test_a_batch_without_relevant_documents_teaches_nothing():
    scores = SCORES.clone().requires_grad_()
    loss = listwise(scores, QUERIES, torch.zeros(6))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not scores.grad.any()
