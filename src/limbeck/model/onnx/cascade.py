"""A cascade as one ONNX graph: a smaller model, then an ``If`` whose branches are its answer and the larger model.

The two graphs are taken as they are, in whatever format their numbers are; all names in them get a prefix. The nodes
between them are those of early exits (``early_exits.py``): the smaller model is the head, the larger one what follows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.cascade import SECTION, Cascade, Criterion
from limbeck.errors import InputError
from limbeck.model import external
from limbeck.model.families import SHAPE, STYLE
from limbeck.model.onnx.assembly import assemble_with, float_value
from limbeck.model.onnx.builder import Graph, all_initializers, all_nodes
from limbeck.model.onnx.early_exits import ExitWriter
from limbeck.model.onnx.onnx_model import CASCADE_KEY, FLOAT_FILE, INT8_FILE, OnnxModel, write

if TYPE_CHECKING:
    from limbeck.model.external import OnnxGraph

COPIED_FIELDS = (*SHAPE, *STYLE, "early_exits")
"""What the config.json of a cascade has of that of its smaller model."""


def write_cascade(
    small: OnnxModel, large: OnnxModel, folder: Path, *, threshold: float, criterion: Criterion = "confidence"
) -> OnnxModel:
    """Write two exported models as one, in a folder with the graph alone; ``save_model`` completes it.

    Args:
        small: The model that every text goes to; it reads the same token ids as the larger one.
        large: The model of the texts that the smaller one is not sure of.
        folder: Where to write.
        threshold: From where on the smaller model is sure.
        criterion: By what it is sure.

    Returns:
        The cascade, with the larger model's configuration. It is INT8 if one of the two is.

    Raises:
        InputError: One of the two is a cascade itself, or they have different numbers of classes.
    """
    for model in (small, large):
        if model.cascade is not None:
            raise InputError(f"{model.path} is a cascade already; give the two models that it was made of")
    cascade = Cascade(criterion, threshold, {key: small.config[key] for key in COPIED_FIELDS if key in small.config})
    for name in (FLOAT_FILE, INT8_FILE):
        external.remove(folder / name)  # of an interrupted attempt
    file = INT8_FILE if small.int8 or large.int8 else FLOAT_FILE
    write(compose(external.load(small.path), external.load(large.path), cascade), folder / file)
    config: dict[str, Any] = {key: value for key, value in large.config.items() if key != "auto_map"}
    return OnnxModel(folder, file, config | {SECTION: cascade.to_json()})


def compose(small: OnnxGraph, large: OnnxGraph, cascade: Cascade) -> OnnxGraph:
    """Compose two graphs of classifiers, which read the same inputs, to one; both are changed on the way.

    Args:
        small: The graph that is always computed.
        large: The graph of one branch.
        cascade: When the smaller model is sure.

    Returns:
        The graph. Its output are the logits [batch, classes] of the one or the other for each text.
    """
    graph = Graph({}, prefix="cascade.")
    sizes = [_classes(model) for model in (small, large)]
    if sizes[0] != sizes[1]:
        raise InputError(f"two models of a cascade have the same classes; these have {sizes[0]} and {sizes[1]}")

    def add(model: OnnxGraph, prefix: str) -> str:
        """Add the nodes of a model where the graph is being written; return the name of its logits."""
        arrays, (output,) = {}, model.graph.output
        for tensor in all_initializers(model.graph):
            arrays[prefix + tensor.name] = external.array_of(model, tensor)
        add_prefix(model, prefix)
        graph.constants |= arrays
        graph.nodes.extend(model.graph.node)
        return str(output.name)

    def head(x: str, weights: str) -> str:
        return add(small, "small.") if weights else add(large, "large.")

    writer = ExitWriter(graph, cascade.exits, depth=2, layers=lambda x, start, stop: x, head=head)
    writer.logits("input_ids")
    graph.nodes[-1].output[0] = "logits"
    outputs = [float_value("logits", "batch", sizes[0])]
    metadata = json.dumps({"criterion": cascade.criterion, "threshold": cascade.threshold}, sort_keys=True)
    return assemble_with(graph, outputs, CASCADE_KEY, metadata, inward=True)


def _classes(model: OnnxGraph) -> int:
    """Return the number of logits of a classifier's graph."""
    return int(model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value)


def add_prefix(model: OnnxGraph, prefix: str) -> None:
    """Begin all names of a graph with a prefix, those of its inputs excepted, in place; initializers are taken out.

    ``onnx.compose.add_prefix`` leaves the names of weights that a branch reads from outside it as they are.

    Args:
        model: The graph.
        prefix: What the names begin with.
    """
    inputs = {entry.name for entry in model.graph.input}
    graphs = [model.graph]
    for node in all_nodes(model.graph.node):
        node.name = prefix + node.name
        graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name and name not in inputs:
                    names[index] = prefix + name
    for graph in graphs:
        del graph.initializer[:]
        for entry in graph.output:
            entry.name = prefix + entry.name
