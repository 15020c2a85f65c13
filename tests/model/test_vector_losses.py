from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from limbeck.model.vector_losses import cosent, cosine_error, cosines, in_batch_negatives


@pytest.fixture
def rows():
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_cosent_equals_a_loop_over_pairs_of_pairs(rows):
    scores = torch.tensor([0.1, 3.0, 3.0, -1.0, 0.5])
    values = cosines(rows).tolist()
    total = 1.0
    for i in range(5):
        for j in range(5):
            if scores[i] > scores[j]:
                total += math.exp(20 * (values[j] - values[i]))
    assert float(cosent(rows, scores)) == pytest.approx(math.log(total))


def test_cosent_of_equal_scores_is_nothing(rows):
    assert float(cosent(rows, torch.ones(5))) == 0


def test_cosine_error_is_the_mean_square(rows):
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    expected = sum((a - b) ** 2 for a, b in zip(cosines(rows).tolist(), scores.tolist(), strict=True)) / 5
    assert float(cosine_error(rows, scores)) == pytest.approx(expected)


def test_in_batch_negatives_are_the_other_second_and_first_texts(rows):
    first, second = F.normalize(rows[:, :4], dim=-1).tolist(), F.normalize(rows[:, 4:], dim=-1).tolist()
    scores = [[20 * sum(x * y for x, y in zip(a, b, strict=True)) for b in second] for a in first]
    total = 0.0
    for i in range(5):
        total += math.log(sum(map(math.exp, scores[i]))) - scores[i][i]
        total += math.log(sum(math.exp(row[i]) for row in scores)) - scores[i][i]
    assert float(in_batch_negatives(rows)) == pytest.approx(total / 10)
    alike = torch.zeros(5, 5, dtype=torch.bool)
    alike[0, 3] = alike[3, 0] = True
    total -= math.log(sum(map(math.exp, scores[0]))) + math.log(sum(map(math.exp, scores[3])))
    total -= math.log(sum(math.exp(row[0]) for row in scores)) + math.log(sum(math.exp(row[3]) for row in scores))
    for i, other in ((0, 3), (3, 0)):
        total += math.log(sum(math.exp(score) for j, score in enumerate(scores[i]) if j != other))
        total += math.log(sum(math.exp(row[i]) for j, row in enumerate(scores) if j != other))
    assert float(in_batch_negatives(rows, alike)) == pytest.approx(total / 10)
