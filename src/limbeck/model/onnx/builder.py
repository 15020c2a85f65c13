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
        self.made: dict[str, str] = {}

    def once(self, name: str, make: Callable[[], str]) -> str:
        """A tensor that several parts of the graph read, made by the first of them."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def constant(self, name: str, value: Any) -> str:
        """Keep an array under a name; the name."""
        if name not in self.constants:
            self.constants[name] = np.asarray(value)
        return name

    def integers(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(f"constant.{'_'.join(map(str, values))}", np.array(values, dtype=np.int64))

    def weight(self, name: str) -> str:
        """Keep a weight as it is; its name."""
        return self.constant(name, self.weights[name])

    def op(self, kind: str, *inputs: str | None, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its output (a tuple of them when there are several). None leaves an input out."""
        from onnx import helper

        name = f"{self.prefix}{kind}_{len(self.nodes)}"
        made = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        given = [item or "" for item in inputs]
        while given and not given[-1]:
            given.pop()
        self.nodes.append(helper.make_node(kind, given, made, name=name, domain=domain, **attributes))
        return made[0] if outputs == 1 else tuple(made)
