import pytest
import torch
from family_models import random_model
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from limbeck.core.shape import Shape
from limbeck.model.family_table import FAMILIES
from limbeck.model.mlm_head import HEAD_PATHS, LanguageHead, language_head, open_masked
from limbeck.model.pretrained import load_pretrained
from limbeck.model.pruning.subnetwork import channel_scores, extract, sort_channels

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
SMALL = Shape.uniform(layers=1, hidden=16, heads=2, ffn=32, head_dim=8)
VARIANTS = {
    **{f"{family}-small": {} for family in HEAD_PATHS},
    **{f"{family}-odd": {"hidden_act": "relu"} for family in HEAD_PATHS if family not in ("distilbert", "modernbert")},
    "distilbert-odd": {"activation": "silu"},
    "modernbert-odd": {"decoder_bias": False, "hidden_activation": "relu"},
    "modernbert-one": {"sparse_prediction": True, "classifier_activation": "silu"},
    "deberta-v2-one": {"legacy": False},
    "rembert-small": {"output_embedding_size": 12},
    "rembert-odd": {"output_embedding_size": 12, "hidden_act": "relu"},
}


def saved(case, folder, auto="AutoModelForMaskedLM", **changes):
    model = random_model(case, auto, **VARIANTS.get(case, {}) | changes)
    if case.startswith("rembert"):  # never tied by transformers
        model.get_output_embeddings().weight.data.copy_(model.get_input_embeddings().weight)
    model.save_pretrained(folder)
    return model


def test_every_family_with_a_masked_language_model_has_a_row():
    assert set(HEAD_PATHS) == {*FAMILIES} & {*MODEL_FOR_MASKED_LM_MAPPING_NAMES}


@pytest.mark.parametrize("case", VARIANTS)
def test_logits_are_those_of_transformers(case, tmp_path, make_batch):
    reference = saved(case, tmp_path)
    model = load_pretrained(tmp_path)
    head, note = language_head(model, str(tmp_path))
    assert note == f"the head of the language model is that of '{tmp_path}'"
    batch = make_batch()
    batch["input_ids"] = batch["input_ids"].clamp_min(2)  # no padding inside of what RoBERTa counts
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = reference(**inputs).logits
        logits = head(model.encoder(*inputs.values())[0], model.encoder.embeddings.word.weight)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(logits[real], expected[real], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "electra", "rembert"])
def test_a_decoder_of_its_own_is_not_taken(family, tmp_path):
    random_model(f"{family}-small", "AutoModelForMaskedLM", tie_word_embeddings=False).save_pretrained(tmp_path)
    head, note = language_head(load_pretrained(tmp_path), str(tmp_path))
    assert note == (
        f"the head of the language model is drawn anew: the decoder of '{tmp_path}' has other weights than its word "
        "embeddings, which this head would use"
    )
    assert not head.bias.any()


@pytest.mark.parametrize("style", [{}, {"embedding_size": 20}])
def test_narrow_states_run_on_leading_slices(make_model, style):
    model = make_model(FULL, **style)
    small = extract(model, SMALL)
    head, its = (LanguageHead(each.shape.hidden, each.encoder.style) for each in (model, small))
    sources = head.state_dict()
    for name, tensor in its.state_dict().items():
        tensor.copy_(sources[name][tuple(map(slice, tensor.shape))])
    states = torch.randn(5, 16)
    table, narrow = (each.encoder.embeddings.word.weight for each in (model, small))
    torch.testing.assert_close(head(states, table), its(states, narrow))
    assert head(torch.randn(5, 32), table).shape == (5, 60)


@pytest.mark.parametrize("style", [{}, {"embedding_size": 20}])
def test_it_follows_the_order_of_the_channels(make_model, make_batch, style):
    model, batch = make_model(FULL, **style), make_batch()
    head = LanguageHead(32, model.encoder.style)
    with torch.no_grad():
        head.norm.weight.normal_()
        head.norm.bias.normal_()

        def logits():
            return head(model.encoder(batch["input_ids"])[0], model.encoder.embeddings.word.weight)

        before = logits()
        order = sort_channels(model, channel_scores(model))
        assert sorted(order.tolist()) == list(range(32))
        assert not torch.allclose(logits(), before, atol=1e-3)
        head.permute_channels(order)
        torch.testing.assert_close(logits(), before, rtol=1e-4, atol=1e-4)


def test_what_has_no_trained_head_gives_none(make_model, tmp_path):
    saved("bert-small", tmp_path / "headless", "AutoModel")
    assert "cls.predictions.bias" in open_masked(str(tmp_path / "headless"))[1]
    model = make_model(FULL)
    head, note = language_head(model, str(tmp_path / "headless"))
    assert note == f"the head of the language model is drawn anew: '{tmp_path / 'headless'}' has none"
    assert not head.bias.any()
    saved("bert-small", tmp_path / "whole")
    assert "has another size" in language_head(make_model(SMALL), str(tmp_path / "whole"))[1]
    assert language_head(model, None)[1] == "the head of the language model is drawn anew"
    extract(model, FULL).save_pretrained(tmp_path / "ours")
    assert "has none" in language_head(model, str(tmp_path / "ours"))[1]
