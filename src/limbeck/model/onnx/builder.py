"""Nodes and constants of an ONNX graph in the making, and the interface of what writes its matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

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


class TensorWriter(Protocol):
    """How tables and linear maps are stored and computed. A name is that of its weights, without ``.weight``."""

    def rows(self, graph: Graph, name: str, gather: RowGather) -> str:
        """Gather float rows of a table.

        Args:
            graph: The graph to add nodes to.
            name: The table.
            gather: Adds the node that gathers rows of an array.
        """
        ...

    def linear(self, graph: Graph, x: str, name: str) -> tuple[str, str | None]:
        """Multiply by a matrix.

        Args:
            graph: The graph to add nodes to.
            x: The input tensor.
            name: The linear map.

        Returns:
            The product, and the bias if the next node is to add it.
        """
        ...

    def attention(self, graph: Graph, x: str, name: str, mask: str, heads: int, bias: str | None = None) -> str:
        """Add self-attention from one matrix [hidden, queries + keys + values].

        Args:
            graph: The graph to add nodes to.
            x: The hidden states.
            name: The linear map.
            mask: The mask, as the writer needs it.
            heads: Number of heads.
            bias: What is added to the scores [1, heads, query, key]; None for nothing.

        Returns:
            The contexts of all heads, side by side.
        """
        ...


class RowGather(Protocol):
    """Adds the node that takes rows out of an array."""

    def __call__(self, array: str) -> str:
        """Return the name of the node's output."""
        ...
