import pytest
import torch

from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.model.pruning.subnetwork import extract
from limbeck.train.distillation_losses import LogitLoss, RelationLoss
from limbeck.train.objectives import LiveTeacher, Outputs, Progress
from limbeck.train.supernet_loss import LastHidden, SandwichLoss

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SPACE = Space(Range(1, 3), Range(16, 32, 16), Range(1, 4), Range(32, 64, 32), Range(8, 8), per_layer=True)


def elastic(teacher, **options):
    terms = {
        "logits": (1.0, LogitLoss()),
        "hidden": (0.5, LastHidden(32, 32, 3)),
        "relations": (1.0, RelationLoss(8, -1, 2)),
    }
    return SandwichLoss(terms, LiveTeacher(teacher), SPACE, **options)


def test_slices_depend_on_seed_and_step_alone(make_model):
    teacher = make_model(FULL)
    first, other = elastic(teacher, seed=3), elastic(teacher, seed=3)
    assert [first.shapes(step) for step in range(5)] == [other.shapes(step) for step in range(5)]
    assert first.shapes(1) != first.shapes(2)
    assert first.shapes(0)[0] == SPACE.largest
    assert first.shapes(0)[-1] == SPACE.smallest
    assert len(elastic(teacher, rule="single", samples=1).shapes(0)) == 1


def test_the_loss_is_the_mean_of_those_of_the_slices(make_model, make_batch):
    """Each as if the slice were a model of its own."""
    model, teacher, batch = make_model(FULL, seed=1), make_model(FULL, seed=2), make_batch()
    objective = elastic(teacher)
    with torch.no_grad():
        losses = list(objective(model, batch, Progress(4, 10)))
        guide = Outputs(*teacher.run(batch, taps=("hidden", "key", "query", "value")))
        for shape, loss in zip(objective.shapes(4), losses, strict=True):
            small = extract(model, shape)
            student = Outputs(*small.run(batch, taps=("hidden", "key", "query", "value")))
            expected = sum(weight * term(student, guide, batch) for weight, term in objective.terms.values())
            torch.testing.assert_close(loss.total, expected / 4)


def test_in_place_the_others_learn_from_the_largest(make_model, make_batch):
    """A teacher that says something else changes the first loss alone."""
    model, batch = make_model(FULL, seed=1), make_batch()
    totals = []
    for seed in (2, 3):
        terms = {"logits": (1.0, LogitLoss())}
        objective = SandwichLoss(terms, LiveTeacher(make_model(FULL, seed=seed)), SPACE, in_place=True)
        with torch.no_grad():
            totals.append([float(loss.total) for loss in objective(model, batch, Progress(0, 1))])
    assert totals[0][0] != pytest.approx(totals[1][0])
    assert totals[0][1:] == pytest.approx(totals[1][1:])


def test_a_copy_of_the_teacher_has_nothing_to_learn(make_model, make_batch):
    teacher, batch = make_model(FULL), make_batch()
    with torch.no_grad():
        largest = next(iter(elastic(teacher)(teacher, batch, Progress(0, 1))))
    assert float(largest.total) == pytest.approx(0.0, abs=1e-6)
