import numpy as np

from limbeck.model.onnx.builder import Graph


def test_constants_are_kept_once_and_inputs_left_out_are_empty():
    graph = Graph({"weight": np.ones((2, 3), np.float32)})
    assert graph.integers(1, 2) == graph.integers(1, 2) == "constant.1_2"
    assert graph.weight("weight") == "weight"
    assert set(graph.constants) == {"constant.1_2", "weight"}
    made = graph.op("Clip", "x", None, "most", None)
    assert list(graph.nodes[-1].input) == ["x", "", "most"]
    assert list(graph.nodes[-1].output) == [made]
    first, second = graph.op_with_outputs("Split", "x", outputs=2)
    assert first != second


def test_what_several_parts_read_is_made_once():
    graph = Graph({})
    made = [graph.once("length", lambda: graph.op("Shape", "input_ids")) for _ in range(3)]
    assert len(set(made)) == len(graph.nodes) == 1
