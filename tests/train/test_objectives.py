import numpy as np
import torch

from limbeck.core.shape import Shape
from limbeck.train.distillation_losses import HiddenLoss, LogitLoss
from limbeck.train.objectives import LiveTeacher, Progress, Weighted, extra_modules
from limbeck.train.task_loss import TaskLoss

TEACHER = Shape.uniform(layers=4, hidden=32, heads=4, ffn=24)
STUDENT = Shape.uniform(layers=2, hidden=32, heads=4, ffn=16)


def test_weighted_sum_and_cached_teacher(make_model, make_batch):
    batch = make_batch() | {"index": torch.tensor([2, 0, 1])}
    student, teacher = make_model(STUDENT), make_model(TEACHER)
    table = np.zeros((3, 2), dtype=np.float32)
    table[[2, 0, 1]] = teacher.predict(batch)
    terms = {"task": (0.25, TaskLoss(student.loss)), "logits": (2.0, LogitLoss())}
    losses = [
        next(iter(Weighted(terms, LiveTeacher(teacher, logits))(student, batch, Progress(0, 1))))
        for logits in (None, lambda rows: torch.from_numpy(table[rows]))
    ]
    for loss in losses:
        expected = 0.25 * loss.terms["task"] + 2.0 * loss.terms["logits"]
        torch.testing.assert_close(loss.total.detach(), expected)
    torch.testing.assert_close(losses[0].total, losses[1].total)


def test_only_terms_with_parameters_are_trained_with_the_student():
    terms = {"logits": (1.0, LogitLoss()), "hidden": (1.0, HiddenLoss("mse", "uniform", (2, 4), (16, 32)))}
    assert list(extra_modules(Weighted(terms))) == ["hidden"]
    assert not extra_modules(lambda model, batch, progress: iter(()))
