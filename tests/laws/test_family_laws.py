"""What holds for every family of encoders, in several odd shapes: each law compares two ways to compute the same."""

from __future__ import annotations

import copy
from random import Random

import family_models as families
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from limbeck.core import analytic_cost
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.model import dropout as own_dropout
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.encoder import Gates
from limbeck.model.onnx.onnx_model import open_session, parts, to_onnx
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize
from limbeck.model.pretrained import load_pretrained, to_transformers
from limbeck.model.pruning.importance import magnitude
from limbeck.model.pruning.slicing import Cut, slice_to
from limbeck.model.pruning.subnetwork import channel_scores, extract, sort_channels, sort_parts

WORDS = models.WordLevel({"[PAD]": 0, "[UNK]": 1, "word": 2}, unk_token="[UNK]")
TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WORDS), pad_token="[PAD]", unk_token="[UNK]")
CASES = pytest.mark.parametrize("case", families.CASES)
DROPOUTS = {
    name: 0.1 + number / 100
    for number, name in enumerate((
        "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob",
        "dropout", "attention_dropout", "seq_classif_dropout", "cls_dropout", "pooler_dropout", "mlp_dropout",
        "embedding_dropout",
    ))
}  # fmt: skip
"""A probability of its own for every key that some family has."""
PRUNABLE = pytest.mark.parametrize("case", [case for case in families.CASES if not case.endswith("one")])


def batches(model):
    style = model.encoder.style
    return families.batches(style.pad_token_id, types=style.token_types > 1)


def logits(model, batch, **options):
    with torch.no_grad():
        return model.run(batch, **options)[0]


def random_cut(model, seed=0):
    """Keep some heads and neurons of each layer, and leave one layer without heads."""
    rng, shape = Random(seed), model.shape
    heads = [sorted(rng.sample(range(layer.heads), rng.randint(1, layer.heads - 1))) for layer in shape.layers]
    heads[0] = []
    ffn = [sorted(rng.sample(range(layer.ffn), rng.randint(1, layer.ffn))) for layer in shape.layers]
    return Cut(tuple(range(shape.depth)), tuple(map(tuple, heads)), tuple(map(tuple, ffn)))


