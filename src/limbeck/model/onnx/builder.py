"""Nodes and constants of an ONNX graph in the making."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import NodeProto

FUSED = "com.microsoft"  # the domain of ONNX Runtime's own operators
Weights = Mapping[str, np.ndarray]
Attribute = int | float | str | Sequence[int]
"""What the attributes of nodes hold."""


class Graph:
    """Nodes and constants in the making; ``prefix`` begins the names of nodes that join those of another graph."""

    def __init__(self, weights: Weights, prefix: str = "") -> None:
        self.weights, self.prefix = weights, prefix
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs_of: dict[str, str] = {}
        """The tensor that every linear map reads; calibration looks there."""
        self.shared: dict[str, str] = {}

    def once(self, name: str, make: Callable[[], str]) -> str:
        """Return a tensor that several parts of the graph read; the first call builds it."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    def constant(self, name: str, value: npt.ArrayLike) -> str:
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

    def optional_weight(self, name: str) -> str | None:
        """Add a weight that the model may lack, such as a bias; return its name, or None."""
        return self.weight(name) if name in self.weights else None

    def op(self, kind: str, *inputs: str | None, domain: str = "", **attributes: Attribute) -> str:
        """Add a node with one output.

        Args:
            kind: The operator.
            *inputs: Names of tensors; None leaves an optional input out.
            domain: The operator's domain.
            **attributes: The operator's attributes.

        Returns:
            The name of the output.
        """
        name = self._name(kind)
        self._add(kind, inputs, [name], name, domain, attributes)
        return name

    def op_with_outputs(
        self, kind: str, *inputs: str | None, outputs: int, domain: str = "", **attributes: Attribute
    ) -> tuple[str, ...]:
        """Add a node with several outputs.

        Args:
            kind: The operator.
            *inputs: Names of tensors; None leaves an optional input out.
            outputs: Number of outputs.
            domain: The operator's domain.
            **attributes: The operator's attributes.

        Returns:
            The names of the outputs.
        """
        name = self._name(kind)
        names = [f"{name}_{index}" for index in range(outputs)]
        self._add(kind, inputs, names, name, domain, attributes)
        return tuple(names)

    def _name(self, kind: str) -> str:
        return f"{self.prefix}{kind}_{len(self.nodes)}"

    def _add(
        self,
        kind: str,
        inputs: Sequence[str | None],
        outputs: Sequence[str],
        name: str,
        domain: str,
        attributes: Mapping[str, Attribute],
    ) -> None:
        from onnx import helper

        tensors = [tensor or "" for tensor in inputs]
        while tensors and not tensors[-1]:
            tensors.pop()
        node = helper.make_node(kind, tensors, outputs, name=name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)
