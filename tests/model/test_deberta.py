from __future__ import annotations

import pytest

from limbeck.errors import InputError, UnsupportedModel
from limbeck.model.deberta import read, write
from limbeck.model.families import read_style

V3 = {
    "model_type": "deberta-v2", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 6,
    "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": "p2c|c2p", "position_biased_input": False, "max_relative_positions": -1, "vocab_size": 128100,
    "max_position_embeddings": 512, "pooler_hidden_size": 768, "type_vocab_size": 0,
}  # fmt: skip
"""The configuration of deberta-v3-small."""


def test_a_configuration_is_read_and_written_back():
    style = read_style(V3)
    assert (style.pos_att_type, style.position_buckets, style.max_relative_positions) == (("c2p", "p2c"), 256, 512)
    assert style.share_att_key
    assert style.relative_norm
    assert not style.absolute_positions
    assert (style.pooler, style.token_types, style.embedding_size) == ("gelu", 0, None)
    written = write({**vars(style), "hidden": 384})
    assert written["pooler_hidden_size"] == 384
    assert read({**V3, **written, "hidden_size": 384}) == read(V3)


def test_without_terms_it_is_plain_attention():
    style = read_style({"model_type": "deberta-v2"})
    assert (style.pos_att_type, style.absolute_positions) == ((), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_att_type": "c2p|p2p"}, "'p2p'; supported are c2p, p2c"),
        ({"relative_attention": False}, "relative_attention = False"),
        ({"pos_att_type": None}, "relative_attention = True"),
        ({"attention_head_size": 32}, "attention_head_size = 32; supported is 64"),
        ({"pooler_hidden_size": 32}, "pooler_hidden_size = 32; supported is 768"),
        ({"conv_kernel_size": 3}, "conv_kernel_size = 3; the deberta-v2 family is supported with 0 only"),
    ],
)
def test_other_options_are_refused_by_name(change, message):
    with pytest.raises(UnsupportedModel, match=message.replace("|", r"\|")):
        read_style(V3 | change, source="some/model")


@pytest.mark.parametrize("value", ["many", 1 << 30, 2.5, None, True])
def test_numbers_are_whole(value):
    with pytest.raises(InputError, match="position_buckets"):
        read(V3 | {"position_buckets": value})


@pytest.mark.parametrize("value", [7, [["c2p"]], {"a": 1}])
def test_terms_are_names(value):
    with pytest.raises(UnsupportedModel):
        read(V3 | {"pos_att_type": value})
