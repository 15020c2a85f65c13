"""Graphs of strangers: real exports pass, everything that is damaged or reaches outside is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from limbeck.errors import InputError
from limbeck.measure.service.graph_check import check_graph, session, vocabulary_size
from limbeck.model.onnx.onnx_model import to_onnx


def changed(graph, change, tmp_path):
    """The graph after a change of its protocol buffer."""
    model = onnx.load(graph)
    change(model)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("fused", [True, False])
def test_an_export_passes_and_its_vocabulary_is_known(candidate, tmp_path, fused):
    path = to_onnx(candidate.model, tmp_path / "model.onnx", fused=fused)
    words = candidate.model.config.vocab_size
    assert vocabulary_size(onnx.load(path).graph) == words
    check_graph(path, words - 1)
    with pytest.raises(InputError, match=f"vocabulary has {words:,} tokens.*got {words:,}"):
        check_graph(path, words)
    assert session({"files": [str(path)], "largest_ids": [1]}) == {"problem": ""}
    assert session({"files": [str(path)] * 2, "largest_ids": [1, words]})["problem"].startswith("graph 1: its vocab")


def test_a_quantized_export_passes(candidate, tmp_path):
    from limbeck.model.onnx.onnx_model import parts, write
    from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

    model_parts = parts(candidate.model)
    graph = quantize(*model_parts, Int8(frozenset(quantizable_modules(*model_parts))))
    path = write(graph, tmp_path / "int8.onnx")
    assert vocabulary_size(onnx.load(path).graph) == candidate.model.config.vocab_size
    check_graph(path, 3)


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x80\x04N.", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_what_is_no_onnx_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not an ONNX model"):
        check_graph(path, 1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_graph_is_refused(graph, tmp_path, share):
    content = graph.read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="ONNX"):
        check_graph(path, 1)


def external(tensor, location="/etc/passwd"):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def in_constant(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    external(tensor)
    model.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=tensor))


def in_a_branch(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "deep")
    external(tensor)
    branch = helper.make_graph([helper.make_node("Identity", ["deep"], ["out"])], "branch", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["flag"], ["if_out"], then_branch=branch, else_branch=branch))


def in_a_sparse_tensor(model):
    sparse = model.graph.sparse_initializer.add(dims=[3])
    external(sparse.values)


def named_only(model):
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


@pytest.mark.parametrize(
    "change",
    [lambda model: external(model.graph.initializer[0]), in_constant, in_a_branch, in_a_sparse_tensor, named_only],
)
def test_external_data_are_refused_wherever_they_are(graph, tmp_path, change):
    with pytest.raises(InputError, match="has external data"):
        check_graph(changed(graph, change, tmp_path), 1)


def foreign(model):
    model.graph.node.append(helper.make_node("Run", ["input_ids"], ["ran"], domain="com.evil"))
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def function(model):
    body = [helper.make_node("Identity", ["x"], ["y"])]
    imports = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("com.evil", "Run", ["x"], ["y"], body, imports))


def context(model):
    model.graph.node.append(helper.make_node("EPContext", [], ["ran"], domain="com.microsoft"))


def no_operator(model):
    model.graph.node.append(helper.make_node("NoSuchOperator", ["input_ids"], ["ran"]))


def cycle(model):
    model.graph.node[0].input[0] = model.graph.output[0].name


def renamed(model):
    model.graph.input[0].name = "pixels"


def other_input(model):
    model.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (foreign, "'Run' of domain 'com.evil'"),
        (function, "function of domain 'com.evil'"),
        (context, "opens files, 'EPContext'"),
        (no_operator, "is not valid ONNX: .*NoSuchOperator"),
        (cycle, "is not valid ONNX"),
        (renamed, "is not valid ONNX|reads 'pixels'"),
        (other_input, "reads 'pixels', which is no token id"),
        (lambda model: model.graph.ClearField("node"), "no graph with nodes"),
        (lambda model: model.ClearField("graph"), "is not an ONNX model"),
    ],
)
def test_a_graph_that_is_not_only_onnx_is_refused(graph, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        check_graph(changed(graph, change, tmp_path), 1)
