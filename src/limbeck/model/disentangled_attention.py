"""Disentangled attention: scores between contents and relative positions, as in DeBERTa-v2 and DeBERTa-v3.

Reference: He et al., 2021, arXiv:2006.03654 and arXiv:2111.09543. Each distance of two tokens belongs to a bucket, and
each bucket has an embedding. *c2p* compares a query with the projected embedding of its distance to a key, *p2c* a key
with that of its distance to a query. Both are one product with the embeddings of the distances in order, whose rows
are then shifted (Transformer-XL, Dai et al., 2019, arXiv:1901.02860); no tensor [query, key, channel] is built.

A saved model folder carries this file beside ``encoder.py``; it may import torch and the files beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .style import Style


class RelativeRows(NamedTuple):
    """Embeddings of buckets, and the bucket of every distance that occurs among n tokens.

    ``rows`` [bucket, hidden]; ``c2p`` and ``p2c`` [2 n] index them. Entry c stands for the distance c - (n - 1): of
    key - query in ``c2p``, of query - key in ``p2c``. The last entry is one more than occurs, see :func:`shifted`.
    """

    rows: Tensor
    c2p: Tensor
    p2c: Tensor


def span(style: Style) -> int:
    """Return how many buckets there are for each direction."""
    return style.position_buckets or style.max_relative_positions


def log_buckets(distances: Tensor, buckets: int, largest: int) -> Tensor:
    """Return the bucket of every distance: exact ones up to half the buckets, then logarithmically wider ones.

    The order of operations is that of transformers, since ``ceil`` would show another rounding.

    Args:
        distances: Distances, of any shape.
        buckets: Number of buckets for each direction.
        largest: Distance for which the last bucket is meant.

    >>> log_buckets(torch.tensor([-9, -4, 0, 3, 5, 15]), 8, 16).tolist()
    [-6, -4, 0, 3, 5, 7]
    """
    middle = buckets // 2
    near = (distances < middle) & (distances > -middle)
    apart = torch.where(near, torch.tensor(middle - 1).type_as(distances), distances.abs())
    far = torch.log(apart / middle) / torch.log(torch.tensor((largest - 1) / middle)) * (middle - 1)
    logarithmic = (torch.ceil(far) + middle) * torch.sign(distances)
    return torch.where(apart <= middle, distances.type_as(logarithmic), logarithmic).long()


def bucket_rows(distances: Tensor, style: Style) -> Tensor:
    """Return the row in the table of relative embeddings of every distance query - key."""
    if style.position_buckets:
        distances = log_buckets(distances, style.position_buckets, style.max_relative_positions)
    return (distances + span(style)).clamp(0, 2 * span(style) - 1)


class RelativeEmbeddings(nn.Module):
    """Embeddings of buckets of distances, shared by all layers, normalized where the style says so."""

    def __init__(self, hidden: int, style: Style) -> None:
        super().__init__()
        self.style = style
        self.table = nn.Embedding(2 * span(style), hidden)
        self.table.weight.data.normal_(0.0, 0.02)
        self.norm = nn.LayerNorm(hidden, eps=style.layer_norm_eps) if style.relative_norm else None

    def forward(self, tokens: int, hidden: int) -> RelativeRows:
        """Return the embeddings of the distances among so many tokens, of so many leading channels."""
        distances = torch.arange(1 - tokens, tokens + 1, device=self.table.weight.device)
        c2p, p2c = bucket_rows(-distances, self.style), bucket_rows(distances, self.style)
        first = int(min(c2p.min(), p2c.min()))
        rows = self.rows(hidden, slice(first, int(max(c2p.max(), p2c.max())) + 1))
        return RelativeRows(rows, c2p - first, p2c - first)

    def rows(self, hidden: int, which: slice) -> Tensor:
        """Return some rows, normalized [bucket, hidden], of so many leading channels."""
        rows = self.table.weight[which, :hidden]
        if self.norm is None:
            return rows
        return F.layer_norm(rows, (hidden,), self.norm.weight[:hidden], self.norm.bias[:hidden], self.norm.eps)


def shifted(products: Tensor) -> Tensor:
    """Take from row i the entries of the distances j - i: [..., n, 2 n] to [..., n, n].

    Column c of the input is the distance c - (n - 1). In memory, entry (i, j) then lies ``i (2 n - 1) + j`` behind the
    first one, so a view with rows of 2 n - 1 has them in its leading columns.

    >>> distances = torch.arange(-2, 4).expand(3, 6)
    >>> shifted(distances).tolist()
    [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]
    """
    n = products.shape[-2]
    flat = products.flatten(-2)[..., n - 1 : n - 1 + n * (2 * n - 1)]
    rows: Tensor = flat.unflatten(-1, (n, 2 * n - 1))
    return rows[..., :n]


def position_scores(
    query: Tensor, key: Tensor, rows: RelativeRows, position_key: Tensor | None, position_query: Tensor | None
) -> Tensor:
    """Return the sum of the terms c2p and p2c, not yet scaled [batch, heads, query, key].

    Args:
        query: Queries [batch, heads, position, head_dim].
        key: Keys, likewise.
        rows: The buckets of the text's distances.
        position_key: Embeddings of the buckets, projected to keys [1, heads, bucket, head_dim]; None without c2p.
        position_query: Embeddings of the buckets, projected to queries, likewise; None without p2c.
    """
    terms = []
    if position_key is not None:
        terms.append(shifted(query @ position_key[:, :, rows.c2p].transpose(-1, -2)))
    if position_query is not None:
        terms.append(shifted(key @ position_query[:, :, rows.p2c].transpose(-1, -2)).transpose(-1, -2))
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]
