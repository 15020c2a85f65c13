from __future__ import annotations

import pytest
import torch

from limbeck.model.pruning.damping import DAMPINGS, Regression
from limbeck.model.pruning.hidden_width import Moments
from limbeck.model.pruning.reconstruction import DAMPING, damped_solution, ridge

INPUTS, WIDTH, OUTPUTS = 48, 36, 20


def with_ones(rows):
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)


def problem(rows, seed=0):
    """Rows that share latent causes, as hidden states do, and a map that reads all of their channels."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    mixed, weight = normal(12, INPUTS), normal(OUTPUTS, INPUTS)
    x = normal(rows, 12) @ mixed + normal(rows, INPUTS) + 2
    return x, weight


def moments(x):
    whole, cut = with_ones(x), with_ones(x[:, :WIDTH])
    return Moments(cut.T @ cut, whole.T @ cut, whole.T @ whole)


def chosen(sums, weight, constants):
    diagonal = float(sums.own.diagonal().mean())
    return sums.regression(constants).damping(weight, weight[:, :WIDTH], diagonal)


def fitted(sums, weight, damping):
    """Weights and biases [outputs, width + 1]; the map had a bias of 0."""
    affine = torch.cat([weight, weight.new_zeros(OUTPUTS, 1)], 1)
    present = torch.cat([weight[:, :WIDTH], weight.new_zeros(OUTPUTS, 1)], 1)
    return damped_solution(affine @ sums.cross, sums.own, present, ridge(sums.own, damping))


def held_out_error(weights, x, weight):
    return float((with_ones(x[:, :WIDTH]) @ weights.T - x @ weight.T).square().mean())


@pytest.mark.parametrize("rows", [20, 44, 200])
@pytest.mark.parametrize("constants", [True, False])
def test_it_is_that_of_least_generalized_cross_validation_by_rows(rows, constants):
    """With the hat matrix of all rows, as Golub, Heath and Wahba write it."""
    x, weight = problem(rows)
    sums = moments(x)
    y = with_ones(x[:, :WIDTH])[:, : WIDTH + constants]
    left = x @ weight.T - x[:, :WIDTH] @ weight[:, :WIDTH].T  # what present weights leave
    scores = []
    for damping in DAMPINGS:
        added = ridge(sums.own, damping)[: WIDTH + constants]
        added[WIDTH:] = 0.0
        hat = y @ torch.linalg.solve(y.T @ y + added.diag(), y.T)
        scores.append(float((left - hat @ left).square().sum() / (rows - hat.trace()) ** 2))
    assert chosen(sums, weight, constants) == DAMPINGS[scores.index(min(scores))]


@pytest.mark.parametrize("seed", range(3))
def test_hardly_more_rows_than_unknowns_are_fitted_less_closely(seed):
    x, weight = problem(5000, seed)
    rows = int(1.2 * (WIDTH + 1))
    sums = moments(x[:rows])
    damping = chosen(sums, weight, True)
    error, fixed = (held_out_error(fitted(sums, weight, each), x[rows:], weight) for each in (damping, DAMPING))
    best = min(held_out_error(fitted(sums, weight, each), x[rows:], weight) for each in DAMPINGS)
    assert error < 0.7 * fixed
    assert error < 1.3 * best


def test_many_rows_are_fitted_as_before():
    x, weight = problem(60 * WIDTH)
    sums = moments(x)
    before, now = (fitted(sums, weight, each) for each in (DAMPING, chosen(sums, weight, True)))
    wanted = x @ weight.T
    error = (with_ones(x[:, :WIDTH]) @ (now - before).T).square().mean() / (wanted - wanted.mean(0)).square().mean()
    assert float(error) < 1e-4


def test_what_is_read_without_loss_is_not_damped_for_rounding():
    """Channels of nothing go: the residual is 0 but for rounding, whatever the damping."""
    x, weight = problem(200)
    x[:, WIDTH:] = x[:, : INPUTS - WIDTH]
    sums = moments(x)
    whole = with_ones(x).float()
    rounded = Moments(*(total.float().double() for total in (sums.own, sums.cross, (whole.T @ whole))))
    weights = fitted(rounded, weight, chosen(rounded, weight, True))
    wanted = x @ weight.T
    assert held_out_error(weights, x, weight) < 1e-4 * float((wanted - wanted.mean(0)).square().mean())


def test_a_single_row_leaves_the_weights_alone():
    x, weight = problem(1)
    sums = moments(x)
    weights = fitted(sums, weight, chosen(sums, weight, True))
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights[:, :WIDTH], weight[:, :WIDTH])


def test_maps_that_read_there_share_the_eigenvectors():
    sums = moments(problem(60)[0]).regression(True)
    assert isinstance(sums, Regression)
    assert sums.spectrum is sums.spectrum
    values, vectors = sums.spectrum
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, sums.own)
