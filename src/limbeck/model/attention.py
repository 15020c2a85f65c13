"""Attention cores: functions of query, key, value and mask, and nothing else.

``softmax`` is the usual one, ``local`` the same within a window; the cost of the others is linear in the sequence
length. A layer names its core and the
core's size in one word, ``linformer:256``, so that a shape holds both.

A saved model folder carries this file beside ``encoder.py``; it may import torch alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .dropout import attend
from .dropout import dropout as drop

Lengths = tuple[Tensor, Tensor]
"""Learned length projections of keys and of values: [position, size], or [heads, position, size]."""


def scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Return scaled dot products, before the softmax.

    Args:
        query: Queries [batch, heads, position, head_dim].
        key: Keys [batch, heads, position, head_dim].
        mask: True where a token is [batch, 1, 1, key], or what is added to the scores [batch, heads, query, key].

    Returns:
        Scores [batch, heads, query, key].
    """
    products: Tensor = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is None:
        return products
    if mask.dtype != torch.bool:
        return products + mask.to(products.dtype)
    return products.masked_fill(~mask, torch.finfo(products.dtype).min)


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines by which rotary positions turn queries and keys [position, head_dim]."""


def rotation(tokens: int, head_dim: int, theta: float, device: torch.device) -> Rotation:
    """Return cosines and sines of rotary positions (Su et al., 2021, arXiv:2104.09864).

    Args:
        tokens: Number of positions.
        head_dim: Width of a head; channels j and j + head_dim / 2 are a pair.
        theta: Base of the wavelengths.
        device: Where to compute.

    Returns:
        Cosines and sines [position, head_dim].
    """
    frequencies = theta ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(tokens, device=device, dtype=torch.float32)[:, None] * torch.cat([frequencies] * 2)
    return angles.cos(), angles.sin()


def rotate(states: Tensor, turn: Rotation) -> Tensor:
    """Turn queries or keys [batch, heads, position, head_dim] by their positions; computed in float32."""
    first, second = states.float().chunk(2, -1)
    turned = states * turn[0] + torch.cat((-second, first), -1) * turn[1]
    return turned.to(states.dtype)


def relative_buckets(distances: Tensor, buckets: int, largest: int) -> Tensor:
    """Return the bucket of every distance key - query: exact ones for short distances, then logarithmically wider ones.

    Reference: T5 (Raffel et al., 2020, arXiv:1910.10683), in both directions; MPNet uses the same.

    Args:
        distances: Distances, of any shape.
        buckets: Number of buckets, half of them for each direction.
        largest: From this distance on, all are in the last bucket.

    Returns:
        Indices of buckets, of the same shape.
    """
    half = buckets // 2
    exact, apart = half // 2, distances.abs()
    far = exact + (torch.log(apart.clamp_min(1) / exact) / math.log(largest / exact) * (half - exact)).long()
    return (distances > 0).long() * half + torch.where(apart < exact, apart, far.clamp_max(half - 1))


def bias_by_distance(table: Tensor, tokens: int, largest: int) -> Tensor:
    """Spread a table of biases over all pairs of tokens.

    Args:
        table: Biases [bucket, heads].
        tokens: Number of tokens.
        largest: From this distance on, all are in the last bucket.

    Returns:
        Biases [heads, query, key].
    """
    positions = torch.arange(tokens, device=table.device)
    distances = torch.arange(1 - tokens, tokens, device=table.device)
    rows = table[relative_buckets(distances, len(table), largest)].t()
    return rows[:, positions[None, :] - positions[:, None] + tokens - 1]


def added_to_scores(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Join a bias [batch or 1, heads, query, key] and a mask [batch, 1, 1, key] to what is added to scores.

    Where the mask is a number, it is added.
    """
    if mask is None:
        return bias
    return bias.masked_fill(~mask, torch.finfo(bias.dtype).min) if mask.dtype == torch.bool else bias + mask


