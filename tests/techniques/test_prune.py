import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.facts import Measurement
from limbeck.core.shape import Shape
from limbeck.core.step import Lab
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.counts import macs
from limbeck.measure.table import typical_length
from limbeck.techniques.prune import Prune

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SMALL = {"samples": 32, "ffn_multiple": 8}


@pytest.fixture
def candidate(make_model):
    task = toy_task("classification", train=48, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)


def table(shape, number_format="int8"):
    """A made-up latency: 1 ms, 0.1 ms a head, 0.01 ms a neuron."""
    parts = sum(layer.heads * 1e-4 + layer.ffn * 1e-5 for layer in shape.layers)
    return Measurement("latency_p50", 1e-3 + parts, "s")


def pruned(candidate, **fields):
    (made,) = Prune(**{**SMALL, **fields}).apply(candidate, Lab(cost=table))
    return made.model


@pytest.mark.parametrize("speedup", [1.2, 2.0, 3.5])
def test_the_goal_of_speed_is_met_and_not_overshot(candidate, speedup):
    goal = table(FULL).value / speedup
    found = table(pruned(candidate, speedup=speedup).shape).value
    assert 0.93 * goal < found <= goal * (1 + 1e-9)


def test_latency_goal_in_milliseconds(candidate):
    assert table(pruned(candidate, latency_ms=2.0).shape).value <= 2e-3


def test_macs_goal(candidate):
    model = pruned(candidate, keep=0.5, cost="macs")
    style, tokens = candidate.model.encoder.style, typical_length(candidate)
    found, full = (macs(shape, tokens, style, labels=3) for shape in (model.shape, FULL))
    assert 0.9 * 0.5 * full < found <= 0.5 * full


@pytest.mark.parametrize(("number_format", "bytes_a_weight"), [("float", 4), ("int8", 1)])
def test_size_goal(candidate, number_format, bytes_a_weight):
    before = sum(p.numel() for p in candidate.model.parameters()) * bytes_a_weight
    model = pruned(candidate, size_mb=before * 0.7 / 1e6, number_format=number_format)
    assert sum(p.numel() for p in model.parameters()) * bytes_a_weight <= 0.7 * before


def test_equal_numbers_in_every_layer_as_seed_003(candidate):
    model = pruned(candidate, heads=2, ffn=24, criterion="taylor")
    assert model.shape == Shape.uniform(layers=3, hidden=32, heads=2, ffn=24, head_dim=8)


def test_whole_layers(candidate):
    last = candidate.model.encoder.layers[2].query.weight.clone()
    model = pruned(candidate, layers=1, reconstruct=False)
    assert model.shape.depth == 1
    assert torch.equal(model.encoder.layers[0].query.weight, last)


def test_the_layers_that_matter_most_stay(candidate):
    with torch.no_grad():  # a layer that writes nothing can go
        for name in ("attention_out", "down"):
            part = getattr(candidate.model.encoder.layers[1], name)
            part.weight.mul_(1e-3)
            part.bias.mul_(1e-3)
    kept = [candidate.model.encoder.layers[index].query.weight.clone() for index in (0, 2)]
    model = pruned(candidate, layers=2, layer_choice="importance", reconstruct=False)
    for layer, before in zip(model.encoder.layers, kept, strict=True):
        assert torch.equal(layer.query.weight, before)


def test_layers_first_then_the_rest_of_the_goal(candidate):
    model = pruned(candidate, layers=2, speedup=3.0)
    assert model.shape.depth == 2
    assert table(model.shape).value <= table(FULL).value / 3


def test_repair_is_nearer_to_the_full_model(candidate, make_batch, make_model):
    from dataclasses import replace

    from limbeck.data.batches import encode, predict

    encoded = encode(candidate.task, "validation", candidate.tokenizer)
    full = predict(candidate.model, encoded)
    errors = {}
    for reconstruct in (True, False):
        vocabulary = len(candidate.tokenizer)
        twin = replace(candidate, model=make_model(FULL, labels=3, vocab_size=vocabulary))
        model = pruned(twin, heads=2, ffn=32, reconstruct=reconstruct, samples=48)
        errors[reconstruct] = float(((predict(model, encoded) - full) ** 2).mean())
    assert errors[True] < errors[False]


BAD = {
    "no goal": ({}, "give a goal"),
    "two goals": ({"speedup": 2.0, "keep": 0.5}, "one goal, got speedup, keep"),
    "speed without latency": ({"speedup": 2.0, "cost": "macs"}, "need cost: latency"),
    "units": ({"keep": 0.5, "cost": "macs", "criterion": "magnitude"}, "different units"),
    "too many heads": ({"heads": 9}, "has 4 in a layer, got 9; use at most 4"),
    "too many layers": ({"layers": 5}, "has 3 layers, got 5; use at most 3"),
    "impossible": ({"latency_ms": 0.5}, "below the 0.001 of a model without heads"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_goals(candidate, name):
    fields, message = BAD[name]
    with pytest.raises(InputError, match=message):
        pruned(candidate, **fields)
