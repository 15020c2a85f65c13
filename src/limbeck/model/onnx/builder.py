"""Nodes and constants of an ONNX graph in the making."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

FUSED = "com.microsoft"  # the domain of ONNX Runtime's own operators
Weights = Mapping[str, np.ndarray]


class Graph:
    """Nodes and constants in the making; ``prefix`` begins the names of nodes that join those of another graph."""

    def __init__(self, weights: Weights, prefix: str = "") -> None:
        self.weights, self.prefix = weights, prefix
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs_of: dict[str, str] = {}
        """The tensor that every linear map reads; calibration looks there."""
        self.shared: dict[str, str] = {}

    def once(self, name: str, make: Callable[[], str]) -> str:
        """Return a tensor that several parts of the graph read; the first call builds it."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    def constant(self, name: str, value: Any) -> str:
        """Add a constant unless the name is taken; return the name."""
        if name not in self.constants:
            self.constants[name] = np.asarray(value)
        return name

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector; return its name."""
        return self.constant(f"constant.{'_'.join(map(str, values))}", np.array(values, dtype=np.int64))

    def weight(self, name: str) -> str:
        """Add a weight as a constant; return its name."""
        return self.constant(name, self.weights[name])

    def op(self, kind: str, *inputs: str | None, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add a node.

        Args:
            kind: The operator.
            *inputs: Names of tensors; None leaves an optional input out.
            domain: The operator's domain.
            outputs: Number of outputs.
            **attributes: The operator's attributes.

        Returns:
            The name of the output, or a tuple of names.
        """
        from onnx import helper

        name = f"{self.prefix}{kind}_{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        tensors = [tensor or "" for tensor in inputs]
        while tensors and not tensors[-1]:
            tensors.pop()
        self.nodes.append(helper.make_node(kind, tensors, names, name=name, domain=domain, **attributes))
        return names[0] if outputs == 1 else tuple(names)
