"""Where hidden states are read, in every family."""

import family_models as families
import pytest
import torch

from limbeck.core.sentence_embedding import POOLINGS, SentenceEmbedding
from limbeck.core.shape import LayerShape, Shape
from limbeck.model.family_table import FAMILIES
from limbeck.model.pruning.read_points import (
    TAPS,
    linear_at,
    norm_at,
    pooling_of,
    position_maps,
    read_points,
    rows_read,
    takes_constants,
)


def recorded(model, paths):
    """Record what the modules at these paths read and give, in a dictionary that a run fills."""
    inputs, outputs = {}, {}

    def note(path):
        def hook(module, arguments, output):
            inputs.setdefault(path, arguments[0])
            outputs.setdefault(path, output)

        return hook

    for path in paths:
        model.get_submodule(path).register_forward_hook(note(path))
    return inputs, outputs


@pytest.mark.parametrize("kind", ["text", "tokens"])
@pytest.mark.parametrize("case", families.CASES)
def test_every_map_of_hidden_states_reads_at_one_place_what_the_place_says(case, kind):
    model = families.ours(case, kind)
    batch = next(families.batches(model.style.pad_token_id, types=False))
    points = read_points(model)
    paths = [path for point in points for path in point.maps]
    assert len(set(paths)) == len(paths)
    inputs, _ = recorded(model, paths)
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        taps = model.run(batch, taps=TAPS)[1]
        for point in points:
            rows = rows_read(model, point, taps, batch)
            for path in point.maps:
                read = inputs[path]
                if point.tap == "distances":
                    read = read[0]
                    rows = rows[: len(read)] if len(rows) != len(read) else rows  # a run reads those that occur
                    assert all(
                        any(
                            torch.equal(row, other)
                            for other in model.encoder.relative.rows(model.shape.hidden, slice(None))
                        )
                        for row in read
                    )
                    continue
                torch.testing.assert_close(read[mask] if read.dim() == 3 else read, rows, rtol=1e-5, atol=1e-5)
    hidden_maps = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith(("attention_out", "down", "project"))
    }
    assert set(paths) == hidden_maps


@pytest.mark.parametrize("share", [True, False])
def test_only_softmax_attention_reads_embeddings_of_distances(make_model, share):
    cores = ("softmax", "kernel", "softmax")
    shape = Shape(32, 8, tuple(LayerShape(4, 48, core) for core in cores))
    style = {"pos_att_type": ("c2p", "p2c"), "share_att_key": share, "max_relative_positions": 16}
    model = make_model(shape, layer_attention=cores, family="deberta-v2", **style)
    own = ("key", "query") if share else ("position_key", "position_query")
    maps = tuple(f"encoder.layers.{index}.{name}" for index in (0, 2) for name in own)
    assert position_maps(model) == maps
    paths = [path for point in read_points(model) for path in point.maps]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_norm_of_hidden_states_belongs_to_one_place(family):
    model = families.ours(f"{family}-small")
    norms = [point.norm for point in read_points(model) if point.norm]
    assert len(set(norms)) == len(norms)
    width = model.shape.hidden
    expected = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm) and module.normalized_shape == (width,)
    }
    assert set(norms) == expected - ({"encoder.relative.norm"} if model.encoder.style.share_att_key else set())
    for point in read_points(model):
        assert (norm_at(model, point.norm) is None) == (not point.norm)
        assert all(linear_at(model, path).in_features == width for path in point.maps)


@pytest.mark.parametrize("style", [{}, {"norm_first": True}, {"pooler_per_token": True, "pooler_norm": True}])
def test_the_head_of_words_reads_the_first_piece_of_each(make_model, make_batch, style):
    """All else reads every token, and so does the head where no label tells first pieces from others."""
    model, batch = make_model(kind="tokens", **style), make_batch()
    mask = batch["attention_mask"].bool()
    first = mask & (torch.arange(9) % 2 == 1)
    labels = {"unlabeled": torch.full_like(batch["input_ids"], -100)}
    labels["labeled"] = labels["unlabeled"].masked_fill(first, 0)
    paths = ["pooler", "classifier"] if model.pooler is not None else ["classifier"]
    inputs, _ = recorded(model, paths)
    with torch.no_grad():
        taps = model.run(batch, taps=TAPS)[1]
        for point in read_points(model):
            every, marked = (rows_read(model, point, taps, {**batch, "labels": labels[name]}) for name in labels)
            assert len(every) == int(mask.sum())
            if set(point.maps) & set(paths):
                paths.remove(*point.maps)
                torch.testing.assert_close(marked, inputs[point.maps[0]][first])
            else:
                assert torch.equal(marked, every)
    assert not paths


def test_what_a_head_pools(make_model):
    assert pooling_of(make_model()) == "cls"
    assert pooling_of(make_model(pooling="mean")) == "mean"
    assert pooling_of(make_model(kind="tokens")) is None
    vectors = make_model(kind="embedding")
    assert pooling_of(vectors) == "mean"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_bias_makes_up_for_constants_unless_they_grow_with_the_text(make_model, make_batch, pooling):
    model, batch = make_model(kind="embedding"), make_batch()
    model.embedding = SentenceEmbedding(pooling=pooling, normalize=False)
    model.keep_width(bias=True)
    assert takes_constants(model, "encoder.layers.0.up")
    mask = batch["attention_mask"]
    with torch.no_grad():
        states = model.run(batch, taps=TAPS)[1]["hidden"][-1]
        moved = model.logits(states + 1.0, mask) - model.logits(states, mask)
    assert takes_constants(model, "dense.0") == bool(torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-4))


def test_a_map_without_bias_makes_up_for_no_constant(make_model):
    model = make_model(attention_bias=False)
    assert not takes_constants(model, "encoder.layers.0.query")
    assert takes_constants(model, "encoder.layers.0.up")


def test_a_change_comes_before_the_pooling(make_model, make_batch):
    model, batch = make_model(pooling="mean"), make_batch()
    point = next(point for point in read_points(model) if point.maps == ("pooler",))
    with torch.no_grad():
        taps = model.run(batch, taps=TAPS)[1]
        squares = rows_read(model, point, taps, batch, torch.square)
    mask = batch["attention_mask"].bool()
    expected = [states[real].square().mean(0) for states, real in zip(taps["hidden"][-1], mask, strict=True)]
    torch.testing.assert_close(squares, torch.stack(expected))