def softmax(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    size: int = 0,
    lengths: Lengths | None = None,
) -> Tensor:
    """Compute ``softmax(Q K^T / sqrt(head_dim)) V`` (Vaswani et al., 2017, arXiv:1706.03762): O(n^2) in the length.

    Args:
        query: Queries [batch, heads, position, head_dim].
        key: Keys, likewise.
        value: Values, likewise.
        mask: True where a token is [batch, 1, 1, key], or what is added to the scores [batch, heads, query, key].
        dropout: Probability of dropping an attention weight.
        size: Unused.
        lengths: Unused.
    """
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(query.dtype)
    return attend(query, key, value, mask, dropout)


def local_mask(query: Tensor, mask: Tensor | None, size: int) -> Tensor | None:
    """Return what hides from every token those more than ``size`` positions away, and padding.

    Args:
        query: Queries [batch, heads, position, head_dim], for their number and type.
        mask: True where a token is, or what is added to the scores [batch, 1, 1, key]; None if there is no padding.
        size: Reach of the window to either side, in tokens.

    Returns:
        What is added to the scores [batch or 1, 1, query, key]; the mask itself for texts within the window.
    """
    positions = torch.arange(query.shape[2], device=query.device)
    if len(positions) <= size + 1:
        return mask
    near = ((positions[:, None] - positions).abs() <= size)[None, None]
    if mask is not None and mask.dtype != torch.bool:
        return mask.masked_fill(~near, torch.finfo(query.dtype).min).to(query.dtype)
    seen = near if mask is None else near & mask
    # added, not a mask of True and False: a query that sees no key, as padding may, would be NaN
    return torch.zeros(seen.shape, dtype=query.dtype, device=query.device).masked_fill(
        ~seen, torch.finfo(query.dtype).min
    )


def local(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    size: int = 0,
    lengths: Lengths | None = None,
) -> Tensor:
    """Compute softmax attention among tokens at most ``size`` positions apart, as ModernBERT's local layers do.

    It is computed with a mask, so its cost is that of softmax; ``window`` saves what is far away.

    Args:
        query: Queries [batch, heads, position, head_dim].
        key: Keys, likewise.
        value: Values, likewise.
        mask: True where a token is [batch, 1, 1, key].
        dropout: Probability of dropping an attention weight.
        size: Reach of the window to either side, in tokens.
        lengths: Unused.
    """
    return softmax(query, key, value, local_mask(query, mask, size), dropout)


def linformer(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    size: int = 0,
    lengths: Lengths | None = None,
) -> Tensor:
    """Compute ``softmax(Q (E^T K)^T / sqrt(head_dim)) (F^T V)`` (Wang et al., 2020, arXiv:2006.04768): O(n size).

    As in He and Garner (2025, arXiv:2410.06846), a text of m tokens uses the first m rows of E and F, and the products
    are divided by sqrt(m): with E, F ~ N(0, 1) they are then of the magnitude of keys and values. Padding is zeroed, so
    its amount changes nothing. Differs: masked and batched; the original loops over the texts.

    Args:
        query: Queries [batch, heads, position, head_dim].
        key: Keys, likewise.
        value: Values, likewise.
        mask: True where a token is [batch, 1, 1, key].
        dropout: Probability of dropping an attention weight.
        size: Number of projected positions.
        lengths: E and F.
    """
    assert lengths is not None, "linformer needs its projections"
    tokens = key.shape[2]
    count: Tensor | float = float(tokens)
    if mask is not None:
        real = mask.transpose(2, 3).to(key.dtype)
        key, value, count = key * real, value * real, real.sum(2, keepdim=True).clamp_min(1)
    short = []
    for states, projection in zip((key, value), lengths, strict=True):
        equation = "nk,bhnd->bhkd" if projection.dim() == 2 else "hnk,bhnd->bhkd"
        short.append(torch.einsum(equation, projection[..., :tokens, :size], states) * count**-0.5)
    short_key, short_value = (part.to(query.dtype) for part in short)
    return attend(query, short_key, short_value, None, dropout)


