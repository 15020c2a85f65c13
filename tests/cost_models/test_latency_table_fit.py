"""Tables fitted to machines on which time is a sum: what they learn, and what they never say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.cost_models.latency_table import LatencyTable
from limbeck.cost_models.latency_table_fit import designs, fit
from limbeck.cost_models.table_measurement import build, relative_errors
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.model.style import Style

FULL = Shape.uniform(layers=6, hidden=48, heads=12, ffn=768)
FEWER = FULL.with_tokens(0.8, 0.6, 0.5, 0.4, 0.3, 0.3)
LOCAL = FEWER.with_attention("softmax", "local:8", "local:8", "softmax", "local:8", "local:8")


def truth(shape, all_tokens=False):
    """A machine on which time is additive: a jump for the first head, steps of 4 heads, and a cheap last layer.

    Time grows with the tokens that a layer reads, and choosing them takes some.
    """
    total = 50e-6
    for index, (layer, (read, left)) in enumerate(zip(shape.layers, shape.token_shares, strict=True)):
        last = index == shape.depth - 1
        attention = (10e-6 * (layer.heads > 0) + 5e-6 * layer.heads) * (0.5 if layer.core[0] == "local" else 1)
        run = (1 if last else left) if not all_tokens else read
        total += read * attention + run * (0.02e-6 if last else 0.2e-6) * layer.ffn + (0 if last else 7e-6 * read)
        total += (3e-6 + 1e-6 * layer.heads * read) * (left < read)
    return total


def fit_to(full, noise=None, all_tokens=False):
    shapes, held_out = designs(full)
    times = np.array([truth(shape, all_tokens) for shape in shapes])
    times = times if noise is None else times * np.random.default_rng(0).uniform(*noise, len(shapes))
    return fit(full, shapes, times, "here", "float", 25, all_tokens=all_tokens), held_out


@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.parametrize("full", [FULL, FEWER, LOCAL], ids=["all tokens", "fewer tokens", "local"])
def test_an_additive_machine_is_learned_exactly(full, all_tokens):
    table, held_out = fit_to(full, all_tokens=all_tokens)
    errors = relative_errors(table, held_out, np.array([truth(shape, all_tokens) for shape in held_out]))
    assert len(held_out) == 8
    assert errors.max() < 0.01
    deep = Shape(48, 4, full.layers * 2)
    assert table(deep).value == pytest.approx(truth(deep, all_tokens), rel=0.01)
    whole = full.with_tokens(*[1] * 6)
    assert table(whole).value == pytest.approx(truth(whole, all_tokens), rel=0.01)
    assert LatencyTable.from_json(json.loads(json.dumps(table.to_json(), sort_keys=True))) == table


@pytest.mark.parametrize("full", [FULL, FEWER], ids=["all tokens", "fewer tokens"])
def test_a_wider_layer_is_never_faster_even_when_the_measurement_says_so(full):
    table, _ = fit_to(full, (0.7, 1.4))
    for index in (0, 5):
        for name, widths in (("heads", range(1, 13)), ("ffn", range(0, 769, 32))):
            predicted = [table(full.with_layer(index, **{name: width})).value for width in widths]
            assert (np.diff(predicted) >= -1e-12).all()


def test_fewer_tokens_are_never_slower_even_when_the_measurement_says_so():
    table, _ = fit_to(FEWER, (0.7, 1.4))
    predicted = [table(FULL.with_tokens(*[share] * 6)).value for share in (0.3, 0.4, 0.5, 0.7, 0.9, 0.99)]
    assert (np.diff(predicted) >= -1e-12).all()
    assert table(FULL.with_tokens(*[0.1] * 6)).value == pytest.approx(predicted[0]), "below the least that was measured"


def test_dropping_a_layer_never_costs_time():
    table, _ = fit_to(FULL)
    predicted = [table(Shape(48, 4, FULL.layers[:depth])).value for depth in range(7)]
    assert (np.diff(predicted) > 0).all()


def test_shapes_that_read_all_tokens_are_the_same_with_and_without_a_schedule():
    plain, fewer = designs(FULL), designs(FEWER)
    assert fewer[0][: len(plain[0])] == plain[0]
    assert all(not shape.tokens for shape in plain[0] + plain[1])
    assert sum(bool(shape.tokens) for shape in fewer[1]) == 4


@pytest.mark.usefixtures("in_process")
def test_a_table_of_fewer_tokens_is_measured():
    full = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64).with_tokens(0.5, 0.25, 0.25)
    table = build(full, Setting(style_of(Style(vocab_size=100)), Target(seq_len=16), seq_len=16), seconds=0.01)
    assert table.fewer is not None
    assert table.fewer.share == 0.25
    assert 0 < table(full).value < 0.1
    assert 0 < table(full.with_tokens(1, 1, 1)).value < 0.1
