from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

from limbeck.core.target import Target
from limbeck.errors import InputError, LimbeckError, MissingExtra
from limbeck.measure.backends import RUNNER_OPTIONS, check_models, check_runtime, make_runner, runner_options
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification
from limbeck.model.onnx.onnx_model import INT8_FILE, OnnxModel, parts, to_onnx, write
from limbeck.model.onnx.quantization import Int8, calibrate, quantizable_modules, quantize

BATCH = {
    "input_ids": np.array([[2, 5, 6, 3], [2, 7, 3, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
    "token_type_ids": np.zeros((2, 4), dtype=np.int64),
}


def model(heads):
    import torch

    torch.manual_seed(0)
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
    plain, onnxruntime = make_runner(net), make_runner(net, plain=False)
    assert plain.words == "torch eager, BertForSequenceClassification"
    assert onnxruntime.words == "torch eager, LimbeckForSequenceClassification"
    np.testing.assert_allclose(plain(plain.prepare(BATCH)), onnxruntime(onnxruntime.prepare(BATCH)), atol=1e-5)


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


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 0.02), ("bfloat16", 0.1)])
@pytest.mark.parametrize("heads", [[4, 4], [4, 1]], ids=str)
def test_half_precisions_answer_as_float32_does(heads, precision, tolerance):
    exact, rough = make_runner(model(heads)), make_runner(model(heads), precision=precision)
    assert rough.words == f"{exact.words}, {precision}"
    expected = exact(exact.prepare(BATCH))
    answers = rough(rough.prepare(BATCH))
    assert answers.dtype == np.float32
    assert 0 < np.abs(answers - expected).max() < tolerance * max(1, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("heads", [[4, 4], [4, 1]], ids=str)
def test_compiled_models_answer_as_eager_ones_do(heads):
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    eager, compiled = make_runner(model(heads)), make_runner(model(heads), compile=True)
    assert compiled.words == eager.words.replace("eager", "compiled")
    for rows in (2, 1):
        batch = {name: values[:rows] for name, values in BATCH.items()}
        np.testing.assert_allclose(compiled(compiled.prepare(batch)), eager(eager.prepare(batch)), atol=1e-5)


def test_a_compiler_that_fails_is_told_with_the_cure(monkeypatch):
    def broken(function):
        def run(*_, **__):
            raise RuntimeError("no compiler\nmore")

        return run

    monkeypatch.setattr("torch.compile", broken)
    runner = make_runner(model([4, 4]), compile=True)
    with pytest.raises(LimbeckError, match=r"cannot run LimbeckForSequenceClass\w+; leave 'compile' out: no c"):
        runner(runner.prepare(BATCH))


def test_options_of_a_target_are_those_of_a_runner():
    target = Target(device="cuda:1", runtime="torch", precision="bfloat16", compile=True, threads=3)
    options = {"runtime": "torch", "device": "cuda:1", "precision": "bfloat16", "compile": True}
    assert runner_options(target) == options
    assert set(RUNNER_OPTIONS) == {*options, "threads"}


def test_models_that_a_target_cannot_run_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("limbeck.measure.backends.check_device", lambda device: None)
    graphs = OnnxModel(tmp_path, "model.onnx", {}), OnnxModel(tmp_path, INT8_FILE, {})
    gpu = Target(device="cuda")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    check_models(gpu, [model([4, 4])])
    check_models(Target(), graphs)
    with pytest.raises(LimbeckError, match="needs CUDAExecutionProvider"):
        check_models(gpu, graphs[:1])
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    check_models(gpu, graphs[:1])
    with pytest.raises(InputError, match="INT8 graphs are made for processors"):
        check_models(gpu, graphs)


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float16", 0.02), ("bfloat16", 0.1)])
def test_torch_on_a_gpu_answers_as_the_processor_does(precision, tolerance, compile):
    here = make_runner(model([4, 1]))
    there = make_runner(model([4, 1]), device="cuda", precision=precision, compile=compile)
    expected = here(here.prepare(BATCH))
    for _ in range(2):
        difference = np.abs(there(there.prepare(BATCH)) - expected).max()
        assert difference < tolerance * max(1, np.abs(expected).max())


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float16", 0.02)])
@pytest.mark.parametrize("fused", [True, False])
def test_onnxruntime_on_a_gpu_answers_as_the_processor_does(tmp_path, fused, precision, tolerance):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    net = model([4, 1])
    to_onnx(net, tmp_path / "model.onnx", fused=fused, precision=precision)
    here, there = make_runner(net), make_runner(OnnxModel(tmp_path, "model.onnx", {}), device="cuda")
    assert there.words == "onnxruntime, model.onnx, CUDA"
    expected = here(here.prepare(BATCH))
    assert np.abs(there(there.prepare(BATCH)) - expected).max() < tolerance * max(1, np.abs(expected).max())


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
    graph_parts = parts(model([4, 1]), fused=False)
    calibration = {name: np.asarray(value) for name, value in BATCH.items()}
    ranges = calibrate(*graph_parts, [calibration])
    write(
        quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)), ranges=ranges)),
        tmp_path / "int8.onnx",
    )
    opened = OnnxModel(tmp_path, "int8.onnx", {})
    onnxruntime, openvino = (make_runner(opened, runtime=runtime) for runtime in ("onnxruntime", "openvino"))
    truth = onnxruntime(onnxruntime.prepare(BATCH))
    np.testing.assert_allclose(openvino(openvino.prepare(BATCH)), truth, atol=1e-4)
    nodes = [node.get_rt_info() for node in openvino.request.get_compiled_model().get_runtime_model().get_ops()]
    products = [info["runtimePrecision"] for info in nodes if info["layerType"] == "FullyConnected"]
    assert products.count("u8") >= len(products) - 1 > 4  # all but the classifier
