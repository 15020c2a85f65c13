"""Fewer channels of the hidden states: choose them, cut them out of all that reads or writes them, and repair that.

The channels are those of the model that matter least (``channels.py``); in families that normalize what they read, the
directions of least variance (``rotation.py``). The repair is one pass over calibration texts, in which every point that
reads hidden states is given what the cut model would read there if all before were exact: the norm takes its mean and
variance of the remaining channels, and a scale and bias for each channel are fitted to what it was; then the readers
are solved for their former outputs by least squares, damped as cross-validation says (``damping.py``): a head that
reads one vector for a text has hardly more rows than unknowns.

References: Minitron (Muralidharan et al., 2024, arXiv:2407.14679), which cuts norms and everything that reads and
writes hidden states at the same channels, and leaves the repair to distillation; SP3 (Hu et al., 2024,
arXiv:2308.16475), which cuts hidden states of BERT in principal components. Differs from SP3: no linear map is added to
the residual sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.model.pruning.channels import Statistics, channel_order, observe
from limbeck.model.pruning.config import FEWER_TOKENS
from limbeck.model.pruning.damping import Regression
from limbeck.model.pruning.optimal_brain_surgeon import Batches, removal
from limbeck.model.pruning.read_points import (
    TAPS,
    ReadPoint,
    linear_at,
    norm_at,
    position_maps,
    read_points,
    rows_read,
    takes_constants,
)
from limbeck.model.pruning.reconstruction import DAMPING, damped_solution, ridge, with_ones
from limbeck.model.pruning.rotation import absorb_norms, is_rotatable, principal_basis, rotate
from limbeck.model.pruning.subnetwork import extract, sort_channels, sort_features
from limbeck.model.sentence_encoder import LimbeckForSentenceEmbedding

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

M = TypeVar("M", bound="LimbeckForSequenceClassification")
Repairs = dict[str, tuple[Tensor, Tensor | None]]
"""New weights and biases, by the path of their module."""


def refusal(model: LimbeckForSequenceClassification, width: int, *, elastic: bool = False) -> str | None:
    """Return why the hidden states of a model cannot have so many channels; None if they can.

    Args:
        model: The model.
        width: Channels to keep.
        elastic: Whether it will be a super-network by then.
    """
    hidden, embedding = model.shape.hidden, model.style.embedding_size
    if width > hidden:
        return f"hidden: the model has {hidden} channels, got {width}; use at most {hidden}"
    if width == hidden:
        return None
    if width == embedding:
        return (
            f"hidden: a model as wide as its embeddings ({width}) has no projection of them, but this one has; use "
            f"{width + 1} or {width - 1}"
        )
    if model.shape.tokens:
        return FEWER_TOKENS
    if model.exits is not None:
        return "hidden: the model has early exits, which come last; take the model that it was made from"
    if elastic or model.space is not None:
        return "hidden: the model is a super-network, whose slices would all change; take a slice first, by search"
    return None


def narrow_hidden(
    model: M, texts: Callable[[], Sequence[dict[str, Tensor]]], width: int, *, reconstruct: bool = True, seed: int = 0
) -> M:
    """Return a model whose hidden states have fewer channels; that which is given is used up.

    Args:
        model: The model, an encoder of at least one layer with its head. Of vectors of texts the width stays, by a
            dense layer after the pooling, which is added where there is none.
        texts: Returns calibration texts, whose labels are not read, but mark the tokens that words are answered by; not
            called where all channels stay.
        width: Channels to keep.
        reconstruct: Repair norms and what reads hidden states by least squares on the texts.
        seed: Seed of the labels sampled from the model's predictions, by which channels are judged.

    Raises:
        InputError: The hidden states of this model cannot have so many channels.
    """
    if message := refusal(model, width):
        raise InputError(message)
    hidden = model.shape.hidden
    if width == hidden:
        return model
    batches = texts()
    if isinstance(model, LimbeckForSentenceEmbedding):
        model.keep_width(bias=True)
    rotates = is_rotatable(model)
    if rotates:
        absorb_norms(model)
    _absorb_norm_of_distances(model)
    statistics = observe(model, batches, read_points(model), seed)
    features = _feature_scores(model, statistics, width)
    if rotates:
        grams = [gram for gram, point in zip(statistics.grams, statistics.points, strict=True) if point.judged]
        basis = principal_basis(grams, width)
    else:
        basis = torch.eye(hidden, dtype=torch.float64, device=model.device)
        scores = np.ones(hidden)
        scores[list(channel_order(statistics, hidden - width).parts[: hidden - width])] = 0.0
        features = features[sort_channels(model, scores).numpy()]  # it sorts the features, too
    sort_features(model, features)
    repairs = repaired(model, batches, basis[:, :width]) if reconstruct else {}
    if rotates:
        rotate(model, basis)
    small = extract(model, replace(model.shape, hidden=width))
    if rotates:
        _rescale(small, (hidden / width) ** 0.5)
    _write(small, repairs)
    return small


def _feature_scores(model: LimbeckForSequenceClassification, statistics: Statistics, width: int) -> np.ndarray:
    """Score what the output layer reads where a dense layer comes before it: 1 for what stays, 0 for the rest."""
    scores = np.zeros(model.shape.hidden)
    for point, gram in zip(statistics.points, statistics.grams, strict=True):
        if point.tap == "features":
            identity = torch.eye(model.classifier.out_features, dtype=torch.float64, device=gram.device)
            scores[list(removal(model.classifier, gram, identity, 1).remaining(width))] = 1.0
    return scores


def _rescale(model: LimbeckForSequenceClassification, factor: float) -> None:
    """Scale what norms of rotated states put out: of fewer channels, each is larger by as much as it was with all."""
    with torch.no_grad():
        for point in read_points(model):
            norm = norm_at(model, point.norm)
            if norm is not None and point.tap != "features":
                norm.weight.fill_(factor)


def _absorb_norm_of_distances(model: LimbeckForSequenceClassification) -> None:
    """Make the norm of embeddings of distances part of their table where the maps of hidden states read them, too.

    Those maps are repaired for hidden states, and the table is then fitted to them.
    """
    relative = model.encoder.relative
    if relative is not None and relative.norm is not None and model.encoder.style.share_att_key:
        with torch.no_grad():
            relative.table.weight.copy_(relative.rows(model.shape.hidden, slice(None)))
        relative.norm = None
        model.config.relative_norm = False


@dataclass(frozen=True)
class Moments:
    """Sums over the rows that are read at a point: whole ones x [hidden], and y [width] as the cut model has them.

    Attributes:
        own: Sum of ``(y, 1)^T (y, 1)`` [width + 1, width + 1].
        cross: Sum of ``(x, 1)^T (y, 1)`` [hidden + 1, width + 1].
        whole: Sum of ``(x, 1)^T (x, 1)`` [hidden + 1, hidden + 1].
    """

    own: Tensor
    cross: Tensor
    whole: Tensor

    def rescaled(self, scale: Tensor, shift: Tensor) -> Moments:
        """Return the sums where y is multiplied by a scale [width], and a shift [width] is added."""
        matrix = torch.cat([scale, scale.new_ones(1)]).diag()
        matrix[-1, :-1] = shift
        return Moments(matrix.T @ self.own @ matrix, self.cross @ matrix, self.whole)

    def regression(self, constants: bool) -> Regression:
        """Return the sums for maps of x that read y instead; about the means, where a bias makes up for constants."""
        rows, x, y = float(self.own[-1, -1]), self.whole[-1, :-1], self.own[-1, :-1]
        own, cross, whole = self.own[:-1, :-1], self.cross[:-1, :-1], self.whole[:-1, :-1]
        if not constants:
            return Regression(own, cross, whole, rows)
        x_mean, y_mean = x / rows, y / rows
        return Regression(
            own - torch.outer(y, y_mean), cross - torch.outer(x, y_mean), whole - torch.outer(x, x_mean), rows - 1
        )


@torch.no_grad()
def repaired(model: LimbeckForSequenceClassification, batches: Batches, leading: Tensor) -> Repairs:
    """Compute the norms and what reads hidden states of the cut model on the whole one.

    Args:
        model: The model before the cut, whose features are sorted.
        batches: Calibration texts, as for :func:`narrow_hidden`.
        leading: The directions that stay [hidden, width].
    """
    points, repairs = read_points(model), Repairs()
    for point, sums in zip(points, moments(model, batches, points, leading), strict=True):
        directions, norm = _directions(point, leading), norm_at(model, point.norm)
        if norm is not None:
            scale, shift = fit_norm(sums, directions, bias=norm.bias is not None)
            repairs[point.norm] = (scale, shift)
            sums = sums.rescaled(scale, torch.zeros_like(scale) if shift is None else shift)
        regression = cache(sums.regression)
        for path in point.maps:
            linear, rows = linear_at(model, path), leading.shape[1] if path == "pooler" else None
            if linear.out_features:
                constants = takes_constants(model, path)
                # of distances there are no others, so none can be fitted too closely
                validated = None if point.tap == "distances" else regression(constants)
                repairs[path] = _solve_reader(linear, sums, directions, rows, validated, constants=constants)
    shared = [path for path in position_maps(model) if path in repairs and model.encoder.style.share_att_key]
    if shared:
        repairs["encoder.relative.table"] = (_fit_distance_table(model, shared, repairs, leading), None)
    return repairs


@torch.no_grad()
def moments(
    model: LimbeckForSequenceClassification, batches: Batches, points: Sequence[ReadPoint], leading: Tensor
) -> list[Moments]:
    """Return what is read at each point by the whole model, and by the cut one if all before were exact.

    Args:
        model: The model before the cut.
        batches: Calibration texts, as for :func:`narrow_hidden`.
        points: Where it reads hidden states.
        leading: The directions that stay [hidden, width].
    """
    model.eval()
    hidden, width = leading.shape
    own = leading.new_zeros(len(points), width + 1, width + 1)
    cross = leading.new_zeros(len(points), hidden + 1, width + 1)
    squares = leading.new_zeros(len(points), hidden + 1, hidden + 1)
    for batch in batches:
        batch = {name: value.to(model.device) for name, value in batch.items()}
        taps = model.run(batch, taps=TAPS)[1]
        for index, point in enumerate(points):
            norm, directions = norm_at(model, point.norm), _directions(point, leading).to(model.dtype)
            whole = with_ones(rows_read(model, point, taps, batch))
            cut = with_ones(rows_read(model, point, taps, batch, lambda x: _cut_states(x, norm, directions)))  # noqa: B023
            own[index] += (cut.T @ cut).double()
            cross[index] += (whole.T @ cut).double()
            squares[index] += (whole.T @ whole).double()
    return [Moments(*sums) for sums in zip(own, cross, squares, strict=True)]


def _directions(point: ReadPoint, leading: Tensor) -> Tensor:
    """Return the directions that stay of what is read at a point: of features, which are sorted, the first."""
    return torch.eye(*leading.shape, dtype=leading.dtype, device=leading.device) if point.tap == "features" else leading


def _cut_states(states: Tensor, norm: nn.LayerNorm | None, directions: Tensor) -> Tensor:
    """Return states [..., hidden] in the directions that stay [..., width]; normalized anew, without scale and shift.

    The mean and the deviation by which they were normalized are the same for all channels, and drop out.
    """
    if norm is None:
        return states @ directions
    plain = states if norm.bias is None else states - norm.bias
    plain = torch.where(norm.weight.abs() > 1e-12, plain / norm.weight, 0.0)
    return F.layer_norm(plain @ directions, (directions.shape[1],), eps=norm.eps)


def fit_norm(sums: Moments, directions: Tensor, *, bias: bool) -> tuple[Tensor, Tensor | None]:
    """Fit the scale and the shift of every channel of a norm to what the channel was, by least squares.

    Args:
        sums: Moments of the normalized channels that stay, without scale and shift.
        directions: These channels in terms of all [hidden, width].
        bias: Whether the norm has a shift.

    Returns:
        Scale and shift [width]; no shift where the norm has none. A channel that never changes becomes its mean.
    """
    wanted = directions.T @ sums.cross[:-1]  # [width, width + 1]
    products, total = wanted[:, :-1].diagonal(), wanted[:, -1]
    squares, given, count = sums.own.diagonal()[:-1], sums.own[-1, :-1], sums.own[-1, -1]
    if not bias:
        return products / squares.clamp_min(1e-300), None
    variation = squares - given.square() / count
    slope = (products - given * total / count) / variation.clamp_min(1e-300)
    # the products were summed in float32: what varies less cannot be told from their rounding
    scale = torch.where(variation > 1e-6 * squares, slope, 0.0)
    return scale, (total - scale * given) / count


def _solve_reader(
    linear: nn.Linear,
    sums: Moments,
    directions: Tensor,
    rows: int | None,
    validated: Regression | None,
    *,
    constants: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return weights and bias that read what stays, and give what the map gave before, by least squares.

    Args:
        linear: The map before the cut.
        sums: Moments of what it reads, as the cut model has it.
        directions: What stays, in terms of all channels [hidden, width].
        rows: Leading outputs to solve for; None for all.
        validated: The sums by which the damping is cross-validated; None for the least damping.
        constants: Whether to solve for the bias; if not, None stands for that of before.
    """
    weight = linear.weight[:rows].double()
    present, damping = weight @ directions, DAMPING
    if validated is not None:
        damping = validated.damping(weight, present, float(sums.own.diagonal().mean()))
    added = ridge(sums.own, damping)
    if not constants:
        products = weight @ sums.cross[:-1, :-1]
        return damped_solution(products, sums.own[:-1, :-1], present, added[:-1]), None
    bias = linear.bias[:rows].double()[:, None]
    products = torch.cat([weight, bias], 1) @ sums.cross
    solution = damped_solution(products, sums.own, torch.cat([present, bias], 1), added)
    return solution[:, :-1], solution[:, -1]


