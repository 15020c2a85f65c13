"""The activations of transformers as ONNX nodes: standard operators, or one of ONNX Runtime's that adds a bias too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from limbeck.model.onnx.builder import FUSED, Graph


def _operator(kind: str, **attributes: str) -> Callable[[Graph, str], str]:
    """Return what writes one operator of one input."""
    return lambda graph, x: graph.op(kind, x, **attributes)


def _number(graph: Graph, value: float) -> str:
    return graph.constant(f"constant.float_{value!r}", np.float32(value))


def _clipped(graph: Graph, x: str, low: float, high: float) -> str:
    return graph.op("Clip", x, _number(graph, low), _number(graph, high))


def _silu(graph: Graph, x: str, slope: float = 1.0) -> str:
    """Write x times the sigmoid of x, or of a multiple of it."""
    scaled = x if slope == 1 else graph.op("Mul", x, _number(graph, slope))
    return graph.op("Mul", x, graph.op("Sigmoid", scaled))


def _hard_swish(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _mish(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x)))


def _relu_squared(graph: Graph, x: str) -> str:
    positive = graph.op("Relu", x)
    return graph.op("Mul", positive, positive)


def _laplace(graph: Graph, x: str, mean: float = 0.707107, deviation: float = 0.282095) -> str:
    """Write the distribution function of a normal distribution (MEGA, Ma et al., 2022, arXiv:2209.10655, eq. 16)."""
    scaled = graph.op("Div", graph.op("Sub", x, _number(graph, mean)), _number(graph, deviation * math.sqrt(2)))
    return graph.op("Mul", graph.op("Add", graph.op("Erf", scaled), _number(graph, 1.0)), _number(graph, 0.5))


_ERF, _TANH = _operator("Gelu", approximate="none"), _operator("Gelu", approximate="tanh")

WRITERS: Mapping[str, Callable[[Graph, str], str]] = {
    "gelu": _ERF,
    "gelu_python": _ERF,
    "gelu_10": lambda graph, x: _clipped(graph, _ERF(graph, x), -10.0, 10.0),
    "gelu_new": _TANH,
    "gelu_fast": _TANH,
    "gelu_accurate": _TANH,
    "gelu_pytorch_tanh": _TANH,
    "gelu_python_tanh": _TANH,
    "quick_gelu": lambda graph, x: _silu(graph, x, 1.702),
    "relu": _operator("Relu"),
    "relu2": _relu_squared,
    "relu6": lambda graph, x: _clipped(graph, x, 0.0, 6.0),
    "leaky_relu": lambda graph, x: graph.op("LeakyRelu", x, alpha=0.01),
    "tanh": _operator("Tanh"),
    "sigmoid": _operator("Sigmoid"),
    "silu": _silu,
    "swish": _silu,
    "hardswish": _hard_swish,
    "mish": _mish,
    "laplace": _laplace,
    "sqrtsoftplus": lambda graph, x: graph.op("Sqrt", graph.op("Softplus", x)),
    "linear": lambda graph, x: x,
}
"""Writes an activation of one input, by transformers' name: all but those that have weights of their own."""


def activate(graph: Graph, name: str, x: str, bias: str | None, *, fused: bool) -> str:
    """Write an activation, and the bias before it.

    Args:
        graph: The graph to add nodes to.
        name: transformers' name of it.
        x: Its input, any shape.
        bias: What is added before [channels], if anything.
        fused: Whether ONNX Runtime's operators may be used.

    Returns:
        The name of the output, of the shape of the input.
    """
    write = WRITERS[name]
    if bias is not None and fused and write in (_ERF, _TANH):
        return graph.op("BiasGelu" if write is _ERF else "FastGelu", x, bias, domain=FUSED)
    return write(graph, x if bias is None else graph.op("Add", x, bias))
