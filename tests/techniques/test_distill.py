from functools import partial

import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import Lab, Teacher
from limbeck.data.batches import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.techniques.distill import Distill

SMALL = Shape.uniform(layers=1, hidden=32, heads=2, ffn=16, head_dim=8)


def toy_candidate(build, kind="classification", shape=None, seed=0, rows=64):
    task = toy_task(kind, train=rows, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    model = build(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), seed=seed)
    return Candidate(model, tokenizer, task)


def lab_with(teacher, **services):
    return Lab(teacher=Teacher("teacher", lambda: teacher), **services)


@pytest.mark.parametrize("kind", ["classification", "pairs", "multilabel", "regression", "tokens"])
def test_a_student_comes_nearer_to_its_teacher(make_model, kind):
    teacher = toy_candidate(make_model, kind, seed=1)
    student = toy_candidate(make_model, kind, SMALL, seed=2)
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    goal = predict(teacher.model, encoded)

    def distance():
        found = predict(student.model, encoded)
        return sum(float(abs(a - b).mean()) for a, b in zip(found, goal, strict=True))

    before = distance()
    step = Distill(num_train_epochs=4, learning_rate=3e-3, evaluations_per_epoch=0, logits_loss="mse")
    (made,) = step.apply(student, lab_with(teacher))
    assert made.model is student.model
    assert distance() < 0.8 * before


def test_the_teachers_logits_are_computed_once(make_model, tmp_path):
    teacher = toy_candidate(make_model, seed=1)
    built = []

    def keep(name, build):
        folder = tmp_path / name
        if not folder.exists():
            built.append(name)
            folder.mkdir()
            build(folder)
        return folder

    for seed in (0, 1):
        student = toy_candidate(make_model, shape=SMALL, seed=seed)
        list(Distill(num_train_epochs=1).apply(student, lab_with(teacher, keep=keep, seed=seed)))
    assert len(built) == 1
    assert teacher.task.fingerprint in built[0]


def test_two_phases_are_two_steps(make_model):
    """TinyBERT's intermediate phase is a step of its own without answers, its prediction phase one without the rest."""
    teacher = toy_candidate(make_model, seed=1)
    shape = Shape.uniform(layers=1, hidden=16, heads=4, ffn=16)
    made = {}
    for name in ("at once", "one by one"):
        student = toy_candidate(make_model, shape=shape, seed=2)
        inside, learn = {"match": ("hidden", "attention"), "shared_projection": True}, {"learning_rate": 1e-3}
        if name == "at once":
            phases = {"intermediate_epochs": 2, "intermediate_learning_rate": 2e-3, "num_train_epochs": 1}
            steps = [Distill(**inside | {"match": ("logits", "hidden", "attention")}, **phases, **learn)]
        else:
            first = Distill(**inside, num_train_epochs=2, learning_rate=2e-3, evaluations_per_epoch=0)
            steps = [first, Distill(match=("logits",), num_train_epochs=1, **learn)]
        for step in steps:
            (student,) = step.apply(student, lab_with(teacher))
        made[name] = student.model.state_dict()
    assert all(torch.equal(made["at once"][key], value) for key, value in made["one by one"].items())


def test_two_phases_need_something_for_each():
    assert Distill(intermediate_epochs=1).problems()
    assert Distill(intermediate_epochs=1, match=("hidden",)).problems()
    assert not Distill(intermediate_epochs=1, match=("hidden",), task_weight=1.0).problems()
    assert not Distill().problems()


def test_all_kinds_of_loss_together(make_model):
    teacher = toy_candidate(make_model, seed=1)
    student = toy_candidate(make_model, shape=Shape.uniform(layers=1, hidden=32, heads=4, ffn=16))
    told = []
    step = Distill(
        num_train_epochs=1,
        per_device_train_batch_size=4,
        match=("logits", "hidden", "attention", "relations"),
        task_weight=0.5,
    )
    list(step.apply(student, lab_with(teacher, log=lambda message, **numbers: told.append(numbers))))
    seen = next(numbers for numbers in told if "loss" in numbers)
    parts = ("task", "logits", "hidden", "attention", "relations")
    expected = sum(seen[name] * (0.5 if name == "task" else 1.0) for name in parts)
    assert seen["loss"] == pytest.approx(expected, rel=1e-4)


def test_hidden_states_of_another_width_pass_a_projection_that_is_trained(make_model):
    teacher = toy_candidate(make_model, seed=1)
    student = toy_candidate(make_model, shape=Shape.uniform(layers=2, hidden=16, heads=2, ffn=16))
    terms = Distill(match=("hidden",)).terms(student, teacher)
    projections = list(terms["hidden"][1].parameters())
    before = [p.detach().clone() for p in projections]
    step = Distill(match=("hidden",), num_train_epochs=1, learning_rate=1e-2)
    object.__setattr__(step, "terms", lambda *sides: terms)
    list(step.apply(student, lab_with(teacher)))
    assert all(not torch.equal(a, b) for a, b in zip(before, projections, strict=True))


def test_projections_depend_on_the_seed_alone(make_model):
    """Whatever the process did before: a resumed run must draw the same ones."""
    made = []
    for noise in (1, 2):
        teacher = toy_candidate(make_model, seed=1)
        student = toy_candidate(make_model, shape=Shape.uniform(layers=1, hidden=16, heads=2, ffn=16))
        torch.manual_seed(noise)
        (done,) = Distill(match=("hidden",), num_train_epochs=1).apply(student, lab_with(teacher, seed=3))
        made.append(done.model.state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_another_vocabulary_is_refused_where_tokens_are_shared(make_model):
    teacher, student = toy_candidate(make_model, seed=1), toy_candidate(make_model, "pairs", SMALL)
    with pytest.raises(InputError, match="another vocabulary"):
        list(Distill(match=("hidden",)).apply(student, lab_with(teacher)))


BAD = {
    "no teacher": (Distill(), SMALL, None, "put 'finetune' before it"),
    "heads differ": (Distill(match=("attention",)), SMALL, 1, "use match 'relations'"),
    "deeper": (
        Distill(match=("hidden",)),
        Shape.uniform(layers=3, hidden=32, heads=4, ffn=8),
        1,
        "3 layers, more than its teacher's 2",
    ),
    "relation heads": (Distill(match=("relations",), relation_heads=3), SMALL, 1, "does not divide .* use [24]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_before_any_training(make_model, name):
    step, shape, seed, message = BAD[name]
    build = partial(toy_candidate, make_model)
    lab = Lab() if seed is None else lab_with(build(seed=seed))
    with pytest.raises(InputError, match=message):
        list(step.apply(build(shape=shape), lab))
