"""The machine in a small dictionary: what it is, how fast it multiplies, and how far its timings can be trusted."""

from __future__ import annotations

from typing import Any

from limbeck.core.facts import environment

SIZES = (64, 384, 1536)  #: tokens, inputs and outputs of the measured product: a layer of a small encoder


def profile(threads: int = 1, rounds: int = 15) -> dict[str, Any]:
    """Describe this machine and measure matrix products in ONNX Runtime, in a fresh process; takes seconds.

    ``float_gflops`` and ``int8_gops`` count two operations a multiply-accumulate; ``noise`` is the distance between
    the quartiles of repeated rounds as a share of their median: differences below it need many rounds to be seen.
    """
    from limbeck.measure.isolate import run_isolated

    measured = run_isolated("limbeck.measure.profile:session", {"rounds": rounds}, threads)
    return {**environment(), "threads": threads, **measured}


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """The child's side."""
    from limbeck.measure.clock import alternate

    calls = [_product(number_format, payload["threads"]) for number_format in ("float", "int8")]
    exact, quantized = alternate(calls, inputs=20, rounds=payload["rounds"])
    tokens, inputs, outputs = SIZES
    operations = 2e-9 * tokens * inputs * outputs
    return {
        "float_gflops": round(operations / exact.p50.value, 1),
        "int8_gops": round(operations / quantized.p50.value, 1),
        "int8_speedup": round(exact.p50.value / quantized.p50.value, 2),
        "noise": round(max(exact.spread, quantized.spread), 4),
    }


def _product(number_format: str, threads: int) -> Any:
    """A call that multiplies one matrix in ONNX Runtime: float, or 8 bits into 32."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from limbeck.model.onnx import open_session

    tokens, inputs, outputs = SIZES
    chance = np.random.default_rng(0)
    if number_format == "int8":
        kind, operator, result = TensorProto.UINT8, "MatMulInteger", TensorProto.INT32
        x: Any = chance.integers(0, 255, (tokens, inputs), dtype=np.uint8)
        weight: Any = chance.integers(-64, 64, (inputs, outputs), dtype=np.int8)
    else:
        kind, operator, result = TensorProto.FLOAT, "MatMul", TensorProto.FLOAT
        x = chance.standard_normal((tokens, inputs), dtype=np.float32)
        weight = chance.standard_normal((inputs, outputs), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, list(x.shape))],
        [helper.make_tensor_value_info("y", result, [tokens, outputs])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opsets = [helper.make_opsetid("", 17)]
    session = open_session(helper.make_model(graph, opset_imports=opsets, ir_version=9), threads)
    return lambda place: session.run(None, {"x": x})
