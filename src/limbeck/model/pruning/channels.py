"""Which channels of the hidden states matter least: second-order removal from everything that reads them at once.

A channel goes out of every point where hidden states are read. With H the Gram matrix of what is read at a point (and
a column of ones), and F the average of ``g g^T`` over rows, g the gradient that reaches the point through what reads
it, the first channel c to go costs, in nats that the answers differ by::

    sum over points of F_cc / (H^-1)_cc / 2

where the readers are corrected for what the remaining channels tell of it; then all matrices are updated, as in
``optimal_brain_surgeon.removal``, whose formula this is for an identity in front of every reader.

References: Hassibi and Stork, 1992; Minitron (Muralidharan et al., 2024, arXiv:2407.14679), which has one set of
channels for all layers, too. Differs: Minitron ranks channels by their mean activation after the norms, and does not
count what the remaining ones make up for. No label is read: of words, labels only mark the tokens that answers come
from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from limbeck.model.pruning.optimal_brain_surgeon import Batches, sampled_gradients
from limbeck.model.pruning.read_points import TAPS, ReadPoint, gradient_rows, rows_read
from limbeck.model.pruning.reconstruction import ridge, with_ones
from limbeck.model.pruning.slicing import RemovalOrder

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification


@dataclass(frozen=True)
class Statistics:
    """What is read at every point, summed over calibration texts, in float64.

    Attributes:
        points: The points.
        grams: Gram matrix of the rows and a column of ones, by point [hidden + 1, hidden + 1].
        sensitivities: Average of ``g g^T`` by point, g the gradient at a row; zeros where none is judged
            [hidden, hidden].
    """

    points: tuple[ReadPoint, ...]
    grams: tuple[Tensor, ...]
    sensitivities: tuple[Tensor, ...]


def observe(
    model: LimbeckForSequenceClassification, batches: Batches, points: Sequence[ReadPoint], seed: int = 0
) -> Statistics:
    """Run a model on calibration texts, forward and back; padding takes no part.

    Args:
        model: The model; it is not changed.
        batches: Calibration batches, whose labels are not read, but mark the tokens that words are answered by.
        points: Where it reads hidden states.
        seed: Seed of the labels sampled from the model's predictions.
    """
    hidden = model.shape.hidden
    zeros = torch.zeros(len(points), hidden + 1, hidden + 1, dtype=torch.float64, device=model.device)
    grams, squares, rows = zeros, zeros[:, :-1, :-1].clone(), [0] * len(points)
    judged = [point for point in points if point.judged]

    def chosen(taps: dict[str, list[Tensor]]) -> list[Tensor]:
        return [taps[point.tap][point.index] for point in judged]

    for batch, taps, gradients in sampled_gradients(model, batches, TAPS, chosen, seed):
        by_point = dict(zip(judged, gradients, strict=True))
        with torch.no_grad():
            for index, point in enumerate(points):
                read = with_ones(rows_read(model, point, taps, batch))
                grams[index] += (read.T @ read).double()
                rows[index] += len(read)
                if point.judged:
                    slope = gradient_rows(model, point, by_point[point], taps, batch).double()
                    squares[index] += slope.T @ slope
    means = squares / torch.tensor(rows, device=squares.device).clamp_min(1)[:, None, None]
    return Statistics(tuple(points), tuple(grams), tuple(means))


@torch.no_grad()
def channel_order(statistics: Statistics, count: int) -> RemovalOrder:
    """Remove channels of the hidden states one by one, the least harmful first.

    Args:
        statistics: What is read, and how much it matters.
        count: How many are removed in order; the others follow by their number.

    Returns:
        The order, and the nats lost so far; of channels that stay as many as were lost when the last one went.
    """
    judged = [index for index, point in enumerate(statistics.points) if point.judged]
    values, vectors = torch.linalg.eigh(torch.stack([statistics.sensitivities[index] for index in judged]))
    roots = (values.clamp_min(0) / 2).sqrt()[:, :, None] * vectors.transpose(1, 2)
    weights = torch.cat([roots, torch.zeros_like(roots[:, :, :1])], 2)  # the bias, which always stays
    grams = torch.stack([statistics.grams[index] for index in judged])
    inverses = torch.linalg.inv(grams + torch.stack([ridge(gram).diag() for gram in grams]))
    removed: list[int] = []
    costs: list[float] = []
    for _ in range(count):
        diagonals = inverses.diagonal(dim1=1, dim2=2).clamp_min(1e-300)
        sensitivity = (weights.square().sum(1) / diagonals)[:, :-1].sum(0)
        sensitivity[removed] = torch.inf
        best = int(sensitivity.argmin())
        removed.append(best)
        costs.append(float(sensitivity[best]))
        rows = inverses[:, best].clone()
        scaled = (rows / rows[:, best, None])[:, None]
        weights.baddbmm_(weights[:, :, best, None].clone(), scaled, alpha=-1)
        inverses.baddbmm_(rows[:, :, None], scaled, alpha=-1)
        # what went is out of every later step: rounding must not bring it back
        weights[:, :, best] = inverses[:, :, best] = inverses[:, best] = 0.0
    stay = [channel for channel in range(roots.shape[1]) if channel not in set(removed)]
    lost = np.concatenate([[0.0], np.cumsum(np.maximum(costs, 0.0))]) if costs else np.zeros(1)
    return RemovalOrder((*removed, *stay), np.concatenate([lost, np.full(len(stay), lost[-1])]))
