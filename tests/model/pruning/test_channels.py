import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.model.pruning.channels import Statistics, channel_order, observe
from limbeck.model.pruning.importance import sample_labels
from limbeck.model.pruning.read_points import TAPS, ReadPoint, read_points, rows_read
from limbeck.model.pruning.reconstruction import ridge

FULL = Shape.uniform(layers=2, hidden=16, heads=2, ffn=24)


@pytest.mark.parametrize("kind", ["classification", "tokens"])
@pytest.mark.parametrize("style", [{}, {"norm_first": True}])
def test_gradients_are_those_of_the_readers_alone(make_model, make_batch, kind, style):
    """A change of what the maps of a point read, and nothing else: the residual sums do not see it."""
    model, batch = make_model(FULL, kind=kind, **style), make_batch(rows=4)
    points = read_points(model)
    mask = batch["attention_mask"].bool()
    first = mask & (torch.arange(9) % 2 == 1)  # of words of two tokens, which are answered by the first
    if model.per_token:
        batch["labels"] = torch.full_like(batch["input_ids"], -100).masked_fill(first, 1)
    statistics = observe(model, [batch], points, seed=3)
    for point, gram, sensitivity in zip(points, statistics.grams, statistics.sensitivities, strict=True):
        with torch.no_grad():
            logits, taps = model.run(batch, taps=TAPS)
            rows = rows_read(model, point, taps, batch)
        torch.testing.assert_close(gram[:-1, :-1].float(), rows.T @ rows, rtol=1e-4, atol=1e-4)
        assert float(gram[-1, -1]) == len(rows)
        if not point.judged:
            assert not sensitivity.any()
            continue
        pooled = point.tap == "hidden" and not model.per_token
        change = torch.zeros(len(mask), 16) if pooled else torch.zeros(*mask.shape, 16)
        change.requires_grad_()
        hooks = [
            model.get_submodule(path).register_forward_pre_hook(
                lambda module, inputs, change=change: inputs[0] + change
            )
            for path in point.maps
        ]
        labels = sample_labels(model, logits, batch, torch.Generator().manual_seed(3))
        loss = model.loss(model.run(batch)[0], labels) * (labels != -100).sum()
        (slope,) = torch.autograd.grad(loss, [change])
        for hook in hooks:
            hook.remove()
        slope = slope if pooled else slope[first if point.tap == "hidden" else mask]
        torch.testing.assert_close(sensitivity.float(), slope.T @ slope / len(slope), rtol=1e-3, atol=1e-5)


def random_statistics(points=3, hidden=7):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(points, 60, hidden + 1, generator=generator, dtype=torch.float64)
    inputs[..., -1] = 1.0
    gradients = torch.randn(points, 60, hidden, generator=generator, dtype=torch.float64)
    named = tuple(ReadPoint("attention_input", index, ("x",)) for index in range(points))
    return Statistics(named, tuple(x.T @ x for x in inputs), tuple(g.T @ g / 60 for g in gradients))


def loss_without(statistics, removed):
    """The nats lost when channels are predicted from the others, by solving for the predictions."""
    total, hidden = 0.0, len(statistics.grams[0]) - 1
    stay = [channel for channel in range(hidden + 1) if channel not in removed]
    for gram, sensitivity in zip(statistics.grams, statistics.sensitivities, strict=True):
        damped = gram + ridge(gram).diag()
        blocks = [damped[rows][:, columns] for rows in (removed, stay) for columns in (removed, stay)]
        error = blocks[0] - blocks[1] @ torch.linalg.solve(blocks[3], blocks[2])
        total += float((sensitivity[removed][:, removed] * error).sum()) / 2
    return total


def test_each_step_takes_the_channel_that_costs_least_and_costs_add_up():
    statistics = random_statistics()
    order = channel_order(statistics, 5)
    for count in range(1, 6):
        before = list(order.parts[: count - 1])
        losses = {c: loss_without(statistics, [*before, c]) for c in range(7) if c not in before}
        assert order.parts[count - 1] == min(losses, key=losses.__getitem__)
        assert order.lost[count] == pytest.approx(losses[order.parts[count - 1]])
    assert sorted(order.parts) == list(range(7))
    assert list(order.lost[6:]) == [order.lost[5]] * 2


def test_what_the_others_tell_goes_first():
    statistics = random_statistics()
    inputs = torch.randn(60, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs[:, 4], inputs[:, -1] = inputs[:, 0] - 2 * inputs[:, 2], 1.0
    same = Statistics(statistics.points, (inputs.T @ inputs,) * 3, statistics.sensitivities)
    assert channel_order(same, 1).parts[0] in (0, 2, 4)
    assert channel_order(same, 1).lost[1] < 1e-3 * channel_order(statistics, 1).lost[1]


def test_no_channel_at_all():
    order = channel_order(random_statistics(), 0)
    assert order.parts == tuple(range(7))
    assert not order.lost.any()
