import torch

from limbeck.core.shape import Shape
from limbeck.model.pruning.reconstruction import collect, put, repaired, solve
from limbeck.model.pruning.slicing import Cut, slice_to

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=24)


def test_solve_is_least_squares():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    x[:, 5] = x[:, 0] + 0.1 * x[:, 5]  # what is cut can be told from what stays
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, generator=generator, dtype=torch.float64)
    ones = torch.cat([x, torch.ones(200, 1, dtype=torch.float64)], 1)
    retained = torch.tensor([0, 2, 3])
    new_weight, new_bias = solve(weight, bias, ones.T @ ones, retained, damping=0.0)
    reference = torch.linalg.lstsq(ones[:, [0, 2, 3, 6]], x @ weight.T + bias).solution
    torch.testing.assert_close(torch.cat([new_weight, new_bias[:, None]], 1), reference.T)


def test_a_map_without_bias_gets_none():
    x = torch.randn(80, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 2
    weight, retained = torch.arange(15, dtype=torch.float64).view(3, 5), torch.tensor([1, 4])
    ones = torch.cat([x, torch.ones(80, 1, dtype=torch.float64)], 1)
    new_weight, new_bias = solve(weight, None, ones.T @ ones, retained, damping=0.0)
    torch.testing.assert_close(new_weight, torch.linalg.lstsq(x[:, retained], x @ weight.T).solution.T)
    assert new_bias is None


def test_nothing_kept_gives_the_mean_output():
    x = torch.randn(50, 4, dtype=torch.float64)
    weight, bias = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    ones = torch.cat([x, torch.ones(50, 1, dtype=torch.float64)], 1)
    new_weight, new_bias = solve(weight, bias, ones.T @ ones, torch.tensor([], dtype=torch.long))
    assert new_weight.shape == (2, 0)
    torch.testing.assert_close(new_bias, (x @ weight.T + bias).mean(0))


def test_repair_brings_the_cut_model_nearer(make_model, make_batch):
    batches = [make_batch(rows=16, seed=s) for s in range(4)]
    full = make_model(FULL)
    cut = Cut((0, 1), ((0, 1), (1, 2, 3)), (tuple(range(12)), tuple(range(6, 24))))
    plain = slice_to(make_model(FULL), cut)
    model = make_model(FULL)
    weights = repaired(model, cut, collect(model, batches))
    slice_to(model, cut)
    put(model, weights)

    def error(other):
        with torch.no_grad():
            return sum(
                float((other.run(b, taps=("hidden",))[0] - full.run(b, taps=("hidden",))[0]).square().sum())
                for b in batches
            )

    assert error(model) < 0.8 * error(plain)
