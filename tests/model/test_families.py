"""Families are read from a configuration alone, and what is not supported is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from limbeck.core.shape import Shape
from limbeck.errors import UnsupportedModel
from limbeck.model.checkpoints import open_model, peek
from limbeck.model.families import (
    ACTIVATIONS,
    LEARNED_ACTIVATIONS,
    head_tensors,
    ragged_layers,
    read_shape,
    read_style,
)
from limbeck.model.family_table import FAMILIES
from limbeck.model.style import Style


def test_usual_activations_are_those_of_transformers_and_of_our_families():
    from transformers.activations import ACT2FN

    assert set(ACT2FN) >= ACTIVATIONS
    own = {value for family in FAMILIES.values() for key, (_, value) in family.keys.items() if key == "activation"}
    assert own <= ACTIVATIONS


def test_activations_with_weights_are_refused():
    from transformers.activations import ACT2FN

    assert {name for name in ACT2FN if list(ACT2FN[name].parameters())} == set(LEARNED_ACTIVATIONS)
    for name in LEARNED_ACTIVATIONS:
        with pytest.raises(UnsupportedModel, match=f"activation '{name}' has weights of its own"):
            read_style({"model_type": "bert", "hidden_act": name})


@pytest.mark.parametrize("family", ["deberta", "convbert", "berta", "llama"])
def test_other_families_are_refused_by_name(family):
    with pytest.raises(UnsupportedModel) as error:
        read_shape({"model_type": family}, "some/model")
    message = str(error.value)
    assert "some/model" in message
    assert f"'{family}'" in message
    assert all(name in message for name in FAMILIES)


def test_every_encoder_of_transformers_is_supported_or_refused_with_the_nearest_family():
    encoders = {*MODEL_FOR_MASKED_LM_MAPPING_NAMES, "canine", "layoutlmv2", "layoutlmv3", "lilt", "markuplm", "xlnet"}
    for name in sorted(encoders - FAMILIES.keys()):
        with pytest.raises(UnsupportedModel, match=f"'{name}' is not supported.*closest is '({'|'.join(FAMILIES)})'"):
            read_shape({"model_type": name})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("pruned_heads", {"0": [1]}),
    ],
)
def test_features_beyond_a_family_are_refused(key, value):
    with pytest.raises(UnsupportedModel, match=key):
        read_shape({"model_type": "bert", key: value})
    read_shape({"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False, "pruned_heads": {}})


def test_a_family_without_a_table_of_positions_does_not_read_their_kind():
    """As mmBERT's configuration has it, and ModernBERT's."""
    for kind in ("sans_pos", "absolute"):
        assert read_shape({"model_type": "modernbert", "position_embedding_type": kind}).hidden == 768


@pytest.mark.parametrize(
    ("key", "family"),
    [("embedding_size", "electra"), ("embedding_size", "roformer"), ("input_embedding_size", "rembert")],
)
def test_embeddings_as_wide_as_the_encoder_have_no_width_of_their_own(key, family):
    config = {"model_type": family, "hidden_size": 768, "num_attention_heads": 12}
    assert read_style({**config, key: 768}).embedding_size is None
    assert read_style({**config, key: 128}).embedding_size == 128


def test_head_tensors_are_named_as_the_family_does():
    assert head_tensors(Style("roberta"), per_token=False)[0] == "classifier.dense.weight"
    assert not ragged_layers(Shape.uniform(layers=2, hidden=32, heads=4, ffn=64))


def test_a_table_of_normalized_embeddings_cannot_be_a_plain_checkpoint():
    shape = Shape.uniform(layers=2, hidden=16, heads=2, ffn=24)
    style = Style("modernbert", unnormed_layers=(0,), rotary_theta=(10_000.0,))
    assert ragged_layers(shape, style) == []
    assert ragged_layers(shape, replace(style, embedding_norm=False)) == [
        "the norm of the embeddings is part of their table"
    ]
    assert ragged_layers(shape, Style("megatron-bert", embedding_norm=False)) == []


def test_layers_with_other_position_biases_cannot_be_a_plain_checkpoint():
    shape = Shape.uniform(layers=2, hidden=16, heads=2, ffn=24, head_dim=8)
    style = Style("mpnet", relative_buckets=32, relative_heads=4)
    assert ragged_layers(shape, style) == []
    assert ragged_layers(shape, replace(style, position_heads=((2, 0), (0, 2)))) == []
    (reason,) = ragged_layers(shape, replace(style, position_heads=((0, 1), (0, 2))))
    assert reason == "layer 1 has the position biases of heads [0, 2], layer 0 those of [0, 1]"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "n_layer": 12, "activation_function": "swiglu"},
        {"model_type": "eurobert", "hidden_size": 768, "num_key_value_heads": 12, "rope_theta": 250000},
        {"model_type": "new", "pack_qkv": True, "rope_scaling": {"factor": 2.0, "type": "ntk"}},
    ],
)
def test_modern_architectures_that_are_not_covered_name_the_nearest_family(tmp_path, config):
    code = {"auto_map": {"AutoConfig": "owner/name--configuration.Config", "AutoModel": "owner/name--modeling.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config | code))
    code_of_its_own = " and needs code from its author" if config["model_type"] == "new" else ""
    message = f"'{config['model_type']}' is not supported{code_of_its_own}[;,].*closest is 'modernbert'"
    for call in (peek, open_model):
        with pytest.raises(UnsupportedModel, match=message):
            call(str(tmp_path))
