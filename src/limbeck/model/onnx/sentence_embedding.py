"""Pooling, dense layers and normalization of vectors of texts as ONNX nodes."""

from __future__ import annotations

import numpy as np

from limbeck.core.sentence_embedding import SentenceEmbedding
from limbeck.model.onnx import attention as graph_attention
from limbeck.model.onnx.builder import Graph, biased

OUTPUTS = ("sentence_embedding", "last_hidden_state")
"""Names of the outputs, the vectors [batch, width] first; sentence-transformers and other servers know them."""
OPERATORS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "gelu": "Gelu"}


def sentence_embedding(graph: Graph, x: str, embedding: SentenceEmbedding) -> None:
    """Write the outputs of an encoder that makes vectors; dense layers stay in floating point, as output layers do.

    Args:
        graph: The graph to add nodes to.
        x: Name of the last hidden states [batch, position, hidden].
        embedding: How they become vectors.
    """
    vector = _pooled(graph, x, embedding.pooling)
    for index, layer in enumerate(embedding.dense):
        weight, bias = graph.weight(f"dense.{index}.weight"), graph.optional_weight(f"dense.{index}.bias")
        vector = biased(graph, (graph.op("MatMul", vector, weight), bias))
        if layer.activation == "silu":
            vector = graph.op("Mul", vector, graph.op("Sigmoid", vector))
        elif layer.activation != "identity":
            vector = graph.op(OPERATORS[layer.activation], vector)
    if embedding.normalize:
        length = graph.op("ReduceL2", vector, graph.integers(1), keepdims=1)
        least = graph.constant("constant.least_length", np.float32(1e-12))
        vector = graph.op("Div", vector, graph.op("Max", length, least))
    for name, tensor in zip(OUTPUTS, (vector, x), strict=True):
        graph.op("Identity", tensor)
        graph.nodes[-1].output[0] = name


def _pooled(graph: Graph, x: str, pooling: str) -> str:
    """Write the pooled states [batch, hidden]."""
    if pooling == "mean":
        return graph_attention.mean(graph, x)
    if pooling == "cls":
        return graph.op("Gather", x, graph.constant("constant.first", np.int64(0)), axis=1)
    if pooling == "mean_sqrt_len_tokens":
        total, count = graph_attention.sums_of_tokens(graph, x)
        return graph.op("Cast", graph.op("Div", total, graph.op("Sqrt", count)), to=1)
    if pooling == "max":
        real = graph_attention.real_tokens(graph)
        padding = graph.op("Equal", real, graph.constant("constant.zero", np.float32(0)))
        lowest = graph.constant("constant.lowest", np.float32(np.finfo(np.float32).min))
        return graph.op("ReduceMax", graph.op("Where", padding, lowest, x), graph.integers(1), keepdims=0)
    count = graph.op("ReduceSum", "attention_mask", graph.integers(1), keepdims=1)
    last = graph.op("Max", graph.op("Sub", count, graph.integers(1)), graph.integers(0))
    return graph.op("GatherND", x, last, batch_dims=1)
