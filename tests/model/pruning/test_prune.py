"""Pruning of a model in memory, without a step."""

import copy

import pytest
import torch

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.data.calibration import random_batches
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.pruning.config import PruningConfig
from limbeck.model.pruning.goals import CostGoal, UniformGoal
from limbeck.model.pruning.prune import important_layers, narrow, prune, removal_orders
from limbeck.model.pruning.reconstruction import collect
from limbeck.model.pruning.slicing import Cut, slice_to

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
TASK = toy_task("classification", train=32, validation=16, test=16)
TOKENIZER = toy_tokenizer(TASK)
BATCHES = random_batches(TASK, TOKENIZER, 32, seed=0)
COST = FunctionCost(lambda shape: Measurement("weights", float(shape.weights), "1"))


@pytest.fixture
def model(make_model):
    return make_model(FULL, labels=TASK.num_labels, vocab_size=len(TOKENIZER))


@pytest.mark.parametrize("criterion", ["obs", "ziplm", "fisher", "taylor"])
def test_without_repair_it_is_the_cut_of_the_orders(model, criterion):
    goal, original = CostGoal(COST, COST(FULL).value / 2, ffn_multiple=8), copy.deepcopy(model)
    orders = removal_orders(original, BATCHES, lambda: collect(original, BATCHES), criterion)
    expected = slice_to(original, Cut.best(orders, goal(orders, FULL)))
    narrow(model, BATCHES, goal, criterion=criterion, reconstruct=False)
    assert model.shape == expected.shape != FULL
    for (name, value), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_orders_come_from_the_cache(model):
    goal, names = UniformGoal(heads=2, ffn=32), []

    def keep(build):
        if not names:
            names.append(build())
        return names[0]

    twin = copy.deepcopy(model)
    narrow(model, BATCHES, goal, keep_orders=keep)
    narrow(twin, BATCHES, goal, keep_orders=lambda build: names[0])
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_a_goal_that_cannot_be_met_leaves_the_model_as_it_was(model):
    before = copy.deepcopy(model)
    with pytest.raises(InputError, match="is below"):
        narrow(model, BATCHES, CostGoal(COST, 1.0))
    assert all(map(torch.equal, model.parameters(), before.parameters()))


def test_layers_that_write_nothing_matter_least(model):
    with torch.no_grad():
        for name in ("attention_out", "down"):
            part = getattr(model.encoder.layers[1], name)
            part.weight.mul_(1e-3)
            part.bias.mul_(1e-3)
    for criterion in ("fisher", "taylor", "obs"):
        assert important_layers(model, BATCHES, 2, criterion) == (0, 2)


def test_layers_go_first_and_the_goal_counts_the_whole_model(model):
    twin, config = copy.deepcopy(model), PruningConfig(layers=2, keep=0.5, cost="parameters", ffn_multiple=8)
    prune(model, lambda: BATCHES, config, COST)
    slice_to(twin, Cut.whole_layers(FULL, (1, 2)))
    narrow(twin, BATCHES, CostGoal(COST, FULL.weights / 2, ffn_multiple=8))
    assert model.shape == twin.shape
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_whole_layers_go_without_a_look_at_texts(model):
    prune(model, lambda: pytest.fail("no texts are needed"), PruningConfig(layers=1), COST)
    assert model.shape.depth == 1
