"""Nodes and constants of an ONNX graph in the making, and the interface of what writes its matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import GraphProto, NodeProto, TensorProto

T = TypeVar("T")
FUSED = "com.microsoft"  # the domain of ONNX Runtime's own operators
Weights = Mapping[str, np.ndarray]
Projections: TypeAlias = tuple[str, str, str]
"""Names of queries, keys and values [batch, position, heads x head_dim]; queries may be the first alone."""
Attribute: TypeAlias = "int | float | str | Sequence[int] | GraphProto"
"""What the attributes of nodes hold."""
EXACT = "float32."
"""In the names of casts and constants that stay in float32 where a graph is converted to half precision."""


class Graph:
    """Nodes and constants in the making; ``prefix`` begins the names of nodes that join those of another graph."""

    def __init__(self, weights: Weights, prefix: str = "") -> None:
        self.weights, self.prefix = weights, prefix
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs_of: dict[str, str] = {}
        """The tensor that every linear map reads; calibration looks there."""
        self.mask = "attention_mask"
        """1 where a token is [batch, position], of the tokens that the next layer reads."""
        self.positions: str | None = None
        """Where they are in the text [batch, position]; None where all are there, in order."""
        self.shared: dict[str, Any] = {}  # each of the type that its maker returns
        self.outermost = self.nodes
        self.written = 0

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what several parts of the graph read; the first call builds it, outside any branch."""
        if name not in self.shared:
            within, self.nodes = self.nodes, self.outermost
            self.shared[name] = make()
            self.nodes = within
        value: T = self.shared[name]
        return value

    def either(
        self, condition: str, then: Callable[[], Sequence[str]], otherwise: Callable[[], Sequence[str]]
    ) -> tuple[str, ...]:
        """Add a node that computes one of two branches.

        Args:
            condition: Name of a boolean scalar.
            then: Writes the branch that is computed where it is true; returns the names of its outputs.
            otherwise: Writes the other branch, with outputs of the same types.

        Returns:
            Names of the outputs.
        """
        from onnx import ValueInfoProto, helper

        branches, outputs = [], 0
        for name, write in (("then", then), ("else", otherwise)):
            within, self.nodes = self.nodes, []
            values = [ValueInfoProto(name=value) for value in write()]
            branches.append(helper.make_graph(self.nodes, name, [], values))
            outputs, self.nodes = len(values), within
        return self.op_with_outputs("If", condition, outputs=outputs, then_branch=branches[0], else_branch=branches[1])

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

    def exact(self, x: str) -> str:
        """Add a cast to float32 that stays one in half precision; return its output."""
        name = self._name(f"{EXACT}Cast")
        self._add("Cast", [x], [name], name, "", {"to": 1})
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
        return f"{self.prefix}{kind}_{self.written}"

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
        self.written += 1


def projection_bias(graph: Graph, name: str) -> str:
    """Return the bias of a fused attention's projections; zeros where there is none, for the operators need one."""
    width = graph.weights[f"{name}.weight"].shape[1]
    zeros = np.zeros(width, dtype=np.float32)
    return graph.optional_weight(f"{name}.bias") or graph.constant(f"constant.zeros_{width}", zeros)


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes and those of their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from all_nodes(attribute.g.node)


def all_initializers(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield the initializers of a graph and of its branches."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_initializers(attribute.g)


def move_inward(graph: GraphProto) -> None:
    """Move weights that a single branch reads into that branch, in place.

    ONNX Runtime rearranges the weights of a product once, when it opens a graph, but only those of the graph that the
    product is in: with weights from outside, layers in branches took half as long again. Names that begin with
    ``constant.`` stay, because several graphs may read them.

    Args:
        graph: The graph; weights of branches inside branches move on.
    """
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    read = [{name for node in all_nodes(branch.node) for name in node.input} for branch in branches]
    own = {name for node in graph.node for name in node.input}
    for index, branch in enumerate(branches):
        others = own.union(*read[:index], *read[index + 1 :])
        names = {name for name in read[index] - others if not name.startswith("constant.")}
        branch.initializer.extend(entry for entry in graph.initializer if entry.name in names)
        for position in reversed(range(len(graph.initializer))):
            if graph.initializer[position].name in names:
                del graph.initializer[position]
        move_inward(branch)


def biased(graph: Graph, product: tuple[str, str | None]) -> str:
    """Add the bias to a product that lacks it."""
    x, bias = product
    return x if bias is None else graph.op("Add", x, bias)


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

    def projections(self, graph: Graph, x: str, name: str, first_only: bool) -> Projections:
        """Multiply by the matrix of an attention layer [hidden, queries + keys + values], and add its bias.

        Args:
            graph: The graph to add nodes to.
            x: The hidden states.
            name: The linear map.
            first_only: Whether only the first position's queries are needed.

        Returns:
            Queries, keys and values.
        """
        ...

    def attention(self, graph: Graph, x: str, name: str, heads: int) -> str:
        """Add self-attention from one matrix [hidden, queries + keys + values].

        Args:
            graph: The graph to add nodes to.
            x: The hidden states.
            name: The linear map.
            heads: Number of heads.

        Returns:
            The contexts of all heads, side by side.
        """
        ...


class RowGather(Protocol):
    """Adds the node that takes rows out of an array."""

    def __call__(self, array: str) -> str:
        """Return the name of the node's output."""
        ...
