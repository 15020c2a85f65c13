"""Values of a config.json that no model has are named, with what is expected, before anything is built."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig

from limbeck.errors import InputError
from limbeck.model.checkpoints import peek
from limbeck.model.config_check import FRACTIONS, LISTS, SWITCHES, TEXTS, WHOLE, check_config
from limbeck.model.pretrained import load_pretrained
from limbeck.model.style import Style

ODD = ["64", -1, 1.5, True, 10**9, 10**40, [], {}, float("nan")]


@pytest.mark.parametrize("key", sorted(WHOLE))
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_whole_numbers_have_bounds(key, value):
    with pytest.raises(InputError, match=rf"M: config\.json has {key} = .*; expected a whole number from \d"):
        check_config({key: value}, "M")


@pytest.mark.parametrize("key", sorted({*FRACTIONS, *TEXTS, *SWITCHES, *LISTS}))
def test_other_keys_have_types(key):
    for value in (10**40, {"a": 1}, [[1]], [None], float("inf")):
        with pytest.raises(InputError, match=rf"M: config\.json has {key} = .*; expected "):
            check_config({key: value}, "M")


@pytest.mark.parametrize("field", fields(Style), ids=lambda field: field.name)
def test_a_configuration_of_ours_has_the_form_that_the_style_declares(field, make_model):
    config = json.loads(json.dumps({"model_type": "limbeck", **asdict(make_model().config.style)}))
    check_config(config, "M")
    for value in ({"a": 1}, [{}]):
        with pytest.raises(InputError, match=rf"M: config\.json has {field.name} = "):
            check_config(config | {field.name: value}, "M")


def test_sizes_must_be_there_if_they_are_named_at_all():
    for key in ("hidden_size", "vocab_size", "num_hidden_layers", "n_layers"):
        with pytest.raises(InputError, match=f"{key} = None"):
            check_config({key: None}, "M")
    check_config({"pad_token_id": None, "classifier_dropout": None, "architectures": None}, "M")


@pytest.mark.parametrize("layers", [0, 1001, 10**6])
def test_layers_are_counted(layers):
    for key in ("num_hidden_layers", "n_layers"):
        with pytest.raises(InputError, match=f"{key} = {layers}; expected a whole number from 1 to 1,000"):
            check_config({key: layers}, "M")
    if layers:
        with pytest.raises(InputError, match="at most 1000"):
            check_config({"layer_heads": [1] * layers}, "M")


def test_padding_is_a_token():
    with pytest.raises(InputError, match="pad_token_id = 60, and vocab_size = 60"):
        check_config({"pad_token_id": 60, "vocab_size": 60}, "M")


def test_configurations_as_libraries_write_them_pass(make_model):
    for config in (BertConfig(), DistilBertConfig(), make_model().config):
        check_config(config.to_dict(), "M")
        check_config(json.loads(config.to_json_string()), "M")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mistral", "head_dim": None, "pad_token_id": -1},
        {"model_type": "mobilebert", "classifier_activation": True},
        {"model_type": "gpt_neo", "intermediate_size": None, "pad_token_id": 50256, "vocab_size": 50256},
        {"model_type": "esm", "vocab_size": None, "hidden_act": None},
    ],
    ids=lambda config: config["model_type"],
)
def test_other_architectures_have_other_types_under_the_same_keys(config):
    check_config(config, "M")
    for family in ("bert", "limbeck"):
        with pytest.raises(InputError):
            check_config(config | {"model_type": family}, "M")
    for fault in ({"architectures": 5}, {"num_labels": "two"}, {"attn_implementation": "someone/kernel"}):
        with pytest.raises(InputError, match=next(iter(fault))):
            check_config(config | fault, "M")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    BertForSequenceClassification(BertConfig(vocab_size=60, max_position_embeddings=40, **sizes)).save_pretrained(
        folder
    )
    return folder


def test_layers_of_something_else_in_the_weights_are_not_counted(bert, tmp_path):
    weights = load_file(bert / "model.safetensors")
    for name in ("reranker.encoder.layer.9.weight", "bert.other.encoder.layer.9.weight"):
        weights[name] = torch.ones(2)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    assert load_pretrained(tmp_path).shape.depth == 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"num_hidden_layers": 2}, "num_hidden_layers = 2, but the weights have 3 layers"),
        ({"num_hidden_layers": 1000, "hidden_size": 1 << 20}, "but the weights have 3 layers"),
        ({"vocab_size": 1 << 24}, "word_embeddings.weight' has shape"),
        ({"hidden_size": 1 << 20}, "has shape"),
        ({"max_position_embeddings": 1 << 24}, "position_embeddings.weight' has shape"),
        ({"architectures": 5}, "architectures = 5; expected a list of names"),
        ({"id2label": ["a", "b"]}, "id2label"),
        ({"id2label": {"1": "a", "2": "b"}}, "id2label"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"num_labels": 10**9, "id2label": None}, "num_labels"),
        ({"hidden_act": "someone/kernel"}, "activation"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"torch_dtype": "nonsense", "dtype": 5}, None),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_its_weights_is_refused(bert, tmp_path, entry, message):
    """Sizes are compared with the header of the weights, so that nothing of the claimed size is ever allocated."""
    (tmp_path / "model.safetensors").hardlink_to(bert / "model.safetensors")
    config = json.loads((bert / "config.json").read_text()) | entry
    (tmp_path / "config.json").write_text(json.dumps(config))

    def opened():
        peek(tmp_path)
        return load_pretrained(tmp_path)

    if message is None:
        assert opened().shape.depth == 3
        return
    with pytest.raises(InputError, match=message) as caught:
        opened()
    assert str(tmp_path) in str(caught.value)
