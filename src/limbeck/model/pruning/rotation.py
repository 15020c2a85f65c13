"""Hidden states in the basis of their principal directions, in families that normalize what reads them (pre-norm).

Reference: SliceGPT (Ashkboos et al., 2024, arXiv:2401.15024). Where every part of a layer reads hidden states through a
norm, they may be given in any orthogonal basis: what writes them is multiplied by Q, what reads them by its transpose,
once the scale and bias of each norm are part of what reads it. Directions of little variance are then cut.

Differs: one basis serves all layers, so that no matrix is added to the residual sums, where SliceGPT has one for each
layer; and LayerNorm stays LayerNorm. SliceGPT takes the mean out of everything that writes, and goes on with RMSNorm.
Here Q maps the all-ones direction, which LayerNorm removes, to that of the new channels: then the norm of the
rotated states is the rotated norm, and what reads states without a norm (ModernBERT's first attention) still has their
mean. The direction takes one of the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from scipy.linalg import helmert
from torch import Tensor, nn

from limbeck.model.pruning.read_points import (
    ReadPoint,
    embedding_norm,
    linear_at,
    norm_at,
    pooling_of,
    read_points,
    takes_constants,
)
from limbeck.model.pruning.subnetwork import readers, writers

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification


def is_rotatable(model: LimbeckForSequenceClassification) -> bool:
    """Return whether hidden states may be given in another basis.

    They may not where a norm is on them: in post-norm families, and where a sum of embeddings is normalized; nor where
    a norm has a bias that what reads it cannot take over; nor where the largest value of each channel is read.
    """
    style, embeddings = model.encoder.style, model.encoder.embeddings
    summed = embeddings.position is not None or embeddings.token_type is not None or embeddings.project is not None
    if not style.norm_first or pooling_of(model) == "max" or (embedding_norm(model) and summed):
        return False
    return not any(
        norm.bias is not None and not takes_constants(model, path)
        for point in _normed(model)
        if (norm := norm_at(model, point.norm)) is not None
        for path in point.maps
    )


def _normed(model: LimbeckForSequenceClassification) -> list[ReadPoint]:
    """Return the points that read what a norm of the encoder's layers, or the last one, puts out."""
    first = embedding_norm(model)
    return [point for point in read_points(model) if point.tap != "features" and point.norm not in ("", first)]


@torch.no_grad()
def absorb_norms(model: LimbeckForSequenceClassification) -> None:
    """Make scales and biases of norms part of what reads them, in place; the outputs do not change.

    A norm of the embeddings becomes part of the table of words: each word has but one embedding here.

    Args:
        model: A model that :func:`is_rotatable`.
    """
    for point in _normed(model):
        norm = norm_at(model, point.norm)
        assert norm is not None
        for path in point.maps:
            linear = linear_at(model, path)
            if norm.bias is not None and linear.bias is not None:
                linear.bias.add_(linear.weight @ norm.bias)
            linear.weight.mul_(norm.weight)
        norm.weight.fill_(1.0)
        if norm.bias is not None:
            norm.bias.zero_()
    embeddings = model.encoder.embeddings
    if embedding_norm(model) and embeddings.norm is not None:
        embeddings.word.weight.copy_(embeddings.norm(embeddings.word.weight))
        embeddings.norm = None
        model.config.embedding_norm = False


def principal_basis(grams: Sequence[Tensor], width: int) -> Tensor:
    """Return an orthogonal basis whose leading columns hold most of what is read, and the all-ones direction.

    Args:
        grams: Gram matrices of what is read, by point, with a column of ones [hidden + 1, hidden + 1]. Each point
            counts the same.
        width: Leading columns that are meant to stay.

    Returns:
        The basis [hidden, hidden]. Its leading columns map the all-ones direction to that of the new channels, and what
        has mean 0 over the channels to what has mean 0 over the new ones.
    """
    hidden = len(grams[0]) - 1
    total = torch.stack([gram[:-1, :-1] / gram[:-1, :-1].trace() for gram in grams]).sum(0)
    ones = torch.full((hidden, 1), hidden**-0.5, dtype=total.dtype, device=total.device)
    rest = torch.eye(hidden, dtype=total.dtype, device=total.device) - ones @ ones.T
    vectors = torch.linalg.eigh(rest @ total @ rest - total.trace() * ones @ ones.T).eigenvectors
    directions = vectors[:, 1:].flip(1)  # the first is the all-ones direction; the others ascend
    spread = torch.from_numpy(helmert(width)).to(total)  # [width - 1, width], with rows of mean 0
    leading = directions[:, : width - 1] @ spread + ones.expand(-1, width) * width**-0.5
    return torch.cat([leading, directions[:, width - 1 :]], 1)


@torch.no_grad()
def rotate(model: LimbeckForSequenceClassification, basis: Tensor) -> None:
    """Give the hidden states in another basis, in place.

    Args:
        model: A model whose norms were absorbed.
        basis: Orthogonal [hidden, hidden]. The outputs do not change if it maps the all-ones direction to itself.
    """
    encoder, embeddings = model.encoder, model.encoder.embeddings
    if embeddings.project is not None:
        _rotate_rows(embeddings.project, basis)
    else:
        for table in (embeddings.word, embeddings.position, embeddings.token_type):
            if table is not None:
                table.weight.copy_(table.weight @ basis.to(table.weight))
    for layer in encoder.layers:
        for part in writers(layer):
            _rotate_rows(part, basis)
        for part in readers(layer):
            part.weight.copy_(part.weight @ basis.to(part.weight))
    for point in read_points(model):
        if point.tap == "hidden":
            for path in point.maps:
                linear = linear_at(model, path)
                linear.weight.copy_(linear.weight @ basis.to(linear.weight))


def _rotate_rows(linear: nn.Linear, basis: Tensor) -> None:
    matrix = basis.to(linear.weight)
    linear.weight.copy_(matrix.T @ linear.weight)
    if linear.bias is not None:
        linear.bias.copy_(linear.bias @ matrix)
