"""Attention cores: functions of query, key, value and mask, and nothing else.

A saved model folder carries this file beside ``encoder.py``; it may import torch alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot products, before the softmax.

    Shapes: query, key [batch, heads, position, head_dim]; mask [batch, 1, 1, key], True where a token is;
    result [batch, heads, query, key].
    """
    products = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return products if mask is None else products.masked_fill(~mask, torch.finfo(products.dtype).min)


def softmax(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """``softmax(Q K^T / sqrt(head_dim)) V`` (Vaswani et al., 2017, arXiv:1706.03762): O(n^2) in the length.

    Shapes: query, key, value [batch, heads, position, head_dim]; mask [batch, 1, 1, key], True where a token is;
    result like query.
    """
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)


CORES = {"softmax": softmax}
"""The core that ``LayerShape.attention`` names."""
