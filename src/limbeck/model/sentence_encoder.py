"""An encoder that gives one vector for a text: pooling, dense layers, normalization."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.logits import joined_rows
from limbeck.core.sentence_embedding import Dense, SentenceEmbedding, embedding_in
from limbeck.model.encoder import LimbeckForSequenceClassification
from limbeck.model.heads import mean_of_tokens, sums_of_tokens
from limbeck.model.output_losses import OUTPUT_LOSSES, VECTORS, OutputLosses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from limbeck.model.configuration import LimbeckConfig
    from limbeck.model.layers import EncoderShape, Gates

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


def pool(hidden: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Reduce the hidden states of a text to one vector, as sentence-transformers does with padding on the right.

    Args:
        hidden: The last hidden states [batch, seq, hidden].
        mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
        pooling: One of ``core.sentence_embedding.POOLINGS``.

    Returns:
        [batch, hidden].
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "mean":
        return mean_of_tokens(hidden, mask)
    if pooling == "mean_sqrt_len_tokens":
        total, count = sums_of_tokens(hidden, mask)
        return (total / count.sqrt()).to(hidden.dtype)
    real = torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask
    if pooling == "lasttoken":
        last = (real.sum(1).long() - 1).clamp_min(0)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    return hidden.masked_fill(real[..., None] == 0, float("-inf")).max(dim=1).values


class LimbeckForSentenceEmbedding(LimbeckForSequenceClassification):
    """A vector for a text. What other models call logits are its vectors [batch, width].

    A batch of pairs has both texts of a row one after the other, and the result has both vectors of a row joined
    [rows, 2 * width].
    """

    classifier: None  # type: ignore[assignment]
    dense: nn.ModuleList

    def add_head(self, config: LimbeckConfig) -> None:
        """Add the dense layers after the pooling."""
        self.pooler = self.pooler_norm = None
        self.classifier = None
        self.exits = None
        self.dense = nn.ModuleList()
        width = config.hidden_size
        for layer in self.embedding.dense:
            self.dense.append(nn.Linear(width, layer.width, bias=layer.bias))
            width = layer.width

    @property
    def embedding(self) -> SentenceEmbedding:
        """How hidden states become vectors."""
        return embedding_in(vars(self.config)) or SentenceEmbedding()

    @embedding.setter
    def embedding(self, value: SentenceEmbedding) -> None:
        self.config.sentence_embedding = value.to_json()

    @property
    def width(self) -> int:
        """Number of components of a vector."""
        return self.embedding.width(self.encoder.shape.hidden)

    def logits(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors of the texts [batch, width].

        Args:
            hidden: The last hidden states [batch, seq, hidden].
            mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.
        """
        embedding = self.embedding
        vectors = pool(hidden, mask, embedding.pooling)
        for spec, layer in zip(embedding.dense, self.dense, strict=True):
            assert isinstance(layer, nn.Linear)
            weight = layer.weight[:, : vectors.shape[-1]]
            vectors = ACTIVATIONS[spec.activation](F.linear(vectors, weight, layer.bias))
        return F.normalize(vectors, dim=-1) if embedding.normalize else vectors

    def run(
        self,
        batch: Mapping[str, Any],
        *,
        shape: EncoderShape | None = None,
        gates: Gates | None = None,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Return the vectors and the tapped activations of a batch.

        Args:
            batch: As for other models; ``index`` [rows] tells texts from pairs.
            shape: A smaller shape, run on the leading slices of the weights; None runs all.
            gates: Multipliers of heads, neurons and layers.
            taps: Names of the activations to return.
        """
        vectors, tapped = super().run(batch, shape=shape, gates=gates, taps=taps)
        joined: Tensor = joined_rows(vectors, batch)
        return joined, tapped

    def output_losses(self, outputs: int) -> OutputLosses:
        """Return the losses of vectors."""
        return OUTPUT_LOSSES[VECTORS]

    def keep_width(self, *, bias: bool = False) -> None:
        """Append a dense layer that changes no vector, by which vectors stay as wide where hidden states lose channels.

        Slices of a super-network share its leading columns. Nothing is appended to a model that has a dense layer.

        Args:
            bias: Whether the layer has a bias.
        """
        if not self.dense:
            width = self.encoder.shape.hidden
            self.widen(Dense(width, bias), torch.eye(width), torch.zeros(width) if bias else None)

    def widen(self, layer: Dense, weight: Tensor, bias: Tensor | None) -> None:
        """Append a dense layer before the normalization.

        Args:
            layer: Its width and activation.
            weight: [width, inputs].
            bias: [width], where the layer has one.
        """
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias)
        with torch.no_grad():
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
        self.dense.append(linear.to(self.device))
        self.embedding = replace(self.embedding, dense=(*self.embedding.dense, layer))
