"""The embeddings of an encoder: words, positions and token types, normalized and projected.

A saved model folder carries this file beside ``encoder.py``; it may import torch and the files beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dropout import dropout
from .layers import layer_norm, linear, slice_linear, slice_norm
from .style import Style


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalized; projected when they are narrower than the encoder.

    A style may do without positions, token types or the norm.
    """

    def __init__(self, hidden: int, style: Style) -> None:
        super().__init__()
        width = style.embedding_size or hidden
        self.style = style
        self.word = nn.Embedding(style.vocab_size, width)
        first = style.project_before_norm
        self.position = nn.Embedding(style.max_positions, width) if style.absolute_positions else None
        self.token_type = nn.Embedding(style.token_types, width) if style.token_types else None
        self.norm = layer_norm(hidden if first else width, style) if style.embedding_norm else None
        self.project = linear(width, hidden, bias=not first) if width != hidden else None
        for table in (self.word, self.position, self.token_type):
            if table is not None:
                table.weight.data.normal_(0.0, 0.02)

    def positions(self, input_ids: Tensor) -> Tensor:
        """Return the position of every token [batch, seq]."""
        if self.style.position_offset is None:
            return torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        real = (input_ids != self.style.pad_token_id).long()
        return real.cumsum(1) * real + self.style.position_offset

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None, hidden: int, mask: Tensor | None = None
    ) -> Tensor:
        """Embed tokens.

        Args:
            input_ids: Token ids [batch, seq].
            token_type_ids: Segment ids [batch, seq]; None stands for zeros.
            hidden: Number of leading channels to return.
            mask: 1 where a token is, 0 where padding is [batch, seq]; None if there is no padding.

        Returns:
            Embeddings [batch, seq, hidden].
        """
        x = self.word(input_ids)
        if self.position is not None:
            x = x + self.position(self.positions(input_ids))
        if self.token_type is not None:
            x = x + self.token_type(torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        first = self.style.project_before_norm
        if self.project is None:
            x = x[..., :hidden]
        elif first:
            x = slice_linear(x, self.project, hidden, x.shape[-1])
        if self.norm is not None:
            x = slice_norm(x, self.norm)
        if mask is not None and self.style.masks_queries:
            x = x * mask[..., None].to(x.dtype)
        own = self.style.embedding_dropout
        x = dropout(x, self.style.dropout if own is None else own, self.training)
        return x if self.project is None or first else slice_linear(x, self.project, hidden, x.shape[-1])
