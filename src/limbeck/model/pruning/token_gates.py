"""Soft gates in place of tokens that are left behind, so that what a schedule costs in quality has a gradient.

References: PoWER-BERT (Goyal et al., 2020, arXiv:2001.08950) and ToP (Li et al., 2023, arXiv:2306.14393) gate tokens by
their rank in a layer, with a parameter for each rank or bin of ranks; LTP (Kim et al., 2022, arXiv:2107.00910) has one
soft threshold a layer. Differs: a layer has one parameter, the share of tokens that go on, and the gate of a token is a
sigmoid of how far its rank is within that share, in log odds: so boundaries are as soft for small shares as for large
ones, relative to them. A gate weighs the token as a key of later layers, where the originals scale its hidden state; at
low temperatures this is exactly what :class:`RemainingTokens` computes, but for local layers whose window is shorter
than the text: it stays where it was, while :class:`RemainingTokens` counts distances over the tokens that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.model.layers import Gates, LayerWidths
from limbeck.model.token_pruning import RemainingTokens, received_attention

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

EDGE = 1e-4
"""Least distance of shares and ranks from 0 and 1, of which log odds are taken."""
LEAST = 1e-12
"""Of a gate whose logarithm is added to scores."""


class GatedTokens(RemainingTokens):
    """All tokens of a batch, each with a gate between 0 and 1, which falls where a layer would leave the token behind.

    A token with gate 0 is seen by no later layer and keeps its state; the first one always has gate 1. ``gates`` are
    those after the layers so far [batch, position], 0 at padding.
    """

    def __init__(self, mask: Tensor | None, input_ids: Tensor, shares: Iterable[Tensor], temperature: float) -> None:
        """Begin with all tokens.

        Args:
            mask: True where a token is [batch, position]; None if there is no padding.
            input_ids: Token ids [batch, position].
            shares: Share of a text's tokens that go on after each layer that chooses, scalars.
            temperature: Width of the soft boundary, in log odds of a token's rank among those of its text.
        """
        super().__init__(mask, input_ids)
        self.real = torch.ones_like(input_ids, dtype=torch.bool) if self.mask is None else self.mask
        self.gates, self._remaining, self.temperature = self.real.float(), self.real, temperature
        self._shares, self._begun = iter(shares), False

    def fewer_after(self, widths: LayerWidths, gates: Gates) -> bool:
        """Return whether a layer chooses tokens.

        Args:
            widths: Shape of the layer.
            gates: Ignored.
        """
        return bool(widths.heads) and widths.attention == "softmax"

    def updated(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y as far as the gates are open, and x as far as they are closed."""
        return x + self.gates[..., None].to(x.dtype) * (y - x) if self._begun else y

    def drop(self, x: Tensor, scores: Tensor, widths: LayerWidths, gates: Gates) -> Tensor:
        """Close the gates of the tokens that receive least attention; return the states as they are.

        Args:
            x: Hidden states [batch, position, hidden].
            scores: Attention scores of the layer, before the softmax [batch, heads, query, key].
            widths: Ignored.
            gates: Ignored: no head is gated.
        """
        share = next(self._shares)
        received = received_attention(scores.detach(), self.gates.detach())
        received = torch.where(self._remaining, received, received / (1 + received) - 1)  # behind all that remain
        received = received.masked_fill(~self.real, -2.0)
        received[:, 0] = torch.inf
        ranks = received.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
        relative = ranks / self.lengths[:, None].clamp_min(1)
        self._remaining = self._remaining & (relative < share)
        within = torch.logit(share.clamp(EDGE, 1 - EDGE)) - torch.logit(relative.clamp(EDGE, 1 - EDGE))
        opened = torch.sigmoid(within / self.temperature).masked_fill(ranks == 0, 1.0)
        self.gates, self._begun = torch.minimum(self.gates, opened), True
        return x

    @property
    def keys(self) -> Tensor | None:
        """What is added to scores [batch, 1, 1, key], or the mask before any gate."""
        if not self._begun:
            return super().keys
        logs = self.gates.clamp_min(LEAST).log().masked_fill(~self.real, torch.finfo(self.gates.dtype).min)
        return logs[:, None, None, :]


def logits_with(
    model: LimbeckForSequenceClassification, remaining: RemainingTokens, batch: Mapping[str, Any]
) -> Tensor:
    """Return the logits of a model's last head; of vectors, one for each text.

    Args:
        model: The model.
        remaining: The tokens that its layers read.
        batch: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each [batch, seq].
    """
    for state in model.encoder.states(remaining, batch["input_ids"], batch.get("token_type_ids")):
        x = state
    return model.logits(model.encoder.normalized(remaining.merged(x)), batch.get("attention_mask"))