def _fit_distance_table(
    model: LimbeckForSequenceClassification, maps: Sequence[str], repairs: Repairs, leading: Tensor
) -> Tensor:
    """Return a table of embeddings of distances [bucket, width] that the repaired maps read as they read it before.

    Args:
        model: The model before the cut.
        maps: Paths of the maps of hidden states that read the table, too.
        repairs: The repaired maps.
        leading: The directions that stay [hidden, width].
    """
    assert model.encoder.relative is not None
    rows = model.encoder.relative.rows(model.shape.hidden, slice(None)).double()
    products = torch.zeros(len(rows), leading.shape[1], dtype=rows.dtype, device=rows.device)
    gram = torch.zeros(leading.shape[1], leading.shape[1], dtype=rows.dtype, device=rows.device)
    for path in maps:
        linear = linear_at(model, path)
        weight, bias = repairs[path]
        wanted = rows @ linear.weight.double().T
        if linear.bias is not None and bias is not None:
            wanted = wanted + (linear.bias.double() - bias)
        products += wanted @ weight
        gram += weight.T @ weight
    return damped_solution(products, gram, rows @ leading, 1e-6 * gram.diagonal().mean().expand(len(gram)))


def _write(model: LimbeckForSequenceClassification, repairs: Repairs) -> None:
    with torch.no_grad():
        for path, (weight, bias) in repairs.items():
            model.get_parameter(f"{path}.weight").copy_(weight)
            if bias is not None:
                model.get_parameter(f"{path}.bias").copy_(bias)
