"""Losses on vectors of texts: pairs with scores, and pairs that belong together.

References: CoSENT (Su, 2022, https://kexue.fm/archives/8847); InfoNCE with in-batch negatives (van den Oord et al.,
2018, arXiv:1807.03748; Henderson et al., 2017, arXiv:1705.00652).

A saved model folder carries this file beside ``encoder.py``; it may import torch alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 20.0
"""Inverse temperature of cosines, as in sentence-transformers."""


def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split joined vectors of pairs [rows, 2 * width] into first and second ones [rows, width]."""
    first, second = rows.chunk(2, dim=-1)
    return first, second


def cosines(rows: Tensor) -> Tensor:
    """Compute the cosine of each pair of joined vectors [rows, 2 * width]; [rows]."""
    return F.cosine_similarity(*halves(rows), dim=-1)


def cosent(rows: Tensor, scores: Tensor) -> Tensor:
    """Compute ``log(1 + sum exp(20 (cos_j - cos_i)))`` over all i, j with score i > score j; the scale has no effect.

    Args:
        rows: Both vectors of each pair, joined [rows, 2 * width].
        scores: How alike the texts of each pair are [rows].

    Returns:
        A scalar; 0 where all scores are the same.
    """
    values = SCALE * cosines(rows)
    scores = scores.to(values.dtype).reshape(-1)
    differences = values[None, :] - values[:, None]
    differences = differences.masked_fill(scores[:, None] <= scores[None, :], float("-inf"))
    return torch.logsumexp(torch.cat([torch.zeros(1, device=values.device), differences.reshape(-1)]), dim=0)


def cosine_error(rows: Tensor, scores: Tensor) -> Tensor:
    """Compute the mean squared difference of cosines and scores.

    Args:
        rows: Both vectors of each pair, joined [rows, 2 * width].
        scores: Cosines to reach [rows].
    """
    values = cosines(rows)
    return F.mse_loss(values, scores.to(values.dtype).reshape(-1))


def in_batch_negatives(rows: Tensor, alike: Tensor | None = None) -> Tensor:
    """Compute the cross-entropy of finding the second text of each pair among those of the batch, and the reverse.

    Args:
        rows: Both vectors of each pair, joined [rows, 2 * width].
        alike: Which first texts are no negatives of which second texts, as a text is in both pairs [rows, rows].
    """
    with torch.autocast(rows.device.type, enabled=False):  # in bfloat16 cosines near 1 are told apart by 0.006
        first, second = (F.normalize(part.float(), dim=-1) for part in halves(rows))
        scores = SCALE * first @ second.T
    if alike is not None:
        others = alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        scores = scores.masked_fill(others, float("-inf"))
    right = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2
