"""Our encoder answers like transformers, for every family, head and padding pattern."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from limbeck.errors import InputError
from limbeck.model.encoder import LimbeckForTokenClassification
from limbeck.model.families import read_shape, read_style
from limbeck.model.family_table import FAMILIES
from limbeck.model.pretrained import load_pretrained, to_transformers

LENGTH, VOCABULARY = 9, 60
BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
    "layer_norm_eps": 1e-5,
}
DISTILL = {
    "vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 20
}  # fmt: skip
DEBERTA = {
    "relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True, "position_buckets": 4,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}  # fmt: skip
MODERN = {"pad_token_id": 1, "num_hidden_layers": 4, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2}
CONFIGS = {
    "bert": ("bert", BERT_LIKE),
    "bert-gelu_new": ("bert", BERT_LIKE | {"hidden_act": "gelu_new", "classifier_dropout": 0.3}),
    "roberta": ("roberta", BERT_LIKE | {"type_vocab_size": 1}),
    "xlm-roberta": ("xlm-roberta", BERT_LIKE | {"type_vocab_size": 1}),
    "camembert": ("camembert", BERT_LIKE | {"type_vocab_size": 1}),
    "data2vec-text": ("data2vec-text", BERT_LIKE | {"type_vocab_size": 1}),
    "ernie": ("ernie", BERT_LIKE),
    "electra": ("electra", BERT_LIKE | {"embedding_size": 16}),
    "electra-wide": ("electra", BERT_LIKE | {"embedding_size": 32}),
    "albert": ("albert", BERT_LIKE | {"embedding_size": 16}),
    "roformer": ("roformer", BERT_LIKE | {"embedding_size": 16}),
    "megatron-bert": ("megatron-bert", BERT_LIKE),
    "roberta-prelayernorm": ("roberta-prelayernorm", BERT_LIKE | {"type_vocab_size": 1}),
    "xlm-roberta-xl": ("xlm-roberta-xl", BERT_LIKE | {"type_vocab_size": 1}),
    "rembert": ("rembert", BERT_LIKE | {"input_embedding_size": 16}),
    "distilbert": ("distilbert", DISTILL),
    "mpnet": ("mpnet", BERT_LIKE),
    "deberta-v2": ("deberta-v2", BERT_LIKE | DEBERTA),
    "modernbert": ("modernbert", {key: value for key, value in BERT_LIKE.items() if key != "layer_norm_eps"} | MODERN),
    "deberta-v2-old": ("deberta-v2", BERT_LIKE | {"type_vocab_size": 2}),
    "distilbert-sinusoidal": ("distilbert", DISTILL | {"sinusoidal_pos_embds": True, "activation": "relu"}),
}


def random_reference(name, auto, seed=0, **labels):
    """A transformers model with weights large enough that every part of it shows in the logits."""
    family, settings = CONFIGS[name]
    torch.manual_seed(seed)
    model = auto.from_config(transformers.AutoConfig.for_model(family, **settings, **(labels or {"num_labels": 3})))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:  # RoFormer's table of positions is computed
                parameter.normal_(0.0, 0.2)
            if "norm" in parameter_name.lower() and parameter_name.endswith("weight"):
                parameter.add_(1.0)
    return model.eval()


def padding_patterns(pad):
    """Batches [rows, LENGTH] with every pattern; padding holds the pad token, and holes hold a real one."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCABULARY, (4, LENGTH), generator=generator)
    position = torch.arange(LENGTH)
    lengths = torch.tensor([[9], [1], [4], [7]])
    masks = {
        "none": torch.ones(4, LENGTH),
        "right": (position < lengths).float(),
        "left": (position >= LENGTH - lengths).float(),
        "holes": torch.rand(4, LENGTH, generator=generator).gt(0.4).float().index_fill_(1, torch.tensor(0), 1.0),
        "one row": torch.ones(4, LENGTH).index_put_((torch.tensor(2), torch.tensor([6, 7, 8])), torch.tensor(0.0)),
    }
    for pattern, mask in masks.items():
        mask = mask.long()
        filled = ids if pattern == "holes" else torch.where(mask.bool(), ids, pad)
        yield pattern, {"input_ids": filled, "attention_mask": mask}
    yield "padded holes", {"input_ids": ids.where(masks["holes"].bool(), pad), "attention_mask": masks["holes"].long()}
    yield "no mask", {"input_ids": ids}


