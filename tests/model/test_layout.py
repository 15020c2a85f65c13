from __future__ import annotations

import torch
from safetensors.torch import save_file

from limbeck.core.shape import LayerShape, Shape
from limbeck.model.layout import shape_config, shape_of, tensor_names


def test_a_configuration_without_attention_has_softmax():
    config = {"hidden_size": 8, "head_dim": 4, "layer_heads": [2, 1], "layer_ffn": [6, 0]}
    assert shape_of(config) == Shape(8, 4, (LayerShape(2, 6), LayerShape(1, 0)))


def test_the_keys_of_a_shape_describe_it():
    shape = Shape(8, 4, (LayerShape(2, 6, "kernel"), LayerShape(1, 0)))
    assert shape_config(shape) == {
        "hidden_size": 8,
        "head_dim": 4,
        "layer_heads": [2, 1],
        "layer_ffn": [6, 0],
        "layer_attention": ["kernel", "softmax"],
    }
    shape = Shape.uniform(layers=2, hidden=8, heads=2, ffn=6).with_tokens(0.5, 1)
    assert shape_config(shape)["layer_tokens"] == [0.5, 1.0]
    assert shape_of(shape_config(shape)) == shape


def test_tensor_names_are_read_from_the_header(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, path, metadata={"format": "pt"})
    assert tensor_names(path) == {"a", "b"}
