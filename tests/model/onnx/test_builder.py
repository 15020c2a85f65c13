import numpy as np

from limbeck.model.onnx.builder import Graph


def test_constants_are_kept_once_and_inputs_left_out_are_empty():
    graph = Graph({"weight": np.ones((2, 3), np.float32)})
    assert graph.integers(1, 2) == graph.integers(1, 2) == "constant.1_2"
    assert graph.weight("weight") == "weight"
    assert set(graph.constants) == {"constant.1_2", "weight"}
    clipped = graph.op("Clip", "x", None, "most", None)
    assert list(graph.nodes[-1].input) == ["x", "", "most"]
    assert list(graph.nodes[-1].output) == [clipped]
    first, second = graph.op_with_outputs("Split", "x", outputs=2)
    assert first != second


def test_what_several_parts_read_is_made_once():
    graph = Graph({})
    names = [graph.once("length", lambda: graph.op("Shape", "input_ids")) for _ in range(3)]
    assert len(set(names)) == len(graph.nodes) == 1


def test_either_of_two_branches_is_computed_and_what_they_share_lies_outside():
    from onnx import TensorProto, helper

    from limbeck.model.onnx.onnx_model import open_session

    graph = Graph({})

    def double() -> str:
        return graph.once("double", lambda: graph.op("Add", "x", "x"))

    condition = graph.op("Cast", "x", to=TensorProto.BOOL)
    name = graph.either(condition, lambda: [graph.op("Neg", double())], lambda: [graph.op("Exp", double())])[0]
    assert [node.op_type for node in graph.nodes] == ["Cast", "Add", "If"]
    values = [helper.make_tensor_value_info(value, TensorProto.FLOAT, []) for value in ("x", name)]
    proto = helper.make_graph(graph.nodes, "either", values[:1], values[1:])
    session = open_session(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    answers = [session.run(None, {"x": np.array(x, np.float32)})[0] for x in (3, 0)]
    assert answers == [-6, 1]