def with_pairs(batch, name):
    if CONFIGS[name][0] in ("bert", "electra", "ernie", "albert", "rembert", "megatron-bert"):
        yield {**batch, "token_type_ids": (torch.arange(LENGTH) > 3).long().expand(4, -1)}
    yield batch


def assert_parity(reference, model, name):
    with torch.no_grad():
        for pattern, batch in padding_patterns(reference.config.pad_token_id):
            for inputs in with_pairs(batch, name):
                expected, seen = reference(**inputs).logits, model(**inputs).logits
                assert seen.shape == expected.shape
                worst = (seen - expected).abs().max()
                assert worst < 1e-4, f"{name}, {pattern}: {worst}"
    assert expected.std() > 0.1, "the reference must say something"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_logits_equal_those_of_transformers_and_back(tmp_path, name, head):
    auto = getattr(transformers, f"AutoModelFor{head}")
    reference = random_reference(name, auto)
    reference.save_pretrained(tmp_path)
    kind = "tokens" if head == "TokenClassification" else "classification"
    output = load_pretrained(tmp_path, task_kind=kind)
    assert not output.fresh_head
    assert not output.training
    assert_parity(reference, output, name)
    back = to_transformers(output)
    assert type(back) is type(reference)
    assert_parity(back, output, name)
    expected = reference.state_dict()
    assert all(torch.equal(weight, expected[key]) for key, weight in back.state_dict().items())
    assert len(expected) == len(back.state_dict())


def test_every_family_is_tested():
    assert {family for family, _ in CONFIGS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "distilbert"])
