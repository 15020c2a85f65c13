"""The configuration holds shape and style, and reads both back from a family's config.json."""

from __future__ import annotations

import dataclasses
import json

from limbeck.model.configuration import LimbeckConfig
from limbeck.model.style import Style


def test_shape_and_style_survive_a_file(tmp_path):
    style = Style("roberta", vocab_size=70, position_offset=1, pad_token_id=1, dropout=0.3)
    config = LimbeckConfig(24, 6, [4, 2], [9, 0], ["softmax", "window:8"], **dataclasses.asdict(style))
    config.save_pretrained(tmp_path)
    again = LimbeckConfig.from_pretrained(tmp_path)
    assert (again.shape, again.depth) == (config.shape, 2)
    assert again.style == dataclasses.replace(
        style, position_heads=[], pos_att_type=[], rotary_theta=[], unnormed_layers=[]
    )  # JSON has lists
    assert again.shape.layers[1] == (2, 0, "window:8", 1.0)
    fewer = LimbeckConfig(24, 6, [4, 2], [9, 9], layer_tokens=[0.5, 0.25])
    assert [layer.tokens for layer in fewer.shape.layers] == [0.5, 0.25]
    assert "layer_tokens" not in config.to_dict()


def test_embeddings_as_wide_as_the_encoder_have_no_width_of_their_own(tmp_path):
    assert LimbeckConfig(24, 6, [4], [9], embedding_size=12).embedding_size == 12
    assert LimbeckConfig(24, 6, [4], [9], embedding_size=24).style.embedding_size is None
    written = {"model_type": "limbeck", "hidden_size": 24, "head_dim": 6, "embedding_size": 24}  # by an earlier version
    (tmp_path / "config.json").write_text(json.dumps({**written, "layer_heads": [4], "layer_ffn": [9]}))
    assert LimbeckConfig.from_pretrained(tmp_path).embedding_size is None


def test_a_family_configuration_gives_way_to_its_entry(tmp_path):
    ours = {"hidden_size": 8, "head_dim": 4, "layer_heads": [2], "layer_ffn": [5], "family": "bert"}
    both = {"model_type": "bert", "hidden_size": 99, "intermediate_size": 7, "note": "ours too", "limbeck": ours}
    (tmp_path / "config.json").write_text(json.dumps(both))
    config = LimbeckConfig.from_pretrained(tmp_path)
    assert (config.hidden_size, config.layer_ffn, config.note) == (8, [5], "ours too")
    assert not hasattr(config, "intermediate_size")
