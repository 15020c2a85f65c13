from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.data.calibration import random_batches
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.encoder import Gates
from limbeck.model.pruning.importance import CRITERIA, fisher, magnitude, taylor

SHAPE = Shape.uniform(layers=2, hidden=32, heads=4, ffn=6).with_layer(1, heads=2, ffn=3)


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_one_score_for_every_part(name, make_model, make_batch):
    scores = CRITERIA[name](make_model(SHAPE), [make_batch(seed=s) for s in range(2)])
    assert [len(row) for row in scores.heads] == [4, 2]
    assert [len(row) for row in scores.ffn] == [6, 3]
    assert all(np.isfinite(row).all() and (row >= 0).all() for row in (*scores.heads, *scores.ffn))


@pytest.mark.parametrize("name", ["fisher", "taylor"])
def test_vectors_without_labels_have_scores(name, make_model, make_batch):
    batches = [{**make_batch(seed=seed), "labels": torch.empty(3, 0)} for seed in range(2)]
    model = make_model(SHAPE, kind="embedding")
    scores, again = (CRITERIA[name](model, batches) for _ in range(2))
    assert min(scores.heads[0]) > 0
    assert np.array_equal(scores.ffn[1], again.ffn[1])


@pytest.mark.parametrize("name", ["fisher", "taylor"])
def test_pairs_that_all_have_the_same_score_tell_parts_apart(name, make_model):
    alike = toy_task("embedding", train=8)
    equal = replace(alike, splits={"train": replace(alike.split("train"), labels=(1.0,) * 8)})
    tokenizer = toy_tokenizer(alike)
    model = make_model(SHAPE, kind="embedding", labels=0, vocab_size=len(tokenizer))
    assert min(CRITERIA[name](model, random_batches(equal, tokenizer, 8, 0)).heads[0]) > 0


def test_fisher_is_the_squared_slope_of_the_loss(make_model, make_batch):
    """Finite differences of the loss in a gate, squared and summed over batches."""
    model, batches = make_model(SHAPE).double(), [make_batch(seed=s) for s in range(2)]
    step, expected = 1e-5, 0.0
    for batch in batches:
        losses = []
        for sign in (1, -1):
            heads = torch.ones(2, 4, dtype=torch.float64)
            heads[0, 2] += sign * step
            logits = model.run(batch, gates=Gates(heads=heads))[0]
            losses.append(float(model.loss(logits, batch["labels"]).detach()))
        expected += ((losses[0] - losses[1]) / (2 * step)) ** 2
    assert fisher(model, batches).heads[0][2] == pytest.approx(expected, rel=1e-4)


def test_taylor_is_the_slope_of_the_loss(make_model, make_batch):
    """Finite differences in a head's gate and in the scale of a neuron's incoming weights."""
    model, batch, step = make_model(SHAPE).double(), make_batch(), 1e-5
    scores = taylor(model, [batch])

    def slope(change):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                undo = change(sign * step)
                losses.append(float(model.loss(undo.pop("logits"), batch["labels"])))
                undo["undo"]()
        return abs(losses[0] - losses[1]) / (2 * step)

    def head(by):
        heads = torch.ones(2, 4, dtype=torch.float64)
        heads[1, 1] += by
        return {"logits": model.run(batch, gates=Gates(heads=heads))[0], "undo": lambda: None}

    def neuron(by):
        up = model.encoder.layers[0].up
        up.weight[3] *= 1 + by
        up.bias[3] *= 1 + by

        def undo():
            up.weight[3] /= 1 + by
            up.bias[3] /= 1 + by

        return {"logits": model.run(batch)[0], "undo": undo}

    assert scores.heads[1][1] == pytest.approx(slope(head), rel=1e-4)
    assert scores.ffn[0][3] == pytest.approx(slope(neuron), rel=1e-4)


def test_taylor_of_a_dead_neuron_is_zero(make_model, make_batch):
    model = make_model(SHAPE)
    with torch.no_grad():
        model.encoder.layers[0].down.weight[:, 4] = 0
    scores = taylor(model, [make_batch()])
    assert scores.ffn[0][4] == 0
    assert (scores.ffn[0][:4] > 0).all()


def test_magnitude_reads_no_data(make_model):
    model = make_model(SHAPE)
    with torch.no_grad():
        model.encoder.layers[1].attention_out.weight[:, :8] = 0
    scores = magnitude(model, ())
    assert scores.heads[1][0] == 0
    assert scores.heads[1][1] > 0