@CASES
@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_logits_are_those_of_transformers(case, kind):
    reference, model = families.reference(case, kind).double(), families.ours(case, kind)
    plain, model = to_transformers(model).double(), model.double()  # pre-norm magnifies what float32 rounds
    for batch in batches(model):
        with torch.no_grad():
            expected = reference(**batch).logits
            again = plain(**batch).logits
        seen = logits(model, batch)
        assert seen.shape == expected.shape
        seen, expected, again = (families.defined(model, batch, answers) for answers in (seen, expected, again))
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(again, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.05, "the reference must say something"


@PRUNABLE
def test_sliced_equals_masked(case):
    model = families.ours(case)
    cut, shape = random_cut(model), model.shape
    heads, ffn = torch.zeros(shape.depth, shape.layers[0].heads), torch.zeros(shape.depth, shape.layers[0].ffn)
    for index in range(shape.depth):
        heads[index, list(cut.heads[index])] = 1
        ffn[index, list(cut.ffn[index])] = 1
    small = slice_to(copy.deepcopy(model), cut)
    for batch in batches(model):
        masked = logits(model, batch, gates=Gates(heads, ffn, torch.ones(shape.depth)))
        torch.testing.assert_close(logits(small, batch), masked, atol=1e-5, rtol=1e-4)


@PRUNABLE
def test_a_slice_answers_as_what_is_extracted(case):
    model = families.ours(case)
    sort_parts(model, magnitude(model, ()))
    shape, rng = model.shape, Random(1)
    ranges = (Range(1, shape.depth), Range(1, shape.hidden), Range(1, shape.layers[0].heads))
    pairs = 2 if model.style.rotary_theta else 1  # of channels, which rotary positions turn
    channels = Range(pairs, shape.head_dim, pairs)
    space = Space(*ranges, Range(1, shape.layers[0].ffn), channels, per_layer=True, attention=shape.attention)
    for sample in [space.sample(rng) for _ in range(4)]:
        small = extract(model, sample)
        for batch in batches(model):
            torch.testing.assert_close(logits(small, batch), logits(model, batch, shape=sample), atol=1e-5, rtol=1e-4)


@PRUNABLE
def test_sorting_heads_and_neurons_changes_no_answer(case):
    model = families.ours(case).double()
    before = [logits(model, batch) for batch in batches(model)]
    sort_parts(model, magnitude(model, ()))
    plain = to_transformers(model).double()
    for batch, expected in zip(batches(model), before, strict=True):
        torch.testing.assert_close(logits(model, batch), expected, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            answers = families.defined(model, batch, plain(**batch).logits)
            torch.testing.assert_close(answers, families.defined(model, batch, expected), atol=1e-4, rtol=1e-4)


@PRUNABLE
def test_sorting_channels_changes_no_answer(case):
    model = families.ours(case).double()
    before = [logits(model, batch) for batch in batches(model)]
    sort_channels(model, channel_scores(model))
    for batch, expected in zip(batches(model), before, strict=True):
        torch.testing.assert_close(logits(model, batch), expected, atol=1e-5, rtol=1e-4)


@PRUNABLE
def test_a_saved_folder_reopens(case, tmp_path):
    model = families.ours(case)
    slice_to(model, random_cut(model))
    save_model(model, TOKENIZER, tmp_path)
    again, _ = open_model(tmp_path)
    assert again.shape == model.shape
    for batch in batches(model):
        assert torch.equal(logits(again, batch), logits(model, batch))


@PRUNABLE
@pytest.mark.parametrize(("kind", "fused"), [("text", True), ("text", False), ("tokens", True)])
def test_the_graph_answers_as_torch(case, kind, fused, tmp_path):
    model = families.ours(case, kind)
    slice_to(model, random_cut(model))
    session = open_session(to_onnx(model, tmp_path / "model.onnx", fused=fused))
    blueprint, weights = parts(model, fused=fused)
    int8 = Int8(frozenset(quantizable_modules(blueprint, weights)), reduce_range=False)
    rounded = open_session(quantize(blueprint, weights, int8), exact=True)  # without VNNI such weights overflow
    names = [entry.name for entry in session.get_inputs()]
    for batch in list(batches(model))[:4]:
        expected = logits(model, batch).numpy()
        feed = {name: batch[name].numpy() for name in names}
        expected, seen, near = (
            families.defined(model, batch, answers)
            for answers in (expected, session.run(None, feed)[0], rounded.run(None, feed)[0])
        )
        np.testing.assert_allclose(seen, expected, atol=1e-4)
        error = np.abs(near - expected).mean()
        assert error < 0.25 * expected.std(), "INT8 is near"


@CASES
@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_training_drops_what_transformers_drops(case, kind, monkeypatch, tmp_path):
    """The same probabilities on the same activations, in the same order; each key of the configuration has its own."""
    dropped = []
    original = torch.nn.functional.dropout, torch.nn.functional.scaled_dot_product_attention, own_dropout._scales

    def dropout(values, p=0.5, training=True, inplace=False):
        if training and p:
            dropped.append((p, values.ndim, values.shape[-1]))
        return original[0](values, p, training)

    def attention(query, key, value, **options):
        if p := options.get("dropout_p"):
            dropped.append((p, query.ndim, key.shape[-2]))
        return original[1](query, key, value, **options)

    def scales(values, p):
        dropped.append((p, values.ndim, values.shape[-1]))
        return original[2](values, p)

    reference = families.random_model(case, families.AUTO[kind], **DROPOUTS)
    reference.save_pretrained(tmp_path)
    models = reference, to_transformers(load_pretrained(tmp_path)), load_pretrained(tmp_path)
    batch = next(iter(batches(models[-1])))
    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(own_dropout, "_scales", scales)
    seen = []
    for model in models:
        dropped.clear()
        model.train()(**batch)
        seen.append(list(dropped))
    assert len(seen[0]) > 2
    assert seen[1] == seen[0]
    assert sorted(seen[2]) == sorted(seen[0])


@CASES
@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_parameters_are_counted_by_formula(case, kind):
    model = families.ours(case, kind)
    shape, style = analytic_cost.of_model(model)
    options = {"labels": model.classifier.out_features, "pooler": model.pooler is not None}
    assert analytic_cost.parameters(shape, style, **options) == sum(each.numel() for each in model.parameters())
    assert analytic_cost.bytes(shape, style, **options) == sum(each.nbytes for each in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("family", families.FAMILIES)
def test_bytes_in_int8_are_close_to_those_of_the_file(family, tmp_path):
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "vocab_size": 9000}
    sizes |= {"max_position_embeddings": 258} | ({"position_buckets": 96} if family == "deberta-v2" else {})
    reference = families.random_model(f"{family}-small", families.AUTO["text"], **sizes)
    reference.save_pretrained(tmp_path)
    model = load_pretrained(tmp_path)
    blueprint, weights = parts(model, fused=True)
    int8 = Int8(frozenset(quantizable_modules(blueprint, weights)))
    predicted = analytic_cost.bytes(*analytic_cost.of_model(model), "int8", 3, model.pooler is not None)
    assert predicted == pytest.approx(quantize(blueprint, weights, int8).ByteSize(), rel=0.08)


def test_a_narrow_mpnet_becomes_a_plain_checkpoint_with_the_biases_of_its_heads():
    model = families.ours("mpnet-small")
    narrow = extract(model, Shape.uniform(layers=2, hidden=16, heads=2, ffn=24, head_dim=8))
    plain = to_transformers(narrow)
    assert plain.mpnet.encoder.relative_attention_bias.weight.shape[1] == 2
    for batch in batches(narrow):
        with torch.no_grad():
            torch.testing.assert_close(plain(**batch).logits, logits(narrow, batch), atol=1e-4, rtol=0)
