"""Fewer tokens in later layers: those that receive least attention are left behind, with the state that they had.

References: PoWER-BERT (Goyal et al., 2020, arXiv:2001.08950) scores a token by the attention that it receives, summed
over heads and queries; LTP (Kim et al., 2022, arXiv:2107.00910) and ToP (Li et al., 2023, arXiv:2306.14393) learn how
many stay. Differs: how many stay is a share of each text's own length, so that padding plays no part and short texts
lose few; tokens that are left behind keep their last state, so that tokens can be classified and averaged.

A saved model folder carries this file beside ``encoder.py``; it may import torch and the files beside it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Rotation, added_to_scores, bias_by_distance
from .layers import Gates, LayerWidths
from .style import Style


def kept(share: float, tokens: Tensor) -> Tensor:
    """Count the tokens that stay of texts of so many: at least one, and rounded up.

    Shares count in thousandths: whole numbers are rounded alike by every runtime.
    """
    return ((tokens * round(1000 * share) + 999) // 1000).clamp_min(1)


def received_attention(scores: Tensor, real: Tensor, heads: Tensor | None = None) -> Tensor:
    """Sum the attention that each token receives, over heads and the tokens that attend.

    Args:
        scores: Attention scores before the softmax [batch, heads, query, key].
        real: True where a token is [batch, position]; what padding attends to does not count. Or how much it counts.
        heads: Multipliers of the heads [heads]; None stands for ones.

    Returns:
        The sums [batch, key].
    """
    weights = scores.float().softmax(-1)
    if heads is not None:
        weights = weights * heads[:, None, None]
    return (weights * real[:, None, :, None]).sum((1, 2))


class RemainingTokens:
    """The tokens of a batch that the layers still read, in their order, and the last states of all others.

    The first position always remains. Of equal tokens the earlier one does. ``mask`` is True where a token is
    [batch, position], None if there is no padding; ``positions`` says where the tokens were [batch, position], None
    while all are there.
    """

    def __init__(self, mask: Tensor | None, input_ids: Tensor) -> None:
        self.mask, self.width = None if mask is None else mask.bool(), input_ids.shape[1]
        self.share = 1.0
        self.positions: Tensor | None = None
        self.states: Tensor | None = None
        real = torch.ones_like(input_ids) if self.mask is None else self.mask
        self.lengths = real.sum(1)

    def fewer_after(self, widths: LayerWidths, gates: Gates) -> bool:
        """Return whether a layer leaves tokens behind; only softmax attention over all of them judges tokens.

        Args:
            widths: Shape of the layer.
            gates: Multipliers of its heads and of the layer itself: where all are 0, it is as good as removed.
        """
        if not widths.heads or widths.attention != "softmax" or widths.tokens >= self.share:
            return False
        given = (None if gates.heads is None else gates.heads[: widths.heads], gates.layers)
        return all(gate is None or bool(gate.any()) for gate in given)

    def updated(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the states after a layer that made y of x, both [batch, remaining, hidden]: y, where none is gated."""
        return y

    def drop(self, x: Tensor, scores: Tensor, widths: LayerWidths, gates: Gates) -> Tensor:
        """Leave tokens behind.

        Args:
            x: Hidden states of those that remained so far [batch, position, hidden].
            scores: Attention scores of the layer among them, before the softmax [batch, heads, query, key].
            widths: Shape of the layer.
            gates: Multipliers of its heads.

        Returns:
            The hidden states of those that remain [batch, remaining, hidden].
        """
        self.states, self.share, present = self.merged(x), widths.tokens, x.shape[1]
        real, ranked = self.here(x), self.ranked(x, scores, widths, gates)
        width = int(kept(self.share, torch.tensor(self.width)))  # as of a text without padding
        best = ranked.sort(dim=1, descending=True, stable=True).indices[:, :width]
        spare = torch.arange(width, device=x.device) >= kept(self.share, self.lengths)[:, None]
        index = best.masked_fill(spare, present).sort(dim=1).values  # in their order, spare places at the end
        spare, index = index == present, index.clamp_max(present - 1)
        real = real.gather(1, index) & ~spare
        self.positions = self.positions_of(x).gather(1, index).masked_fill(~real, self.width)
        self.mask = None if self.mask is None else real
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

    def here(self, x: Tensor) -> Tensor:
        """Return where a token is among present states [batch, remaining], True or False."""
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if self.mask is None else self.mask

    def ranked(self, x: Tensor, scores: Tensor, widths: LayerWidths, gates: Gates) -> Tensor:
        """Return by what tokens are chosen: the attention that each receives, infinite for the first, -1 for padding.

        Args:
            x: As for :meth:`drop`.
            scores: As for :meth:`drop`.
            widths: Shape of the layer.
            gates: Multipliers of its heads.

        Returns:
            The numbers [batch, position]; those with the largest go on.
        """
        real = self.here(x)
        heads = None if gates.heads is None else gates.heads[: widths.heads].detach()
        ranked = received_attention(scores.detach(), real, heads).masked_fill(~real, -1.0)
        ranked[:, 0] = torch.inf
        return ranked

    def merged(self, x: Tensor, *, detached: bool = False) -> Tensor:
        """Return the states of all positions: the present ones, and the last ones of those that were left behind.

        Args:
            x: Hidden states of those that remain [batch, remaining, hidden].
            detached: Leave gradients out of what was left behind, so that no loss pulls at it.

        Returns:
            Hidden states [batch, position, hidden].
        """
        if self.states is None or self.positions is None:
            return x
        states = self.states.detach() if detached else self.states
        index = self.positions[..., None].expand_as(x)
        spare = F.pad(states, (0, 0, 0, 1))  # a row for the places that hold no token
        return spare.scatter(1, index, x.to(states.dtype))[:, :-1]

    def tap(self, x: Tensor, taps: dict[str, list[Tensor]]) -> None:
        """Append what a layer is about to read to the taps ``hidden``, ``mask`` and ``positions``, if they are wanted.

        Args:
            x: Hidden states of those that remain [batch, remaining, hidden].
            taps: Lists by name of the tap.
        """
        if "hidden" in taps:
            taps["hidden"].append(self.merged(x, detached=True))
        if "mask" in taps:
            taps["mask"].append(self.here(x))
        if "positions" in taps:
            taps["positions"].append(self.positions_of(x))

    def positions_of(self, x: Tensor) -> Tensor:
        """Return the positions of present states [batch, remaining]; places that hold no token may have any."""
        all_there = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        return all_there if self.positions is None else self.positions

    @property
    def keys(self) -> Tensor | None:
        """True where a token is [batch, 1, 1, key], as attention takes it; None if there is no padding."""
        return None if self.mask is None else self.mask[:, None, None, :]

    def turn(self, whole: Rotation | None) -> Rotation | None:
        """Return the rotation of the positions that remain [batch, 1, position, head_dim], of that of all."""
        if whole is None or self.positions is None:
            return whole
        cos, sin = (table[self.positions.clamp_max(self.width - 1)][:, None] for table in whole)
        return cos, sin

    def score_bias(self, table: nn.Embedding | None, style: Style) -> Tensor | None:
        """Return what layers add to the scores of the tokens that remain, by their distance and with the mask.

        Args:
            table: Biases by distance; None where a family has none.
            style: How the model computes.

        Returns:
            The sum [batch or 1, heads, query, key], for every column of the table; None without a table.
        """
        if table is None:
            return None
        bias = bias_by_distance(table.weight, self.width, style.relative_distance)  # among all positions
        if self.positions is None:
            return added_to_scores(bias[None], self.keys)
        at = self.positions.clamp_max(self.width - 1)
        return added_to_scores(bias[:, at[:, :, None], at[:, None, :]].transpose(0, 1), self.keys)
