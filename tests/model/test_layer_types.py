"""Which layers are local, and the bases of rotary positions, in new and older configurations."""

from __future__ import annotations

import pytest
import transformers

from limbeck.core.shape import Shape
from limbeck.errors import InputError, UnsupportedModel
from limbeck.model.families import read_shape, read_style
from limbeck.model.layer_types import attention_cores, keys_of, obstacles, rotary_thetas

OLDER = {"global_attn_every_n_layers": 2, "global_rope_theta": 5e4, "local_rope_theta": 2e3, "local_attention": 10}


def test_older_keys_are_read_as_transformers_reads_them():
    config = transformers.AutoConfig.for_model("modernbert", num_hidden_layers=5, **OLDER).to_dict()
    for source in (OLDER, config):
        assert attention_cores(source, 5, "m") == ["softmax", "local:5", "softmax", "local:5", "softmax"]
        assert rotary_thetas(source, 5, "m") == [5e4, 2e3, 5e4, 2e3, 5e4]
    raw = {"model_type": "modernbert", "num_hidden_layers": 5, **OLDER}
    assert read_shape(raw) == read_shape(config)
    assert read_style(raw) == read_style(config)


def test_what_is_written_is_read_back():
    shape = Shape.uniform(3, 8, 2, 6).with_attention("local:4", "softmax", "local:4")
    keys = keys_of(shape, (3.0, 7.0, 3.0))
    assert attention_cores(keys, 3, "m") == [layer.attention for layer in shape.layers]
    assert rotary_thetas(keys, 3, "m") == [3.0, 7.0, 3.0]


def test_what_a_configuration_cannot_say():
    shape = Shape.uniform(3, 8, 2, 6).with_attention("softmax", "local:4", "local:6")
    assert "local attention differ" in obstacles(shape, (1.0,) * 3, [0])[0]
    assert "softmax attention differ" in obstacles(Shape.uniform(2, 8, 2, 6), (1.0, 2.0), [0])[0]
    assert "no norm" in obstacles(Shape.uniform(2, 8, 2, 6), (1.0, 1.0), [])[0]
    assert not obstacles(Shape.uniform(2, 8, 2, 6), (1.0,), (0,))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer_types", ["full_attention"], "one for each of 2 layers"),
        ("layer_types", ["full_attention", "sliding_atention"], "did you mean 'sliding_attention'"),
        ("global_attn_every_n_layers", 0, "expected 1 or more"),
        ("local_attention", 0, "expected 1 or more"),
    ],
)
def test_wrong_kinds_of_layers_are_refused(key, value, message):
    with pytest.raises(InputError, match=message):
        attention_cores({key: value}, 2, "m")


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}},
        {"global_rope_theta": -1.0},
    ],
)
def test_scaled_positions_are_refused(config):
    with pytest.raises(UnsupportedModel, match=r"rotary|rope_scaling"):
        rotary_thetas(config, 2, "m")
