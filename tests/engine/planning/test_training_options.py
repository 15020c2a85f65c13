"""What the trainings of the main job are given, by the size of the data and by what the user says."""

import pytest

from limbeck.core.kinds import find
from limbeck.core.task import Split, Task
from limbeck.engine.planning.training_options import Training, loss_of
from limbeck.train.config import TrainingConfig


def task(rows, labels=2):
    names = tuple(f"label{index}" for index in range(labels))
    split = Split(tuple(map(str, range(rows))), tuple(row % labels for row in range(rows)))
    return Task("toy", "classification", {"train": split}, names, "accuracy")


def test_many_texts_need_nothing():
    assert Training().finetune(task(10_000), 3) == TrainingConfig(num_train_epochs=3)


def test_few_texts_are_passed_more_often():
    assert Training().finetune(task(400), 3) == TrainingConfig(num_train_epochs=3, min_steps=300)
    assert Training().shared(task(3000, labels=150), 2) == TrainingConfig(min_steps=1500)
    assert Training(min_steps=0).finetune(task(400), 3) == TrainingConfig(num_train_epochs=3)


def test_what_the_user_says_wins():
    options = Training(epochs=8, learning_rate=1e-4, early_stopping_patience=3)
    expected = TrainingConfig(num_train_epochs=8, early_stopping_patience=3, learning_rate=1e-4)
    assert options.finetune(task(10_000), 3) == expected


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        ("embedding", (0.0, 5.0), {}),
        ("embedding", (1.0, 1.0), {"pair_loss": "contrastive"}),
        ("rerank", ((0, 1.0, 1.0), (0, 0.0, 1.0)), {}),
        ("rerank", ((0, 2.0, 1.0), (0, 0.0, 1.0)), {}),
        ("rerank", ((0, 0.7, 1.0), (0, 0.2, 1.0)), {"rank_loss": "pointwise"}),
        ("rerank", ((0, 0.7, 1.0), (0, 0.0, 1.0)), {"rank_loss": "pointwise"}),
        ("rerank", ((0, 3.0, 1.0), (0, -2.0, 1.0)), {"rank_loss": "pointwise"}),
        ("classification", (0, 1), {}),
    ],
)
def test_labels_that_the_usual_loss_cannot_learn_have_another(kind, labels, expected):
    train = Split(("first", "second"), labels, ("third", "fourth"))
    names = ("no", "yes") if kind == "classification" else ()
    assert loss_of(Task("toy", kind, {"train": train}, names, find(kind).default_metric)) == expected