def window(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    size: int = 0,
    lengths: Lengths | None = None,
) -> Tensor:
    """Compute softmax attention among tokens at most ``size`` positions apart; the first token is global.

    Reference: Longformer (Beltagy et al., 2020, arXiv:2004.05150). Differs: the global token has no projections of its
    own. Sequences are split into blocks of ``size`` tokens; each attends to itself and its two neighbors: O(n size).

    Args:
        query: Queries [batch, heads, position, head_dim].
        key: Keys, likewise.
        value: Values, likewise.
        mask: True where a token is [batch, 1, 1, key].
        dropout: Probability of dropping an attention weight.
        size: Reach of the window to either side, in tokens.
        lengths: Unused.
    """
    batch, _, tokens, width = query.shape
    seen = torch.ones(batch, 1, 1, tokens, dtype=torch.bool, device=query.device) if mask is None else mask
    first = attend(query[:, :, :1], key, value, seen, dropout)
    ragged = -tokens % size

    def blocks(states: Tensor) -> Tensor:
        """Join every block with its two neighbors: [..., position, channel] to [..., block, channel, 3 size]."""
        return F.pad(states, (0, 0, size, size + ragged)).unfold(-2, 3 * size, size)

    q = F.pad(query, (0, 0, 0, ragged)).unflatten(2, (-1, size)) * width**-0.5
    local = q @ blocks(key)
    visible = blocks(_without_first(seen).transpose(2, 3).to(query.dtype)).bool() & _band(size, query.device)
    local = local.masked_fill(~visible, torch.finfo(local.dtype).min)
    global_scores = q @ key[:, :, None, :1].transpose(-1, -2)
    weights = drop(torch.cat((local, global_scores), -1).softmax(-1), dropout, dropout > 0)
    context = weights[..., :-1] @ blocks(value).transpose(-1, -2) + weights[..., -1:] * value[:, :, None, :1]
    return torch.cat((first, context.flatten(2, 3)[:, :, 1:tokens]), 2)


def _without_first(seen: Tensor) -> Tensor:
    """Mask the first token out of local attention, since all tokens attend to it globally."""
    return torch.cat((torch.zeros_like(seen[..., :1]), seen[..., 1:]), -1)


def _band(size: int, device: torch.device) -> Tensor:
    """Mark which of the 3 size tokens around a block are at most ``size`` positions away: [size, 3 size]."""
    positions = torch.arange(3 * size, device=device)
    return (positions - size - positions[:size, None]).abs() <= size


def kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    size: int = 0,
    lengths: Lengths | None = None,
) -> Tensor:
    """Compute ``f(Q) (f(K)^T V) / (f(Q) sum f(K))`` with ``f(x) = elu(x) + 1``: O(n head_dim).

    Reference: Katharopoulos et al., 2020, arXiv:2006.16236.

    Args:
        query: Queries [batch, heads, position, head_dim].
        key: Keys, likewise.
        value: Values, likewise.
        mask: True where a token is [batch, 1, 1, key].
        dropout: Unused: attention weights are never computed, so none can be dropped.
        size: Unused.
        lengths: Unused.
    """
    phi_q, phi_k = F.elu(query) + 1, F.elu(key) + 1
    if mask is not None:
        phi_k = phi_k * mask.transpose(2, 3).to(phi_k.dtype)
    total = phi_q @ phi_k.sum(2, keepdim=True).transpose(-1, -2).to(phi_q.dtype)
    return (phi_q @ (phi_k.transpose(-1, -2) @ value)) / total.clamp_min(torch.finfo(total.dtype).tiny)


CORES = {"softmax": softmax, "local": local, "linformer": linformer, "window": window, "kernel": kernel}
"""Cores by the name in ``LayerShape.attention``."""


def core(attention: str) -> tuple[str, int]:
    """Return the name and size of a core.

    >>> core("linformer:256"), core("softmax")
    (('linformer', 256), ('softmax', 0))
    """
    name, _, size = attention.partition(":")
    return name, int(size or 0)
