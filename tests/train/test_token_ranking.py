"""The ranking of tokens, against a reference that takes one pair after the other."""

import math

import pytest
import torch
import torch.nn.functional as F

from limbeck.core.shape import Shape
from limbeck.model.token_pruning import RemainingTokens, received_attention
from limbeck.train.objectives import Outputs
from limbeck.train.token_ranking import TokenRankingLoss, lambda_rank

TEACHER = Shape.uniform(layers=3, hidden=32, heads=4, ffn=24)
STUDENT = TEACHER.with_tokens(0.7, 0.4, 0.4)
TERM = TokenRankingLoss(((0, 0.7), (1, 0.4)), 2)
TAPS = ("attention", "positions")


def slow_lambda_rank(scores, importance, present, cutoff):
    """One text, as lists of numbers."""
    rows = [row for row, there in enumerate(present) if there]
    by_importance = sorted(rows, key=lambda row: (-importance[row], row))
    by_score = sorted(rows, key=lambda row: (-scores[row], row))
    gain = {row: 1 - by_importance.index(row) / len(rows) for row in rows}
    discount = {row: 1 / math.log2(by_score.index(row) + 2) if by_score.index(row) < cutoff else 0.0 for row in rows}
    total = weights = 0.0
    for a in rows:
        for b in rows:
            if gain[a] > gain[b]:
                weight = (gain[a] - gain[b]) * abs(discount[a] - discount[b])
                total += weight * math.log(1 + math.exp(scores[b] - scores[a]))
                weights += weight
    return total / weights if weights else 0.0


@pytest.mark.parametrize("cutoff", [0, 1, 3, 7])
def test_pairs_are_weighted_by_the_change_of_ndcg(cutoff):
    generator = torch.Generator().manual_seed(cutoff)
    scores, importance = torch.randn(2, 4, 7, generator=generator)
    present = torch.rand(4, 7, generator=generator) < 0.7
    present[3] = False
    expected = [
        slow_lambda_rank(*(side[row].tolist() for side in (scores, importance, present)), cutoff) for row in range(4)
    ]
    loss = lambda_rank(scores, importance, present, torch.full((4,), cutoff))
    assert float(loss) == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_equal_scores_cost_ln_2_and_the_right_order_costs_little():
    importance, present = torch.arange(6.0).expand(2, 6), torch.ones(2, 6, dtype=torch.bool)
    cutoff = torch.tensor([3, 3])
    assert float(lambda_rank(torch.zeros(2, 6), importance, present, cutoff)) == pytest.approx(math.log(2))
    right, wrong = (float(lambda_rank(sign * 20 * importance, importance, present, cutoff)) for sign in (1, -1))
    assert right < 1e-6
    assert wrong > 10


@pytest.fixture
def models(make_model):
    return make_model(STUDENT, seed=1), make_model(TEACHER, seed=2)


def sides(models, batch):
    return [Outputs(*model.run(batch, taps=TAPS)) for model in models]


def test_a_layer_ranks_what_it_reads_by_the_last_layer_of_the_teacher(models, make_batch):
    """Text by text and token by token, at the positions that are left."""
    batch = make_batch(rows=4, longest=12)
    student, teacher = sides(models, batch)
    real = batch["attention_mask"].bool()
    importance = received_attention(teacher.taps["attention"][2], real).detach()
    total = 0.0
    for layer, share in TERM.shares:
        for row, length in enumerate(real.sum(1).tolist()):
            positions = [p for p in student.taps["positions"][layer][row].tolist() if p < length]
            n = len(positions)
            weights = student.taps["attention"][layer][row, :, :n, :n].softmax(-1)
            scores = weights.detach().sum((0, 1)).log().tolist()[1:]
            target = [float(importance[row, position]) for position in positions[1:]]
            left = -(-length * round(1000 * share) // 1000) - 1
            total += slow_lambda_rank(scores, target, [True] * (n - 1), left) / 4
    assert float(TERM(student, teacher, batch).detach()) == pytest.approx(total / 2, rel=1e-4)


def test_padding_plays_no_part(models, make_batch):
    batch = make_batch(rows=4, longest=12)
    wider = {name: F.pad(batch[name], (0, 5)) for name in ("input_ids", "attention_mask", "token_type_ids")}
    losses = [float(TERM(*sides(models, each), each).detach()) for each in (batch, wider)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_scores_that_were_kept_on_disk_have_zeros_for_padding(models, make_batch):
    batch = make_batch(rows=4, longest=12)
    student, teacher = sides(models, batch)
    padding = batch["attention_mask"][:, None, None, :] == 0
    stored = {"attention": {2: teacher.taps["attention"][2].masked_fill(padding, 0.0)}, "positions": {}}
    expected, loss = (float(TERM(student, side, batch).detach()) for side in (teacher, Outputs(teacher.logits, stored)))
    assert padding.any()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_training_brings_the_order_of_the_teacher(models, make_batch):
    """More of the tokens that go on are those that the teacher would keep."""
    batch, (student, teacher) = make_batch(rows=8, longest=16), models
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        target = Outputs(*teacher.run(batch, taps=TAPS))
    importance = received_attention(target.taps["attention"][2], real).masked_fill(~real, -1.0)
    best = importance.argsort(1, descending=True)

    def shared():
        remaining = RemainingTokens(batch["attention_mask"], batch["input_ids"])
        with torch.no_grad():
            list(student.encoder.states(remaining, batch["input_ids"], batch["token_type_ids"]))
        count = 0
        for row, positions in enumerate(remaining.positions.tolist()):
            there = {position for position in positions if position < 16}
            count += len(there & set(best[row, : len(there)].tolist()))
        return count

    before, losses = shared(), []
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    for _ in range(30):
        loss = TERM(Outputs(*student.run(batch, taps=TAPS)), target, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert shared() > before
