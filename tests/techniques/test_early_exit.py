"""The technique of early exits, from training to an exported model."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.kinds import KINDS
from limbeck.core.measurement import EARLY_EXITS
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher, find, problems_of
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.recipe.recipe import check
from limbeck.techniques.early_exit import EarlyExit
from limbeck.techniques.export import Export
from limbeck.techniques.quantize import Quantize
from limbeck.train.early_exits import head_answers

SHAPE = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
QUICK = {"num_train_epochs": 2, "learning_rate": 3e-3, "max_changed": 40}


def toy_candidate(build, shape=SHAPE, seed=0, kind="classification"):
    task = toy_task(kind, train=64, validation=48, test=24)
    tokenizer = toy_tokenizer(task)
    model = build(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), seed=seed)
    return Candidate(model, tokenizer, task)


@pytest.mark.parametrize("taught", [True, False])
def test_it_leaves_early_exports_and_quantizes(make_model, tmp_path, taught):
    teacher = toy_candidate(make_model, seed=1)
    context = RunContext(scratch=tmp_path, teacher=Teacher("t", lambda: teacher) if taught else None)
    (exiting,) = EarlyExit.of(**QUICK).apply(toy_candidate(make_model), context)
    (fact,) = exiting.facts
    assert fact.name == EARLY_EXITS
    assert fact.detail["layers"] == [1, 2]
    assert exiting.model.leaves_early
    assert 0 < fact.value <= 1
    (exported,) = Export(parity_texts=48).apply(exiting, context)
    assert exported.model.leaves_early
    (small,) = Quantize().apply(exported, context)
    encoded = encode(exiting.task, "test", exiting.tokenizer)
    answers = [predict(each.model, encoded, 1) for each in (exiting, exported, small)]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
    assert (answers[2].argmax(-1) == answers[0].argmax(-1)).mean() > 0.7
    assert small.model.leaves_early


def test_without_labels_it_names_a_cure_that_it_has():
    (cure,) = EarlyExit.of(**QUICK).label_problems(KINDS["classification"]).values()
    assert cure.endswith("; use task_weight: 0")
    assert not EarlyExit.of(**QUICK, task_weight=0).label_problems(KINDS["classification"])


def test_the_teachers_answers_reach_every_head(make_model):
    teacher = toy_candidate(make_model, seed=1)
    context = RunContext(teacher=Teacher("t", lambda: teacher))
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    goal = predict(teacher.model, encoded)

    def distances(rate):
        fields = QUICK | {"num_train_epochs": 4, "learning_rate": rate, "task_weight": 0.0, "logits_loss": "mse"}
        (exiting,) = EarlyExit.of(**fields, evaluations_per_epoch=0).apply(toy_candidate(make_model, seed=2), context)
        return np.abs(head_answers(exiting.model, encoded) - goal).mean((1, 2))

    assert (distances(3e-3) < 0.8 * distances(1e-12)).all()


def test_places_of_heads():
    step = EarlyExit()
    assert [step._exit_layers(depth) for depth in (2, 3, 6, 12)] == [(1,), (1, 2), (2, 4), (4, 8)]
    assert step.shape_after(SHAPE) == SHAPE
    assert step.shape_after(Shape.uniform(layers=1, hidden=8, heads=2, ffn=8)) is None
    assert EarlyExit.of(layers=(3,)).shape_after(SHAPE) is None


@pytest.mark.parametrize(
    ("fields", "layers", "reason"),
    [
        ({}, 1, "a head stands before the last layer, and the model has 1"),
        ({"layers": (1, 3)}, 3, "the model has 3 layers, so a head stands after at most 2, got 3"),
        ({"criterion": "patience"}, 2, "patience compares heads, and there is one, after 1 layers"),
        ({"task_weight": 0.0}, 3, "has no teacher, and task_weight is 0"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(make_model, monkeypatch, fields, layers, reason):
    monkeypatch.setattr("limbeck.train.finetuning.train_on_task", lambda *_: pytest.fail("trained"))
    candidate = toy_candidate(make_model, Shape.uniform(layers=layers, hidden=32, heads=4, ffn=64))
    with pytest.raises(InputError, match=reason):
        list(EarlyExit.of(**fields).apply(candidate, RunContext()))


def test_impossible_heads_are_out_of_reach_before_the_fine_tuning(make_model):
    for fields, layers, expected in (
        ({"layers": (8,)}, 6, "layers: the model has 6 layers, so a head stands after at most 5, got 8"),
        ({"criterion": "patience"}, 2, "patience compares heads, and there is one, after 1 layers"),
        ({}, 1, "a head stands before the last layer, and the model has 1"),
        ({"criterion": "patience"}, 3, None),
    ):
        candidate = toy_candidate(make_model, Shape.uniform(layers=layers, hidden=8, heads=2, ffn=8))
        reason = EarlyExit.of(**fields).out_of_reach(candidate, RunContext())
        assert reason == expected or reason.startswith(expected)


def test_fields_that_do_not_go_together():
    assert "ascending and differ" in problems_of(EarlyExit.of(layers=(2, 1)))[0]
    assert "at least two" in problems_of(EarlyExit.of(layers=(2,), criterion="patience"))[0]
    assert problems_of(EarlyExit.of(layers=(1, 2), criterion="patience")) == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_one_class_for_a_text(kind):
    problems = EarlyExit().kind_problems(KINDS[kind])
    assert bool(problems) == (kind != "classification")
    if problems:
        assert "is sure of one class for a text" in problems[""]


def test_nothing_that_trains_follows():
    def problems(*steps):
        return [str(each) for each in check({"model": "bert", "task": "movie-reviews", "steps": list(steps)})]

    first, last = ({"finetune": {}}, {"early_exit": {}}), ({"export": {}}, {"quantize": {}}, {"quality": {}})
    assert problems(*first, *last) == []
    assert problems(*first, {"augment": {}}, *last) == []
    (problem,) = problems(*first, {"distill": {}}, *last)
    assert problem.startswith("steps[2] distill: would change the weights that the threshold of early exits")
    assert len(problems(*first, {"fork": [[{"prune": {"keep": 0.5}}], []]}, {"early_exit": {}}, *last)) == 2


def test_a_slice_of_a_super_network_is_none_afterwards(make_model):
    candidate = toy_candidate(make_model)
    candidate.model.config.space = {"layers": [1, 3]}
    (exiting,) = EarlyExit.of(**QUICK).apply(candidate, RunContext())
    assert exiting.model.space is None
    assert "elastic" in find("early_exit").info.drops


def test_a_target_of_a_fixed_length_is_refused():
    recipe = {"model": "bert", "task": "movie-reviews", "target": {"seq_len": 64}, "steps": [{"early_exit": {}}]}
    (problem,) = map(str, check(recipe))
    assert "steps[0].early_exit: answers a text by what it says, and 'seq_len: 64' repeats the tokens" in problem
    assert check(recipe | {"target": {"batch": 2}}) == []
