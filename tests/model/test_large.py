"""Graphs whose weights lie outside: written, opened, read back and quantized like the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.model import large, quantized
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification
from limbeck.model.large import LargeModel, data_file, initializers, size_on_disk
from limbeck.model.onnx import OnnxModel, open_session, parts, read_parts, to_onnx, write


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = Shape.uniform(layers=2, hidden=32, heads=2, ffn=64).with_layer(1, heads=1)
    rows = [[getattr(layer, name) for layer in shape.layers] for name in ("heads", "ffn")]
    made = LimbeckForSequenceClassification(
        LimbeckConfig(shape.hidden, shape.head_dim, *rows, vocab_size=400, max_positions=40)
    )
    made.encoder.shape = shape
    return made.eval()


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(large, "LIMIT", 50_000)


BATCH = {"input_ids": torch.tensor([[2, 7, 300, 3]])}


def test_weights_above_the_limit_lie_beside_the_graph(model, small_limit, tmp_path):
    path = to_onnx(model, tmp_path / "model.onnx")
    assert path.stat().st_size < 20_000 < data_file(path).stat().st_size
    exported = OnnxModel(tmp_path, "model.onnx", {})
    np.testing.assert_allclose(exported.predict(BATCH), model.predict(BATCH), atol=1e-5)
    assert exported.size_bytes == size_on_disk(path) == sum(file.stat().st_size for file in tmp_path.iterdir())
    onnx.checker.check_model(str(path))


def test_they_are_mapped_when_read_and_equal_those_in_one_file(model, monkeypatch, tmp_path):
    inside = read_parts(to_onnx(model, tmp_path / "inside.onnx"))
    monkeypatch.setattr(large, "LIMIT", 50_000)
    outside = read_parts(to_onnx(model, tmp_path / "outside.onnx"))
    assert inside[0] == outside[0]
    assert inside[1].keys() == outside[1].keys()
    assert isinstance(outside[1]["embeddings.word.weight"], np.memmap)
    for name, array in inside[1].items():
        np.testing.assert_array_equal(array, outside[1][name])


def test_quantizing_mapped_weights_gives_the_same_file(model, monkeypatch, tmp_path):
    files = []
    for number, limit in enumerate((2_000_000_000, 50_000)):
        monkeypatch.setattr(large, "LIMIT", limit)
        found = read_parts(to_onnx(model, tmp_path / str(number) / "model.onnx"))
        int8 = quantized.Int8(frozenset(quantized.modules(*found)))
        texts = [{name: np.asarray(BATCH["input_ids"]) for name in ("input_ids",)}]
        feed = {"attention_mask": np.ones((1, 4), np.int64), "token_type_ids": np.zeros((1, 4), np.int64)}
        ranges = quantized.calibrate(*found, [{**texts[0], **feed}])
        assert ranges
        graph = quantized.quantize(*found, int8)
        monkeypatch.setattr(large, "LIMIT", 2_000_000_000)
        path = write(quantized.quantize(*found, int8), tmp_path / str(number) / "int8.onnx")
        files.append(path.read_bytes())
        assert open_session(graph).run(None, {**texts[0], **feed})[0].shape == (1, 2)
    assert files[0] == files[1]


def test_a_smaller_graph_leaves_no_weights_of_the_larger_one_behind(model, monkeypatch, tmp_path):
    path = tmp_path / "model.onnx"
    monkeypatch.setattr(large, "LIMIT", 50_000)
    to_onnx(model, path)
    monkeypatch.setattr(large, "LIMIT", 2_000_000_000)
    to_onnx(model, path)
    assert not data_file(path).exists()


def test_no_array_outside_is_in_the_protocol_buffer(model, small_limit):
    from limbeck.model.graph import build

    graph, _ = build(*parts(model))
    assert isinstance(graph, LargeModel)
    assert graph.proto.ByteSize() < 20_000
    kept, outside = initializers({"a": np.zeros(8, np.int64), "b": np.zeros(400, np.float32)}, limit=100)
    assert [entry.name for entry in kept] == ["a", "b"]
    assert list(outside) == ["b"]
