import pytest
import torch
import transformers

from limbeck.core.shape import Shape
from limbeck.model.mlm_head import LanguageHead, language_head, open_masked
from limbeck.model.pretrained import load_pretrained
from limbeck.model.pruning.subnetwork import channel_scores, extract, sort_channels

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
SMALL = Shape.uniform(layers=1, hidden=16, heads=2, ffn=32, head_dim=8)
SIZE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DISTILL = {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
CONFIGS = {
    "bert": SIZE | {"hidden_act": "relu"},
    "roberta": SIZE | {"type_vocab_size": 1},
    "xlm-roberta": SIZE | {"type_vocab_size": 1},
    "electra": SIZE | {"embedding_size": 16},
    "ernie": SIZE,
    "camembert": SIZE | {"type_vocab_size": 1},
    "data2vec-text": SIZE | {"type_vocab_size": 1},
    "mpnet": SIZE,
    "albert": SIZE | {"embedding_size": 16},
    "distilbert": DISTILL,
    "modernbert": SIZE
    | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "deberta-v2": SIZE | {"relative_attention": True, "pos_att_type": "c2p", "embedding_size": 16},
    "deberta-v2-new": SIZE | {"legacy": False},
}


def saved(family, folder, auto=transformers.AutoModelForMaskedLM):
    torch.manual_seed(0)
    model = auto.from_config(transformers.AutoConfig.for_model(family.removesuffix("-new"), **CONFIGS[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_those_of_transformers(family, tmp_path, make_batch):
    reference = saved(family, tmp_path)
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
    torch.testing.assert_close(logits[real], expected[real], rtol=1e-4, atol=1e-4)


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
    saved("bert", tmp_path / "headless", transformers.AutoModel)
    assert "cls.predictions.bias" in open_masked(str(tmp_path / "headless"))[1]
    model = make_model(FULL)
    head, note = language_head(model, str(tmp_path / "headless"))
    assert note == f"the head of the language model is drawn anew: '{tmp_path / 'headless'}' has none"
    assert not head.bias.any()
    saved("bert", tmp_path / "whole")
    assert "has another size" in language_head(make_model(SMALL), str(tmp_path / "whole"))[1]
    assert language_head(model, None)[1] == "the head of the language model is drawn anew"
    extract(model, FULL).save_pretrained(tmp_path / "ours")
    assert "has none" in language_head(model, str(tmp_path / "ours"))[1]
