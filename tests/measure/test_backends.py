from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from limbeck.errors import MissingExtra
from limbeck.measure.backends import check_runtime, make_runner
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification
from limbeck.model.onnx.onnx_model import OnnxModel, parts, to_onnx, write
from limbeck.model.onnx.quantization import Int8, calibrate, quantizable_modules, quantize

BATCH = {
    "input_ids": np.array([[2, 5, 6, 3], [2, 7, 3, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
    "token_type_ids": np.zeros((2, 4), dtype=np.int64),
}


def model(heads):
    config = LimbeckConfig(32, 8, layer_heads=heads, layer_ffn=[64, 48], vocab_size=50, num_labels=2)
    return LimbeckForSequenceClassification(config).eval()


@pytest.mark.parametrize("heads", [[4, 4], [4, 1]], ids=str)
def test_a_ragged_shape_runs_in_our_encoder(heads):
    import torch

    net = model(heads)
    runner = make_runner(net)
    expected = net.predict({name: torch.from_numpy(rows) for name, rows in BATCH.items()})
    np.testing.assert_allclose(runner(runner.prepare(BATCH)), expected, atol=1e-5)
    assert runner.words == "torch eager, LimbeckForSequenceClassification"


def test_a_uniform_shape_runs_in_transformers_unless_told_otherwise():
    config = LimbeckConfig(32, 8, layer_heads=[4, 4], layer_ffn=[64, 64], vocab_size=50, num_labels=2)
    net = LimbeckForSequenceClassification(config).eval()
    plain, ours = make_runner(net), make_runner(net, plain=False)
    assert plain.words == "torch eager, BertForSequenceClassification"
    assert ours.words == "torch eager, LimbeckForSequenceClassification"
    np.testing.assert_allclose(plain(plain.prepare(BATCH)), ours(ours.prepare(BATCH)), atol=1e-5)


@pytest.mark.parametrize("names", [("input_ids", "attention_mask"), tuple(BATCH)], ids=len)
def test_onnx_answers_as_torch_does_also_without_token_types(tmp_path, names):
    net = model([4, 1])
    to_onnx(net, tmp_path / "model.onnx")
    exported = make_runner(OnnxModel(tmp_path, "model.onnx", {}))
    batch = {name: BATCH[name] for name in names}
    torch_runner = make_runner(net)
    expected = torch_runner(torch_runner.prepare(BATCH))
    np.testing.assert_allclose(exported(exported.prepare(batch)), expected, atol=1e-4)
    assert exported.words == "onnxruntime, model.onnx"


def test_a_missing_runtime_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_runtime("onnxruntime")
    with pytest.raises(MissingExtra, match=r"limbeck\[openvino\]"):
        check_runtime("openvino")


def test_openvino_sends_no_messages():
    """In a process of its own: here another test may have imported it already."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    code = "import limbeck.measure.backends as own, sys; own.import_runtime('openvino'); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "openvino.tools.ovc.telemetry_stub" in done.stdout
    assert "openvino_telemetry.main" not in done.stdout


def test_openvino_answers_as_torch_does(tmp_path):
    pytest.importorskip("openvino")
    net = model([4, 1])
    to_onnx(net, tmp_path / "model.onnx", fused=False)
    runner = make_runner(OnnxModel(tmp_path, "model.onnx", {}), runtime="openvino")
    torch_runner = make_runner(net)
    np.testing.assert_allclose(runner(runner.prepare(BATCH)), torch_runner(torch_runner.prepare(BATCH)), atol=1e-4)


def test_openvino_answers_int8_of_standard_operators_as_onnxruntime_does(tmp_path):
    pytest.importorskip("openvino")
    made = parts(model([4, 1]), fused=False)
    calibration = {name: np.asarray(value) for name, value in BATCH.items()}
    ranges = calibrate(*made, [calibration])
    write(quantize(*made, Int8(frozenset(quantizable_modules(*made)), ranges=ranges)), tmp_path / "int8.onnx")
    opened = OnnxModel(tmp_path, "int8.onnx", {})
    ours, theirs = (make_runner(opened, runtime=runtime) for runtime in ("onnxruntime", "openvino"))
    truth = ours(ours.prepare(BATCH))
    np.testing.assert_allclose(theirs(theirs.prepare(BATCH)), truth, atol=1e-4)
    nodes = [node.get_rt_info() for node in theirs.request.get_compiled_model().get_runtime_model().get_ops()]
    products = [info["runtimePrecision"] for info in nodes if info["layerType"] == "FullyConnected"]
    assert products.count("u8") >= len(products) - 1 > 4  # all but the classifier
