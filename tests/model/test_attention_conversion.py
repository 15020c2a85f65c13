"""Other attention cores in a model that has its weights already, and more positions."""

from __future__ import annotations

import pytest
import torch

from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError
from limbeck.model.attention_conversion import SHARES, averages, convert
from limbeck.model.pruning.slicing import Cut, Scores, slice_to
from limbeck.model.pruning.subnetwork import extract, sort_parts

SHAPE = Shape(32, 8, (LayerShape(4, 48), LayerShape(3, 40)))
LINFORMER = ("linformer:6", "linformer:4")


@pytest.mark.parametrize(("share", "count"), [("none", 4), ("kv", 2), ("layer", 1), ("headwise", 4), ("per_head", 4)])
def test_all_other_weights_stay(make_model, share, count):
    model = make_model(SHAPE)
    converted = convert(model, LINFORMER, share=share)
    new = {name: weight for name, weight in converted.state_dict().items() if name.endswith("lengths")}
    assert len(new) == count
    assert all(weight.shape[-2] == model.config.max_positions for weight in new.values())
    for name, weight in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], weight)
    assert [row.attention for row in converted.shape.layers] == list(LINFORMER) == converted.config.layer_attention
    assert converted.config.projections == SHARES[share]


def test_the_same_seed_draws_the_same_projections_and_changes_no_ones_chance(make_model):
    model = make_model(SHAPE)
    before = torch.random.get_rng_state()
    first, again, other = (convert(model, LINFORMER, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    lengths = [converted.encoder.layers[0].key_lengths for converted in (first, again, other)]
    assert torch.equal(lengths[0], lengths[1])
    assert not torch.equal(lengths[0], lengths[2])
    assert abs(float(lengths[0].detach().std()) - 1) < 0.2


@pytest.mark.parametrize("share", sorted(SHARES))
def test_first_outputs_are_finite_and_as_large_as_softmax_ones(make_model, make_batch, share):
    model = make_model(SHAPE, max_positions=64).eval()
    batch = make_batch(rows=8, longest=60)
    converted = convert(model, ("linformer:16", "linformer:16"), share=share).eval()
    with torch.no_grad():
        (_, soft), (_, short) = (
            each.encoder(batch["input_ids"], batch["attention_mask"], taps=("context",)) for each in (model, converted)
        )
    for context, reference in zip(short["context"], soft["context"], strict=True):
        assert context.isfinite().all()
        assert 0.3 < float(context.std() / reference.std()) < 8


@pytest.mark.parametrize("share", ["none", "layer", "per_head"])
def test_cut_heads_answer_as_masked_ones(make_model, make_batch, share):
    from limbeck.model.encoder import Gates

    converted = convert(make_model(SHAPE), LINFORMER, share=share).eval()
    gates = Gates(heads=torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0]]))
    masked = converted.run(make_batch(), gates=gates)[0]
    every = Cut.everything(SHAPE)
    slice_to(converted, Cut((0, 1), ((0, 2, 3), (1,)), every.ffn))
    torch.testing.assert_close(converted.run(make_batch())[0], masked)


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("attention", [LINFORMER, ("linformer:6", "softmax")])
@pytest.mark.parametrize("share", ["none", "layer", "per_head"])
def test_what_is_left_of_the_layers_can_be_stored(make_model, make_batch, share, attention, left):
    converted = convert(make_model(SHAPE), attention, share=share).eval()
    every = Cut.everything(SHAPE)
    slice_to(converted, Cut((left,), (every.heads[left],), (every.ffn[left],)))
    again = type(converted)(converted.config).eval()
    again.load_state_dict(converted.state_dict())
    assert (again.predict(make_batch()) == converted.predict(make_batch())).all()


@pytest.mark.parametrize("share", ["none", "layer", "per_head"])
def test_slices_are_exact_and_sorting_changes_nothing(make_model, make_batch, share):
    converted = convert(make_model(SHAPE), LINFORMER, share=share).eval()
    whole = converted.run(make_batch())[0]
    scores = Scores(
        tuple(torch.rand(row.heads).numpy() for row in SHAPE.layers),
        tuple(torch.rand(row.ffn).numpy() for row in SHAPE.layers),
        torch.rand(2).numpy(),
    )
    sort_parts(converted, scores)
    torch.testing.assert_close(converted.run(make_batch())[0], whole)
    small = Shape(32, 8, (LayerShape(2, 16, "linformer:6"),))
    torch.testing.assert_close(
        extract(converted, small).run(make_batch())[0], converted.run(make_batch(), shape=small)[0]
    )


def test_averages_of_a_text_that_has_a_column_for_every_token_are_softmax_attention(make_model, make_batch):
    """With as many columns as tokens, and with twice as many; shorter texts leave columns empty."""
    model = make_model(SHAPE).eval()
    batch = {name: value[:1] for name, value in make_batch(longest=8).items()}
    assert batch["attention_mask"].all()
    for share, size in (("none", 8), ("kv", 16), ("layer", 8), ("per_head", 24)):
        averaged = convert(model, (f"linformer:{size}",) * 2, share=share, tokens=8).eval()
        torch.testing.assert_close(averaged.run(batch)[0], model.run(batch)[0])
    random = convert(model, ("linformer:8",) * 2).eval()
    assert (random.run(batch)[0] - model.run(batch)[0]).abs().max() > 1e-3


def test_averages_of_a_longer_text_are_those_of_its_segments(make_model):
    """Columns hold the means of neighbors, as the core divides by the square root of the length."""
    states = torch.randn(12, 3)
    means = averages(12, 4, 12).T @ states / 12**0.5
    torch.testing.assert_close(means, states.unflatten(0, (4, 3)).mean(1))


def test_what_a_model_has_is_not_averaged_again(make_model):
    model = convert(make_model(SHAPE), LINFORMER)
    again = convert(model, LINFORMER, tokens=8)
    for (name, parameter), reference in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter, reference), name


def test_positions_are_repeated_and_more_of_them_change_no_short_text(make_model, make_batch):
    model = convert(make_model(SHAPE, max_positions=16), LINFORMER)
    longer = convert(model, LINFORMER, positions=40).eval()
    table, old = (each.encoder.embeddings.position.weight for each in (longer, model))
    assert torch.equal(table[16:32], old)
    assert torch.equal(table[32:], old[:8])
    assert longer.config.max_positions == 40
    assert (longer.predict(make_batch()) == model.predict(make_batch())).all()
    assert longer.predict(make_batch(longest=39)).shape == (3, 2)
    with pytest.raises(InputError, match="positions: the model has 16 already, got 8"):
        convert(model, LINFORMER, positions=8)


def test_positions_that_mean_padding_are_not_repeated(make_model):
    model = make_model(SHAPE, max_positions=12, position_offset=1, pad_token_id=1)
    table = convert(model, LINFORMER, positions=20).encoder.embeddings.position.weight
    assert torch.equal(table[12:], table[2:10])
