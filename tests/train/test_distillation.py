import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.data.batching import collate, encode
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.train.config import TrainingConfig
from limbeck.train.distillation import mean_answers, teacher_outputs, two_phases
from limbeck.train.distillation_losses import LogitLoss
from limbeck.train.layer_distillation import LayerDistillationConfig


def toy_candidate(build, kind="classification", shape=None, seed=0):
    task = toy_task(kind, train=64, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    model = build(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), seed=seed)
    return Candidate(model, tokenizer, task)


def test_the_first_phase_learns_the_inside_alone_and_the_second_the_answers():
    terms = {name: (1.0, None) for name in ("task", "logits", "hidden")}
    training = TrainingConfig(num_train_epochs=3, learning_rate=1e-4, weight_decay=0.1)
    (first, before, inside), (second, after, answers) = two_phases(terms, ("hidden", "relations"), training, 20, 5e-5)
    assert (first, list(inside), second, list(answers)) == (
        "intermediate",
        ["hidden"],
        "prediction",
        ["task", "logits"],
    )
    assert before == TrainingConfig(20, learning_rate=5e-5, weight_decay=0.1, evaluations_per_epoch=0)
    assert after == training


@pytest.mark.parametrize("kind", ["classification", "tokens", "multilabel"])
def test_several_teachers_are_averaged(make_model, kind):
    first, second = (toy_candidate(make_model, kind, seed=seed) for seed in (1, 2))
    student = toy_candidate(make_model, kind, Shape.uniform(layers=1, hidden=32, heads=2, ffn=16, head_dim=8), seed=3)
    answers = mean_answers(student, first, "teacher", RunContext(), [("second", second)])
    batch = collate(encode(first.task, "train", first.tokenizer), [4, 0, 7])
    with torch.no_grad():
        expected = (first.model.run(batch)[0] + second.model.run(batch)[0]) / 2
    if kind == "tokens":
        expected = expected * batch["attention_mask"][..., None]
    torch.testing.assert_close(answers(batch["index"]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache", [False, True])
def test_several_teachers_and_the_inside_of_one(make_model, tmp_path, cache):
    """Live or cached, the logits are the mean of both and the hidden states those of the first."""
    first, second = (toy_candidate(make_model, seed=seed) for seed in (1, 2))
    student = toy_candidate(make_model, seed=3)
    terms = {"logits": (1.0, LogitLoss("kl", 2.0, student.task.problem_type))}
    terms |= LayerDistillationConfig().terms(("hidden",), student, first, "distill")
    batch = collate(encode(first.task, "train", first.tokenizer), [4, 0, 7])
    context = RunContext(scratch=tmp_path)
    call = teacher_outputs(terms, student, first, "teacher", context, further=[("second", second)], cache=cache)
    outputs = call(batch, ["hidden"])
    with torch.no_grad():
        (one, taps), (two, _) = (model.run(batch, taps=("hidden",)) for model in (first.model, second.model))
    torch.testing.assert_close(outputs.logits, (one + two) / 2, rtol=1e-4, atol=1e-5)
    mask = batch["attention_mask"][..., None]
    for layer, states in enumerate(taps["hidden"]):
        torch.testing.assert_close(outputs.taps["hidden"][layer] * mask, states * mask, rtol=2e-3, atol=2e-3)
