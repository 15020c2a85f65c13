"""A small profile of the machine: what it is, how fast it multiplies, and how reliable its timings are.

The full profile is a file of latency data (``latency_dataset.py``) that also holds a latency table and measured shapes
of a space: a search that uses the file does not need access to that machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from limbeck.core.measurement import environment, machine
from limbeck.core.search_space import Space
from limbeck.cost_models.collection import Collection, Timer, collect, time_group
from limbeck.cost_models.latency_dataset import Dataset, append, read
from limbeck.cost_models.latency_table import LatencyTable
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.cost_models.table_measurement import build as build_table
from limbeck.measure.dummy_model import Setting

SIZES = (64, 384, 1536)  #: tokens, inputs and outputs of the measured product: a layer of a small encoder


def profile(threads: int = 1, rounds: int = 15) -> dict[str, Any]:
    """Describe this machine and measure matrix products in ONNX Runtime, in a fresh process; takes seconds.

    ``float_gflops`` and ``int8_gops`` count two operations per multiply-accumulate; ``noise`` is the distance between
    the quartiles of repeated rounds as a share of their median: differences below it need many rounds to be seen.
    """
    from limbeck.measure.isolation import run_isolated

    measured = run_isolated("limbeck.cost_models.machine_profile:session", {"rounds": rounds}, threads)
    return {**environment(), "threads": threads, **measured}


def full(
    path: str | Path,
    space: Space,
    settings: Sequence[Setting],
    *,
    samples: int = 200,
    rounds: int = 20,
    seed: int = 0,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    timer: Timer = time_group,
    table: Callable[[Space, Setting], LatencyTable] | None = None,
) -> Dataset:
    """Write machine, tables and measured shapes into one file; what it already holds is not measured again.

    Args:
        path: File of latency data, new or begun.
        space: Shapes are sampled from it.
        settings: How encoders of these shapes are run.
        samples: Shapes to measure, spread over the space by their cost (``shape_sampling.sample_shapes``).
        rounds: Timed rounds of every shape.
        seed: Seed of the sample.
        on_event: Called with the progress.
        timer: Times one group of shapes.
        table: Measures the latency table; :func:`table_of` unless given.

    Returns:
        Everything in the file.
    """
    plan = Collection(tuple(sample_shapes(space, samples, seed=seed)), tuple(settings), rounds=rounds, seed=seed)
    plan.check()
    path, here = Path(path), machine()
    data = read(path) if path.is_file() and path.stat().st_size else Dataset()
    if "noise" not in data.machines.get(here, {}):
        on_event({"turn": "machine"})
        threads = settings[0].target.threads
        append(Dataset({here: profile(threads)}), path)
    if space not in data.spaces:
        append(Dataset(spaces=(space,)), path)
    for setting in settings:
        if data.table(data.of(setting, here)) is None:
            on_event({"turn": "table", "setting": setting})
            append(Dataset(tables=((here, setting, (table or table_of)(space, setting)),)), path)
    return collect(plan, path, on_event, timer)


def table_of(space: Space, setting: Setting) -> LatencyTable:
    """Measure the latency table for everything that can be cut out of the largest shape."""
    return build_table(space.largest, setting)


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Time both products in the child process."""
    from limbeck.measure.timing import alternate

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


def _product(number_format: str, threads: int) -> Callable[[int], object]:
    """Return a call that multiplies two matrices in ONNX Runtime: float, or 8 bits into 32."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from limbeck.model.onnx.onnx_model import open_session

    tokens, inputs, outputs = SIZES
    rng = np.random.default_rng(0)
    if number_format == "int8":
        kind, operator, result = TensorProto.UINT8, "MatMulInteger", TensorProto.INT32
        x: Any = rng.integers(0, 255, (tokens, inputs), dtype=np.uint8)
        weight: Any = rng.integers(-64, 64, (inputs, outputs), dtype=np.int8)
    else:
        kind, operator, result = TensorProto.FLOAT, "MatMul", TensorProto.FLOAT
        x = rng.standard_normal((tokens, inputs), dtype=np.float32)
        weight = rng.standard_normal((inputs, outputs), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, list(x.shape))],
        [helper.make_tensor_value_info("y", result, [tokens, outputs])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opsets = [helper.make_opsetid("", 17)]
    session = open_session(helper.make_model(graph, opset_imports=opsets, ir_version=9), threads)
    return lambda index: session.run(None, {"x": x})
