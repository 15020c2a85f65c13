"""Early exits as ONNX nodes: an ``If`` after each inner head, whose branches are its answer and the rest of the model.

The condition is that every text of the batch is answered; so one text alone leaves where its head is sure, and a batch
where the last of its texts is. Answers of texts that were sure before are kept, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from limbeck.core.early_exits import EarlyExits
from limbeck.model.onnx.builder import EXACT, Graph


class Answered(NamedTuple):
    """Names of what the heads so far have answered.

    Attributes:
        logits: Of the first head that was sure, else of the newest [batch, classes].
        sure: Whether a head was sure [batch], bool.
        classes: Answers of the newest head [batch].
        agreed: How many heads in a row before the newest gave its answer [batch]; empty where nothing asks for it.
    """

    logits: str
    sure: str
    classes: str
    agreed: str


@dataclass(frozen=True)
class ExitWriter:
    """Writes a model with early exits.

    Attributes:
        graph: The graph to add nodes to.
        exits: Where the heads stand, and when they are sure.
        depth: Number of layers.
        layers: Writes layers from one number up to another, given the name of the hidden states.
        head: Writes a head, given the name of the hidden states and the prefix of its weights.
    """

    graph: Graph
    exits: EarlyExits
    depth: int
    layers: Callable[[str, int, int], str]
    head: Callable[[str, str], str]

    def logits(self, x: str) -> str:
        """Write everything after the embeddings; return the name of the logits."""
        return self._after(x, 0, None)

    def all_logits(self, x: str) -> str:
        """Write everything after the embeddings, and leave nowhere.

        Args:
            x: Name of the embeddings.

        Returns:
            Name of the logits of all heads side by side, the last layer's at the end [batch, heads x classes].
        """
        logits, start = [], 0
        for number, stop in enumerate(self.exits.layers):
            x, start = self.layers(x, start, stop), stop
            logits.append(self.head(x, f"exits.{number}."))
        return self.graph.op("Concat", *logits, self.head(self.layers(x, start, self.depth), ""), axis=-1)

    def _after(self, x: str, number: int, before: Answered | None) -> str:
        """Write what follows so many inner heads."""
        graph, exit_layers = self.graph, self.exits.layers
        start = exit_layers[number - 1] if number else 0
        if number == len(exit_layers):
            last = self.head(self.layers(x, start, self.depth), "")
            assert before is not None
            return graph.op("Where", self._column(before.sure), before.logits, last)
        x = self.layers(x, start, exit_layers[number])
        answered = self._with(before, self.head(x, f"exits.{number}."))
        everyone = graph.op("Cast", graph.op("ReduceMin", graph.op("Cast", answered.sure, to=6), keepdims=0), to=9)
        return graph.either(
            everyone,
            lambda: [graph.op("Identity", answered.logits)],
            lambda: [self._after(x, number + 1, answered)],
        )[0]

    def _column(self, flags: str) -> str:
        return self.graph.op("Unsqueeze", flags, self.graph.integers(1))

    def _with(self, before: Answered | None, logits: str) -> Answered:
        """Write what is answered after another head."""
        graph = self.graph
        classes, agreed = graph.op("ArgMax", logits, axis=-1, keepdims=0), ""
        if self.exits.criterion == "patience":
            if before is None:
                agreed = graph.op("Sub", classes, classes)
            else:
                one, zero = (graph.constant(f"constant.number_{n}", np.int64(n)) for n in (1, 0))
                same = graph.op("Equal", classes, before.classes)
                agreed = graph.op("Where", same, graph.op("Add", before.agreed, one), zero)
        sure = self._is_sure(logits, agreed)
        if before is None:
            return Answered(logits, sure, classes, agreed)
        answered_logits = graph.op("Where", self._column(before.sure), before.logits, logits)
        return Answered(answered_logits, graph.op("Or", before.sure, sure), classes, agreed)

    def _is_sure(self, logits: str, agreed: str) -> str:
        """Write whether a head is sure [batch].

        Probabilities and their threshold are in float32 also in half precision, where 0.9999 is 1.
        """
        graph, threshold = self.graph, self.exits.threshold
        assert threshold is not None
        if self.exits.criterion == "patience":
            count = graph.constant("constant.threshold", np.int64(np.ceil(threshold)))
            return graph.op("GreaterOrEqual", agreed, count)
        limit, logits = graph.constant(f"constant.{EXACT}threshold", np.float32(threshold)), graph.exact(logits)
        if self.exits.criterion == "confidence":
            largest = graph.op("ReduceMax", graph.op("Softmax", logits, axis=-1), graph.integers(-1), keepdims=0)
            return graph.op("GreaterOrEqual", largest, limit)
        logs = graph.op("LogSoftmax", logits, axis=-1)
        products = graph.op("Mul", graph.op("Exp", logs), logs)
        entropy = graph.op("Neg", graph.op("ReduceSum", products, graph.integers(-1), keepdims=0))
        return graph.op("LessOrEqual", entropy, limit)
