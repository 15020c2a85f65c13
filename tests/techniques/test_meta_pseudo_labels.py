from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.recipe.recipe import check, parse
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.meta_pseudo_labels import MetaPseudoLabels
from limbeck.train import loop as fit
from limbeck.train.loop import FitReport

SMALL = Shape.uniform(layers=1, hidden=32, heads=2, ffn=16, head_dim=8)
STILL = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
QUICK = {"num_train_epochs": 2, "learning_rate": 2e-3, "evaluations_per_epoch": 0, "per_device_train_batch_size": 16}


def candidate(build, kind="classification", shape=None, seed=0, rows=64, **style):
    task = toy_task(kind, train=rows, validation=48, test=24)
    tokenizer = toy_tokenizer(task)
    model = build(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), seed=seed, **style)
    return Candidate(model, tokenizer, task)


def lab_with(teacher, **services):
    return RunContext(teacher=Teacher("teacher", lambda: teacher), **services)


def weights(each):
    return {name: tensor.clone() for name, tensor in each.model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def score(each, split="validation"):
    encoded = encode(each.task, split, each.tokenizer)
    return each.task.score(predict(each.model, encoded), encoded.labels)


@pytest.mark.parametrize(
    "preset",
    [
        {},
        pytest.param(MetaPseudoLabels.info.presets["paper"], marks=pytest.mark.slow),
        pytest.param(MetaPseudoLabels.info.presets["teacher-finetune"], marks=pytest.mark.slow),
    ],
)
def test_a_student_learns_from_its_teacher_alone(make_model, preset):
    """Before any labels are shown to it: the fine-tuning at the end is left out."""
    teacher, student = (candidate(make_model, shape=shape, rows=256, seed=3, **STILL) for shape in (None, SMALL))
    list(Finetune.of(num_train_epochs=10, learning_rate=3e-3).apply(teacher, RunContext()))
    before = score(student)
    assert score(teacher) > 0.9
    step = MetaPseudoLabels.of(num_train_epochs=12, learning_rate=3e-3, finetune_epochs=0, **preset)
    logged = []
    (trained,) = step.apply(student, lab_with(teacher, log=lambda message, **numbers: logged.append(numbers)))
    assert trained.model is student.model
    assert score(trained) > max(0.75, before + 0.2)
    seen = [numbers for numbers in logged if "pseudo" in numbers]
    assert all({"pseudo", "teacher", "loss"} <= set(numbers) for numbers in seen)
    assert all(("feedback" in numbers) == (step.feedback != "off") for numbers in seen)


@pytest.mark.parametrize("kind", ["pairs", "multilabel", "regression", "tokens"])
def test_every_kind_of_task(make_model, kind):
    teacher, student = candidate(make_model, kind, seed=1), candidate(make_model, kind, SMALL, seed=2)
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    goal, before = predict(teacher.model, encoded), predict(student.model, encoded)
    step = MetaPseudoLabels.of(**{**QUICK, "num_train_epochs": 5}, finetune_epochs=0)
    (trained,) = step.apply(student, lab_with(teacher))
    after = predict(trained.model, encoded)

    def distance(logits):  # of the answers: a constant added to all classes changes none
        center = 1.0 if kind in ("pairs", "tokens") else 0.0
        moved = [a - b - center * (a - b).mean(-1, keepdims=True) for a, b in zip(logits, goal, strict=True)]
        return np.mean([abs(move).mean() for move in moved])

    assert distance(after) < distance(before)
    if kind in ("multilabel", "tokens"):
        step = MetaPseudoLabels.of(**QUICK, **MetaPseudoLabels.info.presets["paper"])
        list(step.apply(candidate(make_model, kind, SMALL), lab_with(candidate(make_model, kind, seed=1))))


def taught_by(build, student_seed, **options):
    """The teacher's weights after the training of a student."""
    teacher = candidate(build, seed=1, **STILL)
    student = candidate(build, shape=SMALL, seed=student_seed, **STILL)
    step = MetaPseudoLabels.of(**QUICK, finetune_epochs=0, teacher_learning_rate=1e-3, **options)
    list(step.apply(student, lab_with(teacher)))
    return weights(teacher)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, MetaPseudoLabels.info.presets["paper"]])
def test_the_student_is_heard_unless_feedback_is_off(make_model, options):
    """With feedback off the teacher becomes the same whoever its student is; with feedback it does not."""
    off = {**options, "feedback": "off"}
    assert same(taught_by(make_model, 2, **off), taught_by(make_model, 3, **off))
    assert not same(taught_by(make_model, 2, **options), taught_by(make_model, 3, **options))
    waits = {**options, "feedback_warmup_steps": 100}
    assert same(taught_by(make_model, 2, **waits), taught_by(make_model, 2, **off))


def test_texts_from_a_file_are_labeled_by_the_teacher_and_the_labels_stay_with_the_originals(
    make_model, tmp_path, monkeypatch
):
    teacher, student = candidate(make_model, seed=1), candidate(make_model, shape=SMALL)
    grown = ({"before": 40, "after": len(student.task.split("train"))},)
    student = replace(student, task=replace(student.task, history=grown))
    path = tmp_path / "more.txt"
    path.write_text("".join(f"so sunny film {'the ' * n}\n" for n in range(70)))
    seen, learn = [], fit.fit

    def spy(model, objective, encoded, plan, **options):
        labeled = len(objective.labeled.encoded) if hasattr(objective, "labeled") else None
        seen.append((len(encoded), labeled, plan.learning_rate, plan.num_train_epochs))
        return learn(model, objective, encoded, plan, **options)

    monkeypatch.setattr("limbeck.train.finetuning.fit", spy)
    logged = []
    log = lambda message, **numbers: logged.append(message)  # noqa: E731
    step = MetaPseudoLabels.of(**QUICK, unlabelled=str(path), finetune_epochs=3, finetune_learning_rate=1e-4)
    (trained,) = step.apply(student, lab_with(teacher, log=log))
    assert seen == [(70, 40, 2e-3, 2), (40, None, 1e-4, 3)]
    assert trained.task is student.task
    assert "40 texts with labels, 70 for pseudo labels; more.txt: 70 texts without labels" in logged


