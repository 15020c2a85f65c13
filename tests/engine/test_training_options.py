"""What the trainings of the main job are given, by the size of the data and by what the user says."""

from limbeck.core.task import Split, Task
from limbeck.engine.training_options import Training
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
