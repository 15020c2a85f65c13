"""What the small things around the matrices cost: options of a session, ways to call it, and nodes, one by one.

    python benchmarks/overhead.py ARTEFACT [ARTEFACT ...] --tokens 27

Each variant of an INT8 artefact takes turns with the artefact as it is, both warm, one thread, one unpadded text:
the ratio is the median over rounds, with its quartiles. "as it is" is also compared with itself, which shows the noise.
Variants of the graph are made by replacing nodes; all variants have to give the same answers.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper

WORD, POSITION, TYPE = (f"embeddings.{table}" for table in ("word", "position", "token_type"))
Call = Callable[[], np.ndarray]


def session(model: ModelProto, tokens: int = 0, **options: object) -> onnxruntime.InferenceSession:
    """Open a graph as limbeck does, but for some options; ``tokens`` fixes the length."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    entries = {"session.intra_op.allow_spinning": "0"}
    for name, value in options.items():
        if hasattr(settings, name):
            setattr(settings, name, value)
        else:
            entries[f"session.{name}"] = str(value)
    entries["session.intra_op.allow_spinning"] = entries.pop("session.allow_spinning", "0")
    for name, value in entries.items():
        settings.add_session_config_entry(name, value)
    if tokens:
        settings.add_free_dimension_override_by_name("batch", 1)
        settings.add_free_dimension_override_by_name("sequence", tokens)
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


# --- graphs ----------------------------------------------------------------------------------------------------------


def constant(model: ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(entry) for entry in model.graph.initializer if entry.name == name)


def replaced(model: ModelProto, output: str, node: NodeProto, **constants: np.ndarray) -> ModelProto:
    """Let ``node`` make what ``output`` was, and drop what nothing reads any more."""
    model = copy.deepcopy(model)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    for other in model.graph.node:
        other.input[:] = [node.output[0] if name == output else name for name in other.input]
    place = next(index for index, other in enumerate(model.graph.node) if node.output[0] in other.input)
    model.graph.node.insert(place, node)
    return without_unread(model)


def without_unread(model: ModelProto) -> ModelProto:
    """Drop nodes, inputs and constants that nothing reads."""
    graph, count = model.graph, 0
    while count != len(graph.node):
        count = len(graph.node)
        read = {name for node in graph.node for name in node.input} | {entry.name for entry in graph.output}
        kept = [node for node in graph.node if read & set(node.output)]
        del graph.node[:]
        graph.node.extend(kept)
    read = {name for node in graph.node for name in node.input}
    for entries in (graph.initializer, graph.input):
        kept = [entry for entry in entries if entry.name in read]
        del entries[:]
        entries.extend(kept)
    return model


