"""Learned schedules of tokens, on models of which it is known where tokens matter."""

import numpy as np
import pytest
import torch

from limbeck.core.analytic_cost import macs
from limbeck.core.candidate import Candidate
from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.token_schedule import even_exponents, within_budget
from limbeck.data.calibration import random_batches
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.pruning.alternatives import AnswerComparison
from limbeck.train.distillation_losses import LogitLoss
from limbeck.train.token_gates import divergence, learned_schedule

SHAPE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)
COST = FunctionCost(lambda shape: Measurement("macs", macs(shape, 12), "MAC"))


def candidate_of(make_model, kind="classification", shape=SHAPE, matters=range(4), seed=0):
    """A random model of which only some layers let tokens learn of each other."""
    task = toy_task(kind, train=48, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    model = make_model(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), seed=seed)
    with torch.no_grad():
        for index, layer in enumerate(model.encoder.layers):
            layer.attention_out.weight.mul_(3.0 if index in matters else 0.0)
    return Candidate(model, tokenizer, task)


def learned(candidate, share=0.6, epochs=3.0, batches=None):
    batches = batches or random_batches(candidate.task, candidate.tokenizer, 24, 0, 4)
    return learned_schedule(candidate, batches, COST, share * COST(candidate.model.shape).value, epochs, 0)


def shape_of(candidate, exponents, share=0.6):
    shape = candidate.model.shape
    return within_budget(shape, lambda each: COST(each).value, share * COST(shape).value, exponents)


def schedule(candidate, exponents, share=0.6):
    return shape_of(candidate, exponents, share).token_shares


def test_tokens_stay_as_long_as_they_matter(make_model, make_batch):
    """Of texts long enough that shares are nearly continuous."""
    shares = []
    for matters in ((0, 1), (3,)):
        candidate = candidate_of(make_model, matters=matters)
        batches = [make_batch(4, 60, len(candidate.tokenizer), seed) for seed in range(12)]
        exponents = learned(candidate, batches=batches[3:])
        shares.append([read for read, _ in schedule(candidate, exponents)])
        comparison = AnswerComparison.of(candidate.model, batches[:3])
        own, other = (
            comparison.divergences(candidate.model, shape_of(candidate, powers)).mean()
            for powers in (exponents, even_exponents(4))
        )
        assert own < 0.7 * other
    uniform = [read for read, _ in schedule(candidate, even_exponents(4))]
    early, late = shares
    assert early[1] > uniform[1] + 0.1, "the second layer reads other tokens"
    assert early[2] < uniform[2], "and no later one"
    assert late[3] > uniform[3] + 0.02, "the last layer alone reads other tokens"


@pytest.mark.parametrize("kind", ["classification", "tokens", "multilabel", "regression", "embedding", "rerank"])
def test_schedules_are_learned_of_every_kind(make_model, kind):
    exponents = learned(candidate_of(make_model, kind), epochs=0.5)
    assert exponents.shape == (4,)
    assert (np.diff(exponents) >= 0).all()
    assert exponents[2] == pytest.approx(3.0)


@pytest.mark.parametrize("kind", ["classification", "tokens", "multilabel", "regression", "embedding", "rerank"])
def test_the_same_answers_have_no_divergence(make_model, kind):
    """Binary cross-entropy with a teacher's probabilities has their entropy, of which a logarithm says nothing."""
    candidate = candidate_of(make_model, kind)
    distance = LogitLoss(temperature=1.0, problem_type=candidate.task.problem_type)
    for batch in random_batches(candidate.task, candidate.tokenizer, 8, 0, 4):
        answers = candidate.model.run(batch)[0].detach()
        assert float(divergence(distance, answers, answers, batch)) == 0.0
        assert float(divergence(distance, 1.5 * answers, answers, batch)) > 1e-6


def test_weights_and_their_gradients_stay(make_model):
    candidate = candidate_of(make_model)
    before = {name: value.clone() for name, value in candidate.model.state_dict().items()}
    first, second = (learned(candidate, epochs=1.0) for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in candidate.model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in candidate.model.parameters())
    np.testing.assert_array_equal(first, second)


def test_a_schedule_that_is_there_is_the_beginning(make_model):
    candidate = candidate_of(make_model, shape=SHAPE.with_tokens(0.9, 0.5, 0.5, 0.5))
    shares = schedule(candidate, learned(candidate, share=0.8), share=0.8)
    assert shares[0][1] <= 0.9
    assert shares[1][1] <= 0.5


def test_layers_that_cannot_choose_have_the_exponent_of_the_layer_before(make_model):
    exponents = learned(candidate_of(make_model, shape=SHAPE.with_layer(1, heads=0)), epochs=0.5)
    assert exponents[1] == exponents[0] < exponents[2] == exponents[3]
