"""How much of a core's 8-bit arithmetic an INT8 artefact uses, and where the rest of its time goes.

    python benchmarks/peak.py ARTEFACT [ARTEFACT ...] --tokens 27

Every graph answers one text of so many tokens on one thread, with ONNX Runtime's profiler and without it. The peak is
what the same kernel (``DynamicQuantizeMatMul``) reaches on this core with matrices of 1,024, timed in turns with the
artefacts. Multiply-accumulates of integer matrices are counted, those of attention in float are not. The profiler costs
every node a microsecond or two, so parts are given as shares of its own sum.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from limbeck.core.measurement import environment
from limbeck.measure.timing import alternate

FUSED = "com.microsoft"
PRODUCTS = {"DynamicQuantizeMatMul": 1, "MatMulIntegerToFloat": 1, "QAttention": 3}
"""Operators with an integer product, and how many times as wide it is as what comes out (queries, keys and values)."""
NAMES = {"LayerNormalization": "norms", "Sum": "residual sums", "Gelu": "activations", "QAttention": "attention"}
NAMES |= {name: "other products" for name in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLinear")}
WIDE, ROWS = 1024, 512


def session(source, profile: Path | None = None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def wide_product() -> bytes:
    """One integer product that is large enough to keep a core's units busy."""
    matrix = np.random.default_rng(0).integers(-127, 128, (WIDE, WIDE)).astype(np.int8)
    constants = [numpy_helper.from_array(matrix, "w"), numpy_helper.from_array(np.full(WIDE, 0.01, np.float32), "s")]
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain=FUSED)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (ROWS, WIDE)) for name in "xy"]
    graph = helper.make_graph([node], "wide", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def feed(made, tokens: int) -> dict[str, np.ndarray]:
    """A text of so many tokens without padding."""
    ids = np.random.default_rng(1).integers(1000, 2000, (1, tokens))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {entry.name: inputs[entry.name] for entry in session.get_inputs()}


def profiled(path: Path, tokens: int, runs: int = 200) -> tuple[dict[str, float], int]:
    """Seconds of each kind of operator in a call (medians), and the integer multiply-accumulates of a call."""
    with tempfile.TemporaryDirectory() as folder:
        inference = session(str(path), Path(folder) / "profile")
        inputs = feed(inference, tokens)
        for _ in range(runs):
            inference.run(None, inputs)
        events = json.loads(Path(inference.end_profiling()).read_text())
    seconds, kinds, products = defaultdict(list), {}, {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            arguments = event["args"]
            seconds[event["name"]].append(event["dur"] * 1e-6)
            kinds[event["name"]] = NAMES.get(arguments["op_name"], "everything else")
            if arguments["op_name"] in PRODUCTS:
                rows, out = (next(iter(arguments[f"{end}_type_shape"][0].values())) for end in ("input", "output"))
                products[event["name"]] = int(np.prod(rows)) * out[-1] * PRODUCTS[arguments["op_name"]]
    total: dict[str, float] = defaultdict(float)
    for name, times in seconds.items():
        total[kinds[name]] += float(np.median(times[runs // 4 :]))
    return dict(total), sum(products.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artefacts", type=Path, nargs="+", help="folders with limbeck.json, or ONNX files")
    parser.add_argument("--tokens", type=int, default=27)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    paths = {}
    for artefact in arguments.artefacts:
        metadata = artefact / "limbeck.json"
        paths[str(artefact)] = (
            artefact / json.loads(metadata.read_text())["onnx_file"] if metadata.is_file() else artefact
        )
    wide, x = session(wide_product()), np.random.default_rng(2).normal(size=(ROWS, WIDE)).astype(np.float32)
    sessions = [session(str(path)) for path in paths.values()]
    inputs = [feed(inference, arguments.tokens) for inference in sessions]
    calls = [
        lambda _, inference=inference, row=row: inference.run(None, row)
        for inference, row in zip(sessions, inputs, strict=True)
    ]
    timings = alternate([*calls, lambda _: wide.run(None, {"x": x})], 1, arguments.rounds, warmup=5)
    peak = ROWS * WIDE * WIDE / timings[-1].p50[0]
    table = []
    for (name, path), timing in zip(paths.items(), timings, strict=False):
        parts, macs = profiled(path, arguments.tokens)
        shares = {kind: round(part / sum(parts.values()), 3) for kind, part in sorted(parts.items())}
        p50, used = float(timing.p50[0]), macs / float(timing.p50[0]) / peak
        table.append(
            {"model": name, "p50_ms": round(p50 * 1e3, 4), "integer_macs": macs, "of_peak": round(used, 3)} | shares
        )
    extra = {"tokens": arguments.tokens, "threads": 1, "batch": 1, "peak_macs_per_second": round(peak / 1e9, 1) * 1e9}
    print(json.dumps({"machine": environment(), **extra, "table": table}, indent=2))


if __name__ == "__main__":
    main()
