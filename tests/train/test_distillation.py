import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.data.answers import by_word
from limbeck.data.batching import collate, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.data.tokenizer_training import SPECIAL_TOKENS, with_special_tokens
from limbeck.teachers.score_file import ScoreFile
from limbeck.train.config import TrainingConfig
from limbeck.train.distillation import mean_answers, teacher_outputs, two_phases
from limbeck.train.distillation_losses import LogitLoss
from limbeck.train.layer_distillation import LayerDistillationConfig
from limbeck.train.objectives import Outputs


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
    ((name, _, _),) = two_phases({"logits": (1.0, None)}, ("hidden", "relations"), training, 20, 5e-5)
    assert name == "prediction", "no phase is empty"


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
        (logits, taps), (other_logits, _) = (
            model.run(batch, taps=("hidden",)) for model in (first.model, second.model)
        )
    torch.testing.assert_close(outputs.logits, (logits + other_logits) / 2, rtol=1e-4, atol=1e-5)
    mask = batch["attention_mask"][..., None]
    for layer, states in enumerate(taps["hidden"]):
        torch.testing.assert_close(outputs.taps["hidden"][layer] * mask, states * mask, rtol=2e-3, atol=2e-3)


def pieces_tokenizer(task, size):
    """Cut words into pieces of so many letters, so that teacher and student have other tokens."""
    words = sorted({word for split in task.splits.values() for text in split.texts for word in text})
    pieces = [word[at : at + size] for word in words for at in range(0, len(word), size)]
    vocabulary = dict.fromkeys([*SPECIAL_TOKENS, *pieces, *(f"##{piece}" for piece in pieces)])
    tokenizer = Tokenizer(WordPiece({piece: index for index, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return with_special_tokens(tokenizer, task.max_length)


def test_a_file_of_scores_of_words_teaches_what_its_live_teacher_does(make_model, tmp_path):
    """Also where the teacher has other tokens and cuts long texts: those words are left out of the loss."""
    task = toy_task("tokens", train=48, validation=8, test=8)
    student = toy_candidate(make_model, "tokens", seed=3)
    teacher_tokenizer = pieces_tokenizer(task, 1)
    model = make_model(labels=3, kind="tokens", vocab_size=len(teacher_tokenizer), seed=1)
    teacher = Candidate(model, teacher_tokenizer, task)
    student = Candidate(student.model, toy_tokenizer(task), task)
    encoded = encode(task, "train", teacher_tokenizer)
    logits = by_word(predict(model, encoded), encoded.first_pieces)
    rows = [
        {"words": list(text), "logits": [None if np.isnan(word).any() else list(map(float, word)) for word in row]}
        for text, row in zip(task.split("train").texts, logits, strict=True)
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = []
    live, file = (
        mean_answers(student, source, name, RunContext(log=notes.append))
        for name, source in (("live", teacher), ("file", Candidate(ScoreFile(path, task), None, task)))
    )
    unseen = sum(np.isnan(row).any(1).sum() for row in logits)
    assert unseen > 0
    assert notes == [f"distill: {unseen} words have no answer of the teacher and are left out of its loss"] * 2
    loss = LogitLoss("kl", 2.0, task.problem_type)
    batches = encode(task, "train", student.tokenizer)
    for rows in ([4, 0, 7], list(range(20, 40))):
        batch = collate(batches, rows)
        output = Outputs(student.model.run(batch)[0], {})
        first, second = (loss(output, Outputs(read(batch["index"]), {}), batch) for read in (live, file))
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(first, reference_loss(output.logits, logits, batches, rows), rtol=1e-4, atol=1e-5)


def reference_loss(student, teacher, encoded, rows):
    """The KL divergence at a temperature of 2, word by word."""
    losses = []
    for logits, row in zip(student, rows, strict=True):
        for word, position in enumerate(encoded.first_pieces[row]):
            target = torch.tensor(teacher[row][word])
            if position is None or target.isnan().any():
                continue
            own, wanted = (torch.log_softmax(side / 2, -1) for side in (logits[position], target))
            losses.append(4 * (wanted.exp() * (wanted - own)).sum())
    return torch.stack(losses).mean()
