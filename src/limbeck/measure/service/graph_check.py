"""Check the ONNX graphs of a stranger, in a process of their own, before a runtime opens them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.errors import InputError, nearest, shown
from limbeck.measure.backends import INPUTS

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import GraphProto

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Sets of operators that ONNX Runtime brings along; other domains need a library of the sender."""
READS_FILES = ("EPContext",)
"""Operators that name a file to open."""


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Check graphs in the child process.

    Args:
        payload: ``files``, and ``largest_ids`` with the largest token id that each of them reads.

    Returns:
        The first ``problem``; '' if there is none.
    """
    for index, file in enumerate(payload["files"]):
        try:
            check_graph(Path(file), payload["largest_ids"][index])
        except InputError as error:
            return {"problem": f"graph {index}: {error}"}
        except Exception as error:  # whatever a parser raises over what is damaged
            return {"problem": f"graph {index}: cannot be checked ({type(error).__name__})"}
    return {"problem": ""}


def check_graph(path: Path, largest_id: int) -> None:
    """Refuse a file that is no valid ONNX graph on token ids, or that refers to anything outside itself.

    Args:
        path: The file.
        largest_id: Largest token id that it will read.

    Raises:
        InputError: What is wrong with it.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError("is not an ONNX model, or cut off: it cannot be parsed") from None
    if not model.HasField("graph") or not model.graph.node:
        raise InputError("is not an ONNX model: it has no graph with nodes")
    for message in _messages(model):
        _refuse_outside(message)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or ["invalid"])[0]
        raise InputError(f"is not valid ONNX: {first[:300]}") from None
    weights = {entry.name for entry in model.graph.initializer}
    names = [entry.name for entry in model.graph.input if entry.name not in weights]
    if unknown := sorted({*names} - {*INPUTS}):
        raise InputError(f"reads {shown(unknown[0])}, which is no token id; {nearest(unknown[0], INPUTS)}")
    if "input_ids" not in names:
        raise InputError("does not read 'input_ids'")
    words = vocabulary_size(model.graph)
    if words is not None and largest_id >= words:
        raise InputError(f"its vocabulary has {words:,} tokens, so ids should be below that, got {largest_id:,}")


def vocabulary_size(graph: GraphProto) -> int | None:
    """Return the rows of the table that token ids select from; None where the graph does not show it."""
    rows = {entry.name: entry.dims[0] for entry in graph.initializer if len(entry.dims) == 2}
    casts = {node.output[0] for node in graph.node if node.op_type == "Cast" and "input_ids" in node.input}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[1] in casts | {"input_ids"} and node.input[0] in rows:
            return int(rows[node.input[0]])
    return None


def _messages(message: Message) -> Iterator[Message]:
    """Yield a message and all messages in it, whatever field holds them."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                waiting.extend(value if isinstance(value, Sequence) else [value])


def _refuse_outside(message: Message) -> None:
    """Refuse external data, and operators that ONNX Runtime does not have or that open files."""
    from onnx import FunctionProto, NodeProto, TensorProto

    if isinstance(message, TensorProto):
        if message.data_location == TensorProto.EXTERNAL or message.external_data:
            raise InputError(f"has external data ({shown(message.name)}); the weights should be in the file")
    elif isinstance(message, NodeProto):
        if message.domain not in DOMAINS:
            operator, domains = shown(message.op_type), ", ".join(filter(None, DOMAINS))
            raise InputError(f"has an operator {operator} of domain {shown(message.domain)}; use {domains}")
        if message.op_type in READS_FILES:
            raise InputError(f"has an operator that opens files, {shown(message.op_type)}")
    elif isinstance(message, FunctionProto) and message.domain not in DOMAINS:
        raise InputError(f"defines a function of domain {shown(message.domain)}; write its operators into the graph")
