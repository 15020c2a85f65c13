from random import Random

import numpy as np
import pytest
import torch

from limbeck.benchmark.grid import narrowed
from limbeck.core.analytic_cost import as_shape
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model.pruning.slicing import Scores
from limbeck.model.pruning.subnetwork import (
    channel_scores,
    extract,
    fresh_student,
    sort_channels,
    sort_features,
    sort_parts,
)

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SPACE = Space(Range(1, 3), Range(8, 32, 8), Range(0, 4), Range(0, 64, 16), Range(2, 8, 2), per_layer=True)


@pytest.mark.parametrize("kind", ["classification", "tokens"])
@pytest.mark.parametrize(
    "style", [{}, {"embedding_size": 20}, {"embedding_size": 32}, {"family": "roberta", "position_offset": 1}]
)
def test_what_is_extracted_answers_as_the_slice(make_model, make_batch, kind, style):
    model, batch, rng = make_model(FULL, kind=kind, **style), make_batch(), Random(0)
    for shape in [SPACE.smallest, SPACE.largest, *(SPACE.sample(rng) for _ in range(12))]:
        small = extract(model, shape)
        assert as_shape(small.shape) == shape == as_shape(small.config.shape)
        with torch.no_grad():
            torch.testing.assert_close(small.run(batch)[0], model.run(batch, shape=shape)[0], rtol=1e-5, atol=1e-6)


def test_a_student_as_wide_as_its_embeddings_has_slices(make_model, make_batch):
    student = fresh_student(make_model(FULL, embedding_size=16), Shape.uniform(2, 16, 2, 64), seed=0)
    shape, batch = Shape.uniform(2, 8, 1, 32), make_batch()
    with torch.no_grad():
        expected = student.run(batch, shape=shape)[0]
        torch.testing.assert_close(extract(student, shape).run(batch)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("approach", ["head_num", "head_size_1", "head_size_2"])
def test_three_ways_to_keep_a_share_of_the_attention(make_model, make_batch, approach, ratio):
    """Channels that are left are those that the definition names; a slice answers as what is extracted."""
    shape, resplit = narrowed(FULL, ratio, approach), approach == "head_size_2"
    model, batch = make_model(FULL, resplit=resplit), make_batch()
    small = extract(model, shape)
    heads, width = shape.layers[0].heads, shape.head_dim
    retained = [8 * head + channel for head in range(4) for channel in range(8)]
    retained = [c for c in retained if c // 8 < heads and c % 8 < width] if not resplit else retained[: heads * width]
    for before, after in zip(model.encoder.layers, small.encoder.layers, strict=True):
        for name in ("query", "key", "value"):
            assert torch.equal(getattr(after, name).weight, getattr(before, name).weight[retained])
            assert torch.equal(getattr(after, name).bias, getattr(before, name).bias[retained])
        assert torch.equal(after.attention_out.weight, before.attention_out.weight[:, retained])
    with torch.no_grad():
        expected = small.run(batch)[0]
        torch.testing.assert_close(model.run(batch, shape=shape)[0], expected, rtol=1e-5, atol=1e-6)
        unmarked = extract(make_model(FULL), shape, resplit)  # the same of a model that is not marked so
        torch.testing.assert_close(unmarked.run(batch)[0], expected)


def test_chance_is_left_alone_and_weights_are_copies(make_model):
    model = make_model(FULL)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    small = extract(model, SPACE.smallest)
    assert torch.equal(torch.rand(2), expected)
    with torch.no_grad():
        small.encoder.layers[0].down.bias.add_(1.0)
    assert not torch.equal(small.encoder.layers[0].down.bias, model.encoder.layers[0].down.bias[:8])


def test_what_is_no_slice_is_refused(make_model):
    with pytest.raises(InputError, match="no slice"):
        extract(make_model(FULL), Shape.uniform(4, 32, 4, 64))
    with pytest.raises(InputError, match="as wide as its embeddings"):
        extract(make_model(FULL, embedding_size=16), Shape.uniform(2, 16, 2, 64))


@pytest.mark.parametrize("kind", ["classification", "tokens"])
@pytest.mark.parametrize("style", [{}, {"embedding_size": 16}])
def test_order_changes_no_answer(make_model, make_batch, kind, style):
    model, batch = make_model(FULL, kind=kind, **style), make_batch()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        before = model.run(batch)[0]
        rows = [tuple(rng.random(width) for _ in range(3)) for width in (4, 64)]
        sort_parts(model, Scores(rows[0], rows[1], np.ones(3)))
        torch.testing.assert_close(model.run(batch)[0], before, rtol=1e-4, atol=1e-5)
        sort_channels(model, channel_scores(model))
        torch.testing.assert_close(model.run(batch)[0], before, rtol=1e-4, atol=1e-5)
    scores = channel_scores(model)
    assert (np.diff(scores) <= 1e-9).all()


def test_the_best_come_first(make_model):
    model = make_model(FULL)
    first = model.encoder.layers[0].up.bias.detach().clone()
    neurons = tuple(np.arange(64.0) for _ in range(3))
    sort_parts(model, Scores(tuple(np.ones(4) for _ in range(3)), neurons, np.ones(3)))
    torch.testing.assert_close(model.encoder.layers[0].up.bias, first.flip(0))


@pytest.mark.parametrize("style", [{}, {"pooler_norm": True}])
def test_the_features_of_a_head_may_be_sorted(make_model, make_batch, style):
    model, batch, scores = make_model(FULL, **style), make_batch(), np.random.default_rng(0).random(32)
    before, pooler = model.run(batch)[0], model.pooler.weight.clone()
    sort_features(model, scores)
    torch.testing.assert_close(model.run(batch)[0], before, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.pooler.weight, pooler[np.argsort(-scores).tolist()])


def test_a_head_without_a_dense_layer_has_no_features_to_sort(make_model):
    model = make_model(FULL, kind="tokens")
    before = model.classifier.weight.clone()
    sort_features(model, np.arange(32.0))
    assert torch.equal(model.classifier.weight, before)
