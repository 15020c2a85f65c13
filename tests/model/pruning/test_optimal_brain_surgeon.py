import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.core.kinds import KINDS
from limbeck.core.shape import Shape
from limbeck.model.output_losses import OUTPUT_LOSSES
from limbeck.model.pruning.importance import sample_labels
from limbeck.model.pruning.optimal_brain_surgeon import (
    grouped,
    layer_wise,
    removal,
    sampled_gradients,
    second_order,
    sensitivities,
    single,
)
from limbeck.model.pruning.reconstruction import collect, solve


def layer(inputs, outputs=5, seed=0, bias=True):
    """A linear layer, inputs that tell much about each other, and their Gram matrix with a column of ones."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=rng, dtype=torch.float64)
    x = torch.randn(300, inputs, generator=rng, dtype=torch.float64) @ mix + 0.5
    linear = nn.Linear(inputs, outputs, bias=bias).double()
    with torch.no_grad():
        linear.weight.copy_(torch.randn(outputs, inputs, generator=rng))
        if bias:
            linear.bias.copy_(torch.randn(outputs, generator=rng))
    ones = torch.cat([x, torch.ones(300, 1, dtype=torch.float64)], 1)
    return linear, x, ones.T @ ones


def output_gram(outputs=5):
    """How much errors in each direction of the output matter."""
    root = torch.randn(outputs, outputs, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return root @ root.T


def error(linear, x, retained, gram):
    """What the best that the kept inputs can do is off by, in nats."""
    before = None if linear.bias is None else linear.bias.detach()
    weight, bias = solve(linear.weight.detach(), before, gram, torch.tensor(retained, dtype=torch.long))
    off = x[:, retained] @ weight.T + (0 if bias is None else bias) - linear(x).detach()
    return float(((off @ output_gram()) * off).sum()) / 2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 3])
def test_what_is_lost_is_the_error_of_the_best_repair(width, bias):
    linear, x, gram = layer(12, bias=bias)
    order = removal(linear, gram, output_gram(), width)
    assert sorted(order.parts) == list(range(12 // width))
    for stay in range(12 // width + 1):
        retained = [group * width + at for group in order.remaining(stay) for at in range(width)]
        assert order.loss(stay) == pytest.approx(error(linear, x, retained, gram), rel=5e-3, abs=1.0)


@pytest.mark.parametrize("width", [1, 2])
def test_the_cheapest_goes_first(width):
    """Each removal is the best single one, by trying all with a repair of their own."""
    linear, x, gram = layer(8, seed=1)
    order, retained = removal(linear, gram, output_gram(), width), list(range(8 // width))
    for group in order.parts:
        tried = {
            removed: [g * width + at for g in retained if g != removed for at in range(width)] for removed in retained
        }
        errors = {removed: error(linear, x, columns, gram) for removed, columns in tried.items()}
        assert errors[group] == pytest.approx(min(errors.values()), rel=5e-3, abs=1.0)
        retained.remove(group)


@torch.no_grad()
def test_one_by_one_in_blocks_is_one_by_one():
    """Corrections that are made in blocks of 8 among 30 neurons, against those that are made at once."""
    linear, _, gram = layer(30)
    weight, inverse = torch.cat([linear.weight, linear.bias[:, None]], 1), torch.linalg.inv(gram)
    order, costs = zip(*grouped(weight.clone(), inverse.clone(), 1), strict=True)
    for block in (1, 8, 64):
        again, block_costs = zip(*single(weight.clone(), inverse.clone(), block), strict=True)
        assert again == order
        np.testing.assert_allclose(block_costs, costs, rtol=1e-6)


def test_a_copy_of_another_neuron_costs_nothing():
    linear, x, _ = layer(6)
    x = torch.cat([x, x[:, 3:4]], 1)
    wider = nn.Linear(7, 5).double()
    with torch.no_grad():
        wider.weight.copy_(torch.cat([linear.weight, 2 * linear.weight[:, :1]], 1))
    ones = torch.cat([x, torch.ones(300, 1, dtype=torch.float64)], 1)
    order = removal(wider, ones.T @ ones, output_gram(), 1)
    assert order.parts[0] in (3, 6)
    assert order.loss(6) < 0.1 * order.loss(5)  # not nothing: the damping holds the weights where they are


def test_every_part_of_every_layer_has_its_place(make_model, make_batch):
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=12).with_layer(1, heads=2, ffn=0)
    model, batches = make_model(shape), [make_batch(rows=16, seed=s) for s in range(3)]
    unlabeled = [{name: value for name, value in batch.items() if name != "labels"} for batch in batches]
    orders = second_order(model, unlabeled, collect(model, unlabeled))
    assert [len(order.parts) for order in (*orders.heads, *orders.ffn)] == [4, 2, 12, 0]
    for order in itertools.chain(orders.heads, orders.ffn):
        assert (np.diff(order.lost) >= 0).all()
        assert order.lost[0] == 0
    assert min(order.lost[-1] for order in orders.heads) > 0


def test_layer_by_layer_what_is_lost_is_a_part_of_the_output(make_model):
    """The error of the best repair with what is kept, over that of the bias alone."""
    model = make_model(Shape.uniform(layers=1, hidden=32, heads=4, ffn=12), labels=3)
    batch = {"input_ids": torch.randint(5, 40, (8, 6)), "attention_mask": torch.ones(8, 6, dtype=torch.long)}
    grams = collect(model, [batch])
    (order,), down = layer_wise(model, grams).ffn, model.encoder.layers[0].down
    assert (order.lost[0], order.lost[-1]) == (0, 1)
    with torch.no_grad():
        x = model.run(batch, taps=("neurons",))[1]["neurons"][0].flatten(0, 1)
        weight, bias = solve(down.weight, down.bias, grams.neurons[0], torch.tensor(order.remaining(5)))
        off, whole = x[:, order.remaining(5)] @ weight.T + bias - down(x), down(x) - down(x).mean(0)
    assert order.loss(5) == pytest.approx(float(off.norm() / whole.norm()), rel=0.02)


def test_sensitivity_tells_how_far_answers_move(make_model):
    """Texts of one token, so that an error in the output is one in the answers: half of e^T S e is their divergence."""
    model = make_model(Shape.uniform(layers=2, hidden=32, heads=4, ffn=12), labels=3).double().eval()
    rows = 4000
    batch = {"input_ids": torch.full((rows, 1), 7), "attention_mask": torch.ones(rows, 1, dtype=torch.long)}
    attention_output, ffn_output = sensitivities(model, [batch])
    change = 0.02 * torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first_rows = {name: value[:1] for name, value in batch.items()}
    for sensitivity, bias in (
        (attention_output[1], model.encoder.layers[1].attention_out.bias),
        (ffn_output[0], model.encoder.layers[0].down.bias),
    ):
        with torch.no_grad():
            before = model.run(first_rows)[0].log_softmax(-1)
            bias += change
            after = model.run(first_rows)[0].log_softmax(-1)
            bias -= change
        divergence = float((before.exp() * (before - after)).sum())
        assert float(change @ sensitivity @ change) / 2 == pytest.approx(divergence, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_drawn_for_every_kind_of_task(make_model, make_batch, kind):
    batch = make_batch(rows=6)
    labels = 1 if kind in ("regression", "rerank") else 3
    model = make_model(Shape.uniform(layers=1, hidden=32, heads=4, ffn=12), kind=kind, labels=labels)
    assert (kind == "embedding") == (model.output_losses(3) is OUTPUT_LOSSES["embedding"])
    labels = sample_labels(model, model.run(batch)[0].detach(), batch, torch.Generator().manual_seed(0))
    assert torch.isfinite(model.loss(model.run(batch)[0], labels))
    if kind == "tokens":
        assert torch.equal(labels == -100, batch["attention_mask"] == 0)
    for sensitivity in sensitivities(model, [batch])[0]:
        assert torch.isfinite(sensitivity).all()
        assert sensitivity.diagonal().sum() > 0


WORDS = {"kind": "tokens", "labels": 3}


def word_batches(make_batch, count=2):
    """Batches of texts whose words have two tokens, with special tokens at both ends."""
    batches = [make_batch(rows=6, seed=seed) for seed in range(count)]
    for batch in batches:
        last = batch["attention_mask"].cumsum(1) == batch["attention_mask"].sum(1, keepdim=True)
        first = (torch.arange(9) % 2 == 1) & batch["attention_mask"].bool() & ~last
        batch["labels"] = torch.full_like(batch["input_ids"], -100).masked_fill(first, 1)
    return batches


def test_gradients_of_words_are_those_of_the_answers_that_are_read(make_model, make_batch):
    """By the loss written out: minus the logarithm of the sampled class, summed over the first token of every word."""
    model = make_model(Shape.uniform(layers=2, hidden=32, heads=4, ffn=12), **WORDS)
    (batch,) = word_batches(make_batch, count=1)
    steps = sampled_gradients(model, [batch], ("ffn_output",), lambda taps: taps["ffn_output"], seed=5)
    ((_, _, gradients),) = steps
    logits, taps = model.run(batch, taps=("ffn_output",))
    rng = torch.Generator().manual_seed(5)
    classes = torch.multinomial(logits.detach().softmax(-1).flatten(0, 1), 1, generator=rng).view(6, 9)
    text, position = (batch["labels"] == 1).nonzero(as_tuple=True)
    loss = -logits.log_softmax(-1)[text, position, classes[text, position]].sum()
    for gradient, expected in zip(gradients, torch.autograd.grad(loss, taps["ffn_output"]), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
    others = (batch["labels"] == -100) & batch["attention_mask"].bool()
    assert not gradients[-1][others].any()  # the last layer's states there reach no answer
    assert gradients[0][others].abs().sum(-1).min() > 0  # words attend to them


def test_answers_that_are_never_read_decide_nothing(make_model, make_batch):
    """Whatever a model of words would answer at special tokens and further pieces, and whatever the labels are."""
    model, batches = make_model(Shape.uniform(layers=2, hidden=32, heads=4, ffn=12), **WORDS), word_batches(make_batch)
    expected = second_order(model, batches, collect(model, batches))
    unread = iter([batch["labels"] == -100 for batch in batches])
    generator = torch.Generator().manual_seed(7)

    def disturb(module, inputs, logits):
        return logits + 9 * torch.randn(logits.shape, generator=generator) * next(unread)[..., None]

    grams = collect(model, batches)
    relabeled = [{**batch, "labels": batch["labels"].where(batch["labels"] == -100, 2)} for batch in batches]
    model.classifier.register_forward_hook(disturb)
    orders = second_order(model, relabeled, grams)
    assert next(unread, None) is None
    for ours, others in zip((*orders.heads, *orders.ffn), (*expected.heads, *expected.ffn), strict=True):
        assert ours.parts == others.parts
        np.testing.assert_allclose(ours.lost, others.lost, rtol=1e-4)


def test_sensitivities_of_vectors_are_those_of_their_squared_error(make_model, make_batch):
    """Errors of the last layer's output change vectors by J e; the mean of g g^T over samples is that of J^T J."""
    batch = {name: rows[:1] for name, rows in make_batch(rows=1).items()}
    model = make_model(Shape.uniform(layers=1, hidden=8, heads=2, ffn=4), kind="embedding")
    model.embedding = replace(model.embedding, normalize=False)
    (hidden,) = sensitivities(model, [batch] * 400)[1]
    tokens = int(batch["attention_mask"].sum())
    vectors, taps = model.run(batch, taps=("ffn_output",))
    rows = torch.stack([torch.autograd.grad(v, taps["ffn_output"][0], retain_graph=True)[0][0] for v in vectors[0]])
    jacobian = rows[:, batch["attention_mask"][0].bool()].double()  # [components, tokens, hidden]
    expected = 4 * torch.einsum("cti,ctj->ij", jacobian, jacobian) / tokens
    torch.testing.assert_close(hidden, expected, rtol=0.3, atol=0.1 * float(expected.abs().max()))