def test_a_checkpoint_without_head_gets_a_seeded_one(tmp_path, name):
    random_reference(name, transformers.AutoModel, num_labels=2).save_pretrained(tmp_path)
    state = torch.get_rng_state()
    first, again, other = (
        load_pretrained(tmp_path, task_kind="classification", label_names=("a", "b", "c"), seed=s) for s in (7, 7, 8)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fresh_head
    assert first.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not first.classifier.bias.any()
    if name == "bert":
        reference = transformers.AutoModel.from_pretrained(tmp_path)
        assert torch.equal(first.pooler.weight, reference.pooler.dense.weight)
    else:
        assert first.pooler.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_without_a_pooler_in_the_checkpoint_it_is_drawn_and_still_bert(tmp_path):
    config = transformers.BertConfig(**BERT_LIKE)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    first, again = (load_pretrained(tmp_path, seed=3) for _ in range(2))
    assert torch.equal(first.pooler.weight, again.pooler.weight)
    first.classifier.weight.data.mul_(50)
    assert_parity(to_transformers(first), first, "bert")
    tagger = load_pretrained(tmp_path, task_kind="tokens", label_names=("O", "B", "I"))
    assert isinstance(tagger, LimbeckForTokenClassification)
    assert tagger.classifier.out_features == 3


def test_the_head_is_kept_reordered_or_drawn_anew_by_its_labels(tmp_path):
    names = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    auto = transformers.AutoModelForSequenceClassification
    reference = random_reference("roberta", auto, **names)
    reference.save_pretrained(tmp_path)
    weight = reference.classifier.out_proj.weight

    def opened(labels, kind="classification"):
        return load_pretrained(tmp_path, task_kind=kind, label_names=labels)

    assert torch.equal(opened(("negative", "positive")).classifier.weight, weight)
    assert torch.equal(opened(("positive", "negative")).classifier.weight, weight.flip(0))
    assert torch.equal(opened(("0", "1")).classifier.weight, weight)
    for strange in (opened(("entailed", "not")), opened(("a", "b", "c")), opened((), "regression")):
        assert strange.fresh_head
        assert torch.equal(strange.pooler.weight, reference.classifier.dense.weight)
    regression = opened((), "regression")
    assert (regression.classifier.out_features, regression.config.problem_type) == (1, "regression")


def test_style_follows_the_configuration():
    style = read_style({"model_type": "xlm-roberta", **BERT_LIKE, "hidden_dropout_prob": 0.2, "pad_token_id": 3})
    assert (style.position_offset, style.pad_token_id, style.dropout) == (3, 3, 0.2)
    assert (style.classifier_dropout, style.layer_norm_eps, style.max_positions) == (0.2, 1e-5, 20)
    distill = {"model_type": "distilbert", **DISTILL, "dropout": 0.3}
    assert read_style(distill).classifier_dropout == 0.2
    assert read_style(distill, per_token=True).classifier_dropout == 0.3
    assert read_style(distill).token_types == 0
    for name, (family, settings) in CONFIGS.items():  # omitted keys mean the defaults of transformers
        full = transformers.AutoConfig.for_model(family, **settings).to_dict()
        raw = {"model_type": family, **settings}
        assert read_style(raw) == read_style(full), name
        assert read_shape(raw) == read_shape(full), name
        bare = {"model_type": family}
        assert read_shape(bare) == read_shape(transformers.AutoConfig.for_model(family).to_dict()), name
        assert read_style(bare) == read_style(transformers.AutoConfig.for_model(family).to_dict()), name


def test_ragged_layers_are_named_when_a_plain_checkpoint_is_asked_for(tmp_path):
    random_reference("bert", transformers.AutoModelForSequenceClassification).save_pretrained(tmp_path)
    model = load_pretrained(tmp_path)
    model.encoder.shape = model.shape.with_layer(1, heads=2, ffn=0)
    with pytest.raises(
        InputError, match=r"layer 1 has 2 heads of 8, not 32 channels; layer 1 has 0 neurons, others 48"
    ):
        to_transformers(model)


def test_shared_layers_are_written_back_while_they_are_equal(tmp_path):
    random_reference("albert", transformers.AutoModelForSequenceClassification).save_pretrained(tmp_path)
    model = load_pretrained(tmp_path)
    layers = model.encoder.layers
    assert torch.equal(layers[0].up.weight, layers[1].up.weight)
    with torch.no_grad():
        layers[1].up.weight[0, 0] += 1
    assert not torch.equal(layers[0].up.weight, layers[1].up.weight), "each layer has weights of its own"
    with pytest.raises(InputError, match=r"one layer that all repeat, but .*layers\.1\.up\.weight"):
        to_transformers(model)


def test_an_incomplete_checkpoint_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    random_reference("bert", transformers.AutoModelForSequenceClassification).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    incomplete = {key: value for key, value in weights.items() if "layer.1.output.dense" not in key}
    save_file(incomplete, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"2 weights are missing, the first is 'encoder.layers.1.down.bias'"):
        load_pretrained(tmp_path)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(InputError, match=r"shape \[48, 32\] in the checkpoint but \[40, 32\] by config.json"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a"}, "label2id": {"a": 0}}))
    with pytest.raises(InputError, match=r"config\.json names 1 labels"):
        load_pretrained(tmp_path)


def test_loading_is_silent_and_leaves_the_settings_of_transformers(tmp_path, capfd):
    from transformers.utils import logging

    random_reference("bert", transformers.AutoModel).save_pretrained(tmp_path)
    capfd.readouterr()
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_pretrained(tmp_path, task_kind="classification", label_names=("a", "b"))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("auto", ["AutoModelForSequenceClassification", "AutoModelForTokenClassification"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_forward_gives_hidden_states_attention_and_tuples_as_transformers_does(name, auto, tmp_path):
    reference = random_reference(name, getattr(transformers, auto))
    reference.save_pretrained(tmp_path)
    reference.set_attn_implementation("eager")
    model = load_pretrained(tmp_path)
    batch = dict(padding_patterns(reference.config.pad_token_id))["right"]
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        expected, output = reference(**batch, **wanted), model(**batch, **wanted)
        bare = model(**batch, return_dict=False, output_hidden_states=True)
    assert list(expected) == list(output)
    real = batch["attention_mask"].bool()
    for before, after in zip(expected.hidden_states, output.hidden_states, strict=True):
        torch.testing.assert_close(before[real], after[real], atol=1e-4, rtol=1e-4)
    for before, after in zip(expected.attentions, output.attentions, strict=True):
        rows = real[:, None, :].expand(before.shape[:3])
        torch.testing.assert_close(before[rows], after[rows], atol=1e-4, rtol=1e-4)
    assert isinstance(bare, tuple)
    assert len(bare) == 2
    assert "hidden_states" not in model(**batch)


def test_forward_refuses_what_it_does_not_have(tmp_path):
    random_reference("bert", transformers.AutoModelForSequenceClassification).save_pretrained(tmp_path)
    model, ids = load_pretrained(tmp_path), torch.tensor([[2, 7, 3]])
    for name in ("position_ids", "inputs_embeds"):
        with pytest.raises(ValueError, match=name):
            model(ids, **{name: ids})
    with pytest.raises(ValueError, match="input_ids"):
        model(attention_mask=ids)
