from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.benchmark.grid import narrowed
from limbeck.core.candidate import Candidate
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.step import RunContext
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.pruning.subnetwork import extract
from limbeck.search.subnet_scores import SliceScores
from limbeck.techniques.student_init import StudentInit
from limbeck.techniques.weight_sharing import WeightSharing

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
LEARN = {"num_train_epochs": 12, "learning_rate": 3e-3, "per_device_train_batch_size": 16}


def candidate(make_model, shape=FULL, train=96):
    task = toy_task(train=train, validation=40, test=8)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(shape, labels=3, vocab_size=len(tokenizer)), tokenizer, task)


def trained(step, parent, seed=0):
    (child,) = step.apply(parent, RunContext(seed=seed))
    return child


@pytest.mark.parametrize("rule", [pytest.param("sandwich", marks=pytest.mark.slow), "single"])
def test_every_slice_learns_the_task(make_model, rule):
    shared = trained(
        WeightSharing.of(layers=(1, 2, 3), heads=(2, 2, 4), rule=rule, **LEARN), candidate(make_model, train=256)
    )
    shapes = [Shape.uniform(1, 32, 2, 64, head_dim=8), Shape.uniform(2, 32, 2, 64, head_dim=8), FULL]
    assert min(SliceScores(shared)(shapes)) > 0.8


def test_slices_learn_numbers_of_any_size(make_model):
    task = toy_task("regression", train=128, validation=40, test=8)
    labels = [250_000.0 + 40_000.0 * label for label in task.split("train").labels]
    task = replace(task, splits={**task.splits, "train": replace(task.split("train"), labels=tuple(labels))})
    tokenizer = toy_tokenizer(task)
    model = make_model(FULL, labels=1, kind="regression", vocab_size=len(tokenizer))
    step = WeightSharing.of(layers=(1, 3), **{**LEARN, "num_train_epochs": 4})
    shared = trained(step, Candidate(model, tokenizer, replace(task, splits={"train": task.split("train")})))
    encoded = encode(shared.task, "train", tokenizer)
    for shape in step.shapes(FULL).shapes:
        answers = predict(extract(shared.model, shape), encoded)[:, 0]
        assert abs(answers.mean() - np.mean(labels)) < np.std(labels)


def test_what_no_slice_uses_is_cut_away_first(make_model):
    shared = trained(WeightSharing.of(layers=(2, 1), ffn=(16,), num_train_epochs=1), candidate(make_model, train=8))
    assert shared.model.shape == Shape.uniform(2, 32, 4, 16)


def test_every_shape_of_the_list_is_trained_and_no_other(make_model, monkeypatch):
    seen = set()
    parent = candidate(make_model, train=64)
    run = type(parent.model).run
    monkeypatch.setattr(
        type(parent.model), "run", lambda self, batch, **how: (seen.add(how.get("shape")), run(self, batch, **how))[1]
    )
    step = WeightSharing.of(layers=(1, 2, 3), hidden=(32, 16, 24), num_train_epochs=8, per_device_train_batch_size=16)
    trained(step, parent)
    assert seen == set(step.shapes(FULL).shapes)


@pytest.mark.parametrize("approach", ["head_num", "head_size_1", "head_size_2"])
def test_a_student_of_a_shared_model_is_its_slice_also_when_opened_again(make_model, make_batch, tmp_path, approach):
    small = narrowed(FULL, 0.5, approach)
    lists = {"heads": (small.layers[0].heads, 4), "head_dim": (small.head_dim, 8)}
    resplit = approach == "head_size_2"
    shared = trained(WeightSharing.of(**lists, resplit=resplit, num_train_epochs=1), candidate(make_model, train=8))
    save_model(shared.model, shared.tokenizer, tmp_path)
    shared = Candidate(open_model(tmp_path, task=shared.task)[0], shared.tokenizer, shared.task)
    batch = make_batch(vocabulary=20)
    with torch.no_grad():
        expected = shared.model.run(batch, shape=small)[0]
        student = StudentInit(heads=small.layers[0].heads, head_dim=small.head_dim, init="slice")
        torch.testing.assert_close(trained(student, shared).model.run(batch)[0], expected)


def test_one_shape_is_trained_once_a_step(make_model):
    logged = []
    step = WeightSharing.of(layers=(2,), num_train_epochs=1)
    (shared,) = step.apply(
        candidate(make_model, train=8), RunContext(log=lambda text, **numbers: logged.append(numbers))
    )
    assert shared.model.shape.depth == 2
    assert not any("slice_task" in numbers for numbers in logged)


BAD = {
    "nothing": ({}, "give the shapes"),
    "unequal": ({"layers": (1, 2), "heads": (1, 2, 3)}, "equally long.*layers has 2, heads has 3"),
    "deeper": ({"layers": (1, 4)}, "4 is more than the model's 3"),
    "wider": ({"hidden": (64,)}, "larger than the model"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_shared(make_model, case):
    fields, message = BAD[case]
    with pytest.raises(InputError, match=message):
        trained(WeightSharing.of(**fields), candidate(make_model, train=8))


def test_slices_that_no_student_could_be_are_refused_before_the_training(make_model):
    parent = candidate(make_model, train=8)
    model = make_model(FULL, labels=3, embedding_size=16)
    with pytest.raises(InputError, match="as wide as its embeddings"):
        trained(WeightSharing.of(hidden=(32, 16), **LEARN), replace(parent, model=model))


def test_the_outlook_is_what_comes_out():
    expected = Shape(32, 8, (LayerShape(4, 16), LayerShape(4, 8)))
    assert WeightSharing.of(layers=(1, 2), ffn=(16, 8)).shape_after(FULL) == expected
    assert WeightSharing.of(layers=(9,)).shape_after(FULL) is None