def restored(model: ModelProto, table: str) -> tuple[str, np.ndarray]:
    """The name of the rows that a table in 8 bits gives, and the table in float."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    rows = next(
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Mul" and f"{table}.int8" in made_by[made_by[node.input[0]].input[0]].input
    )
    return rows, constant(model, f"{table}.int8").astype(np.float32) * constant(model, f"{table}.scale")


def float_words(model: ModelProto) -> ModelProto:
    rows, table = restored(model, WORD)
    return replaced(model, rows, helper.make_node("Gather", ["words", "input_ids"], ["word_rows"]), words=table)


def fused_words(model: ModelProto) -> ModelProto:
    """One node of ONNX Runtime reads rows in 8 bits and scales them."""
    rows, _ = restored(model, WORD)
    whole = (constant(model, f"{WORD}.int8").astype(np.int16) + 128).astype(np.uint8)
    options = {"bits": 8, "block_size": 1 << (whole.shape[1] - 1).bit_length(), "gather_axis": 0, "quantize_axis": 1}
    inputs = ["words", "input_ids", "steps"]
    node = helper.make_node("GatherBlockQuantized", inputs, ["word_rows"], domain="com.microsoft", **options)
    return replaced(model, rows, node, words=whole, steps=constant(model, f"{WORD}.scale"))


def float_positions(model: ModelProto, types: bool = False) -> ModelProto:
    """Positions in float; with ``types`` they hold the first token type too, as single texts have no other."""
    rows, table = restored(model, POSITION)
    by_output = {name: node for node in model.graph.node for name in node.output}
    cut = by_output[by_output[by_output[rows].input[0]].input[0]]
    table = table + constant(model, f"{TYPE}.weight")[0] if types else table
    node = helper.make_node(cut.op_type, ["positions", *cut.input[1:]], ["position_rows"])
    model = replaced(model, rows, node, positions=table)
    if types:
        gathered = next(node.output[0] for node in model.graph.node if f"{TYPE}.weight" in node.input)
        summed = next(node for node in model.graph.node if gathered in node.input)
        summed.input.remove(gathered)
    return without_unread(model)


def without_mask(model: ModelProto) -> ModelProto:
    """No mask, for texts without padding."""
    model = copy.deepcopy(model)
    for node in model.graph.node:
        if node.op_type == "QAttention":
            node.input[5] = ""
    return without_unread(model)


def small_ids(model: ModelProto) -> ModelProto:
    """Token ids and mask in 32 bits."""
    model = copy.deepcopy(model)
    for entry in model.graph.input:
        entry.type.tensor_type.elem_type = onnx.TensorProto.INT32
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    for node in model.graph.node:
        node.input[:] = [casts[name] if casts.get(name) == "attention_mask" else name for name in node.input]
    return without_unread(model)


# --- calls -----------------------------------------------------------------------------------------------------------


def feed(made: onnxruntime.InferenceSession, tokens: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(1).integers(1000, 2000, (1, tokens))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    kinds = {entry.name: np.int32 if "int32" in entry.type else np.int64 for entry in made.get_inputs()}
    return {name: values[name].astype(kind) for name, kind in kinds.items()}


def usual(made: onnxruntime.InferenceSession, tokens: int) -> Call:
    inputs = feed(made, tokens)
    return lambda: made.run(None, inputs)[0]


def bound(made: onnxruntime.InferenceSession, tokens: int, every_call: bool) -> Call:
    """Outputs in memory of ours; inputs bound for every call, or once, which leaves out what a service has to do."""
    inputs, binding = feed(made, tokens), made.io_binding()
    logits = np.empty_like(made.run(None, inputs)[0])
    binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
    for name, value in inputs.items():
        binding.bind_cpu_input(name, value)

    def call() -> np.ndarray:
        for name, value in inputs.items() if every_call else ():
            binding.bind_cpu_input(name, value)
        made.run_with_iobinding(binding)
        return logits

    return call


def variants(model: ModelProto, tokens: int) -> Iterator[tuple[str, Call]]:
    """Every variant by name, one change at a time, then together."""
    yield "as it is", usual(session(model), tokens)
    yield "call: IO binding", bound(session(model), tokens, every_call=True)
    yield "call: inputs bound once", bound(session(model), tokens, every_call=False)
    yield "session: threads spin", usual(session(model, allow_spinning=1), tokens)
    yield "session: no memory pattern", usual(session(model, enable_mem_pattern=False), tokens)
    yield "session: no arena", usual(session(model, enable_cpu_mem_arena=False), tokens)
    yield "session: denormals are zero", usual(session(model, set_denormal_as_zero=1), tokens)
    yield "session: one fixed length", usual(session(model, tokens), tokens)
    made = {
        "ids in 32 bits": small_ids,
        "no mask": without_mask,
        "words in one node": fused_words,
        "words in float": float_words,
        "positions in float": float_positions,
        "positions and types in one table": lambda graph: float_positions(graph, types=True),
    }
    for name, change in made.items():
        yield f"graph: {name}", usual(session(change(model)), tokens)
    together = float_positions(float_words(small_ids(without_mask(model))), types=True)
    yield "all graph changes, one fixed length", usual(session(together, tokens), tokens)
    yield "all of it, inputs bound once", bound(session(together, tokens), tokens, every_call=False)


def times(call: Call, calls: int) -> float:
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds)) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artefacts", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=27)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=50, help="in a turn, of which the first tenth is not timed")
    arguments = parser.parse_args()
    for folder in arguments.artefacts:
        model = onnx.load(next(folder.glob("**/model_quantized.onnx")))
        base = usual(session(model), arguments.tokens)
        expected = base()
        print(f"{folder}: {times(base, 500):.0f} us")
        for name, call in variants(model, arguments.tokens):
            assert np.allclose(call(), expected, atol=1e-5), name
            ratios = []
            for _ in range(arguments.rounds):
                pair = []
                for each in (base, call):
                    times(each, max(1, arguments.calls // 10))
                    pair.append(times(each, arguments.calls))
                ratios.append(pair[0] / pair[1])
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            print(f"  {name:36s} {middle:.3f}x [{low:.3f}, {high:.3f}]", flush=True)


if __name__ == "__main__":
    main()