@pytest.mark.parametrize(("scores", "expected"), [((0.9, 0.8), 1), ((0.8, 0.9), 2), ((0.9, 0.9), 2), ((None, None), 2)])
def test_fine_tuning_that_harms_is_taken_back(make_model, monkeypatch, scores, expected):
    reports = iter(FitReport(best_score=score) for score in scores)

    def train(model, *given, **options):
        with torch.no_grad():
            model.classifier.bias.add_(1.0)
        return next(reports)

    monkeypatch.setattr("limbeck.train.finetuning.fit", train)
    student, messages = candidate(make_model, shape=SMALL), []
    before = student.model.classifier.bias.detach().clone()
    context = lab_with(candidate(make_model), log=lambda message, **numbers: messages.append(message))
    (trained,) = MetaPseudoLabels().apply(student, context)
    torch.testing.assert_close(trained.model.classifier.bias.detach(), before + expected)
    assert any("did not help" in message for message in messages) == (expected == 1)


class Killed(Exception):
    pass


@pytest.mark.slow
def test_killed_while_it_is_fine_tuned_and_resumed(make_model, tmp_path, monkeypatch):
    """Each of the two trainings has checkpoints of its own."""
    step = MetaPseudoLabels.of(**{**QUICK, "evaluations_per_epoch": 1}, finetune_epochs=2, save_seconds=0)

    def run(folder):
        student = candidate(make_model, shape=SMALL)
        (trained,) = step.apply(student, lab_with(candidate(make_model, seed=1), scratch=folder))
        return weights(trained)

    whole, seen, log = run(tmp_path / "whole"), [], fit._Loop._log

    def dies(loop, progress, terms):
        seen.append((loop.folder.name, progress.step))
        if seen[-1] == ("labels", 3):
            raise Killed
        log(loop, progress, terms)

    monkeypatch.setattr(fit._Loop, "_log", dies)
    with pytest.raises(Killed):
        run(tmp_path / "killed")
    monkeypatch.setattr(fit._Loop, "_log", log)
    assert same(run(tmp_path / "killed"), whole)


BAD = {
    "no teacher": (MetaPseudoLabels(), "classification", False, "put 'finetune' before it"),
    "hard numbers": (MetaPseudoLabels.of(pseudo_labels="argmax"), "regression", True, "a number has no hard labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_before_any_training(make_model, name):
    step, kind, teacher, message = BAD[name]
    student = candidate(make_model, kind)
    with pytest.raises(InputError, match=message):
        list(step.apply(student, lab_with(student) if teacher else RunContext()))


def test_another_vocabulary_is_refused(make_model):
    with pytest.raises(InputError, match="another vocabulary"):
        list(MetaPseudoLabels().apply(candidate(make_model), lab_with(candidate(make_model, "pairs"))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feedback": "reinforce"}, "feedback 'reinforce' of soft labels is nothing"),
        ({"feedback_average": 0.9}, "feedback_average belongs to feedback 'reinforce'"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps should be 1"),
        ({"unlabelled": "gone.txt"}, "unlabelled: gone.txt: there is no such file"),
        ({"preset": "teacher-finetun"}, "no preset called 'teacher-finetun'; did you mean 'teacher-finetune'?"),
    ],
)
def test_what_a_recipe_cannot_mean_is_told(fields, message):
    data = {"model": "m", "task": "t", "teacher": "t", "steps": [{"meta_pseudo_labels": fields}]}
    assert any(message in str(problem) for problem in check(data))


def test_a_preset_and_a_field_beside_it():
    data = {"meta_pseudo_labels": {"preset": "teacher-finetune", "teacher_learning_rate": 1e-6}}
    (step,) = parse({"model": "m", "task": "t", "steps": [data]}).steps
    assert step == MetaPseudoLabels.of(feedback="off", teacher_learning_rate=1e-6)


def test_its_cost_grows_with_both_trainings():
    shape, rows = Shape.uniform(layers=2, hidden=64, heads=2, ffn=64), {"train": 1000, "validation": 100}
    bare = MetaPseudoLabels.of(finetune_epochs=0).estimated_seconds(shape, rows, 20)
    assert 0 < Finetune.of(num_train_epochs=3).estimated_seconds(shape, rows, 20) < bare
    more = MetaPseudoLabels.of(finetune_epochs=3).estimated_seconds(shape, rows, 20)
    assert bare < more < 2 * bare


def test_several_processes_are_refused_before_any_work(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert MetaPseudoLabels().file_problems() == [
        "trains two models in turn, which one process alone can; 2 were started"
    ]


def test_options_without_effect_are_refused():
    for fields, name in (
        ({"feedback": "off", "feedback_warmup_steps": 5000}, "feedback_warmup_steps"),
        ({"feedback": "off", "feedback_weight": 10.0}, "feedback_weight"),
        ({"finetune_epochs": 0.0, "finetune_learning_rate": 1e-4}, "finetune_learning_rate"),
        ({"unlabelled_columns": ("text",)}, "unlabelled_columns"),
    ):
        (problem,) = MetaPseudoLabels.of(**fields).problems()
        assert problem.startswith(f"{name}: has no effect")
