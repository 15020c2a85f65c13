from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.analytic_cost import bytes as bytes_of
from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext, Teacher
from limbeck.core.target import Target
from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.data.tokenizer_training import word_pieces
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.mlm_head import language_head
from limbeck.techniques.distill import Distill
from limbeck.techniques.export import Export
from limbeck.techniques.linearize import Linearize
from limbeck.techniques.prune import Prune
from limbeck.techniques.quantize import Quantize
from limbeck.techniques.supernet import Supernet
from limbeck.techniques.vocabulary import Vocabulary

KINDS = ("classification", "pairs", "multilabel", "regression", "tokens", "embedding", "rerank")


def candidate_for(make_model, kind="classification", words=word_pieces, train=30, **style):
    task = toy_task(kind, train=train, validation=16, test=16)
    tokenizer = words(task)
    model = make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), **style)
    return Candidate(model, tokenizer, task)


def made_by(step, candidate):
    messages = []
    (trimmed,) = step.apply(candidate, RunContext(log=lambda message, **_: messages.append(message)))
    return trimmed, messages


EPOCH = {"num_train_epochs": 1, "evaluations_per_epoch": 0}


@pytest.mark.parametrize(
    "step",
    [
        Distill.of(match=("logits", "hidden"), **EPOCH),
        Distill.of(match=("logits", "hidden"), cache_teacher=True, **EPOCH),
        Linearize.of(attention=("linformer:8",), alpha_output=1.0, alpha_layer=1.0, **EPOCH),
        Supernet.of(layers=(1, 2), heads=(1, 4), ffn=(32, 64), **EPOCH),
    ],
    ids=["distill", "distill-cached", "linearize", "supernet"],
)
def test_a_teacher_reads_the_tokens_of_a_student_with_fewer(make_model, step):
    """Learning from its inside with the whole vocabulary, and with the part that the texts use: the same student."""
    answers = []
    for trim in (False, True):
        student = candidate_for(make_model, seed=1)
        few = {**student.task.splits, "train": student.task.split("train").take(range(8))}
        student = replace(student, task=replace(student.task, splits=few))
        if trim:
            before = len(student.tokenizer)
            student, _ = made_by(Vocabulary(), student)
            assert len(student.tokenizer) < before
        teacher = Teacher("teacher", lambda: candidate_for(make_model, seed=2))
        (trained,) = step.apply(student, RunContext(teacher=teacher))
        answers.append(predict(trained.model, encode(trained.task, "train", trained.tokenizer)))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


@pytest.mark.parametrize("match", [("logits",), ("logits", "hidden")])
@pytest.mark.parametrize("cached", [False, True])
def test_a_teacher_labels_the_tokens_of_a_student_with_fewer(make_model, match, cached):
    """A class for every token: the answers, too, are of the student's tokens."""
    if cached and match == ("logits",):
        pytest.skip("nothing inside to keep")
    student, _ = made_by(Vocabulary(), candidate_for(make_model, "tokens", seed=1, train=6))
    teacher = candidate_for(make_model, "tokens", seed=2, train=30)
    assert len(student.tokenizer) < len(teacher.tokenizer)
    step = Distill.of(match=match, cache_teacher=cached, **EPOCH)
    (labeled,) = step.apply(student, RunContext(teacher=Teacher("teacher", lambda: teacher)))
    assert labeled.model.shape == student.model.shape


def test_kept_epochs_do_not_guide_a_student_with_fewer_tokens(make_model):
    student, _ = made_by(Vocabulary(), candidate_for(make_model, seed=1, train=6))
    teacher = Teacher("teacher", lambda: candidate_for(make_model, seed=2))
    step = Linearize.of(attention=("linformer:8",), guide="waypoint", **EPOCH)
    with pytest.raises(InputError, match="kept epochs read another vocabulary"):
        list(step.apply(student, RunContext(teacher=teacher)))


def words_of(split):
    """Every word of a split, both texts of a pair."""
    for text in (*split.texts, *(split.pairs or ())):
        yield from text.split() if isinstance(text, str) else text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("least", [1, 3])
def test_words_that_the_training_texts_use_often_enough_stay(kind, least, make_model):
    rows = 1 if kind == "embedding" else 6  # which has few words
    candidate = candidate_for(make_model, kind, toy_tokenizer, train=rows)
    task = candidate.task
    trimmed, _ = made_by(Vocabulary(least), candidate)
    counts = Counter(words_of(task.split("train")))
    frequent = {word for word, count in counts.items() if count >= least}
    ever = {word for split in task.splits.values() for word in words_of(split)}
    assert ever & set(trimmed.tokenizer.get_vocab()) == frequent | {word for word in ever if len(word) == 1}
    assert frequent < ever
    assert set(candidate.tokenizer.all_special_tokens) <= set(trimmed.tokenizer.get_vocab())


@pytest.mark.parametrize("kind", KINDS)
def test_training_texts_are_answered_as_before(kind, make_model):
    candidate = candidate_for(make_model, kind)
    before = predict(candidate.model, encode(candidate.task, "train", candidate.tokenizer), 8)
    trimmed, _ = made_by(Vocabulary(), candidate)
    after = predict(trimmed.model, encode(trimmed.task, "train", trimmed.tokenizer), 8)
    for logits, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(logits, other)
    assert len(trimmed.tokenizer) == trimmed.model.config.vocab_size <= candidate.model.config.vocab_size


def test_what_is_cut_off_does_not_count(make_model):
    candidate = candidate_for(make_model)
    short = replace(candidate, task=replace(candidate.task, max_length=5))
    sizes = [len(made_by(Vocabulary(), each)[0].tokenizer) for each in (candidate, short)]
    assert sizes[1] < sizes[0]


def test_it_tells_how_many_texts_are_read_as_before(make_model):
    candidate = candidate_for(make_model)
    trimmed, (message,) = made_by(Vocabulary(min_count=6), candidate)
    counts = Counter(word for ids in encode(candidate.task, "train", candidate.tokenizer).input_ids for word in ids)
    left = set(trimmed.tokenizer.get_vocab())
    stayed = sum(n for each, n in counts.items() if candidate.tokenizer.convert_ids_to_tokens(each) in left)
    pieces = [
        each.tokenize(text) for each in (candidate.tokenizer, trimmed.tokenizer) for text in validation_of(candidate)
    ]
    same = sum(each == other for each, other in zip(pieces[:16], pieces[16:], strict=True))
    assert 0 < same < 16
    assert message == (
        f"{len(left)} of {len(candidate.tokenizer)} tokens stay, {100 * stayed / counts.total():.2f} % of those in the "
        f"training texts; {100 * same / 16:.1f} % of 16 validation texts are read as before"
    )
    alone = replace(candidate, task=replace(candidate.task, splits={"train": candidate.task.split("train")}))
    assert made_by(Vocabulary(), alone)[1][0].endswith("100.00 % of those in the training texts")


def validation_of(candidate):
    return candidate.task.split("validation").texts


@pytest.mark.parametrize("kind", ["classification", "pairs", "tokens"])
def test_words_of_a_corpus_stay_too(kind, make_model, tmp_path):
    candidate = candidate_for(make_model, kind)
    lost = set(candidate.tokenizer.get_vocab()) - set(made_by(Vocabulary(8), candidate)[0].tokenizer.get_vocab())
    first, other, *_ = sorted(lost)
    corpus = tmp_path / "more.txt"
    corpus.write_text(f"{first} {other}\n\n" + f"{first}\n" * 8, encoding="utf-8")
    trimmed, (message,) = made_by(Vocabulary(8, str(corpus)), candidate)
    assert first in trimmed.tokenizer.get_vocab()
    assert other not in trimmed.tokenizer.get_vocab()
    assert "and the corpus" in message


def test_a_corpus_that_cannot_be_read_is_refused_before_any_work(make_model, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("naïve\n".encode("latin-1"))
    for name, fault in (
        ("latin.tx", "there is no such file; did you mean 'latin.txt'"),
        ("", "is a folder; a file is needed here"),
        ("empty.txt", "is empty"),
        ("latin.txt", "line 1: byte 0xef at position 3 of the line is not UTF-8"),
    ):
        step = Vocabulary(corpus=str(tmp_path / name))
        (problem,) = step.file_problems()
        assert problem.startswith("corpus: ")
        assert fault in problem
        with pytest.raises(InputError, match=r"^vocabulary\.corpus: "):
            list(step.apply(candidate_for(make_model), RunContext()))
    assert not Vocabulary().file_problems()


@pytest.mark.parametrize("embedding_size", [None, 16])
def test_what_comes_after_it(embedding_size, make_model, tmp_path):
    """Pruning to a size counts the smaller table; the model is saved, opened, exported and quantized as any other."""
    candidate = candidate_for(make_model, embedding_size=embedding_size, family="electra")
    rows = candidate.model.config.vocab_size
    trimmed, _ = made_by(Vocabulary(8), candidate)
    shape, labels = trimmed.model.shape, trimmed.task.num_labels
    sizes = [bytes_of(shape, each.model.encoder.style, "int8", labels) for each in (candidate, trimmed)]
    assert sizes[0] - sizes[1] == (rows - len(trimmed.tokenizer)) * (embedding_size or shape.hidden) > 0
    ((pruned,), (more,)) = (
        Prune.of(size_mb=0.018, ffn_multiple=1, samples=8).apply(each, RunContext()) for each in (trimmed, candidate)
    )
    assert shape.weights > pruned.model.shape.weights > more.model.shape.weights
    assert bytes_of(pruned.model.shape, pruned.model.encoder.style, "int8", labels) <= 18_000 < sizes[1]
    save_model(pruned.model, pruned.tokenizer, tmp_path / "saved")
    model, tokenizer = open_model(tmp_path / "saved", task=trimmed.task)
    again = Candidate(model, tokenizer, trimmed.task)
    assert model.config.vocab_size == len(tokenizer) == model.encoder.embeddings.word.weight.shape[0]
    (exported,) = Export(parity_texts=8).apply(again, RunContext(scratch=tmp_path / "export"))
    (quantized,) = Quantize().apply(exported, RunContext(scratch=tmp_path / "quantize"))
    encoded = encode(trimmed.task, "test", quantized.tokenizer)
    answers = [predict(each, encoded, 1) for each in (pruned.model, exported.model, quantized.model)]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
    assert (answers[2].argmax(-1) == answers[0].argmax(-1)).mean() > 0.7
    assert len(language_head(model, None)[0].bias) == len(tokenizer)


def test_of_documents_whose_vectors_are_compared_with_those_of_queries_all_tokens_stay(make_model):
    """Both have words of their own, in training and in validation."""
    queries, documents = ("what is red", "what is blue"), ("roses bloom here", "the sky at noon")
    rows = {name: Split(queries, (1.0, 1.0), documents) for name in ("train", "validation")}
    task = Task("pairs", "embedding", rows, (), "spearman", 16)
    tokenizer = toy_tokenizer(task)
    candidate = Candidate(make_model(kind="embedding", labels=0, vocab_size=len(tokenizer)), tokenizer, task)
    before = predict(candidate.model, encode(task, "train", tokenizer))
    trimmed, (message,) = made_by(Vocabulary(), candidate)
    assert set(trimmed.tokenizer.get_vocab()) == set(tokenizer.get_vocab())
    assert message.endswith("100.0 % of 4 validation texts are read as before")
    np.testing.assert_array_equal(predict(trimmed.model, encode(task, "train", trimmed.tokenizer)), before)
    few, (message,) = made_by(Vocabulary(min_count=2), candidate)
    assert {"what", "is"} <= set(few.tokenizer.get_vocab()) < set(tokenizer.get_vocab())
    assert message.endswith("0.0 % of 4 validation texts are read as before")


def test_only_results_of_texts_that_are_encoded_apart_have_another_key():
    keys = {kind: Vocabulary().decisive_services({}, toy_task(kind, train=4), Target()) for kind in KINDS}
    assert keys == {kind: {"second_texts": "counted"} if kind == "embedding" else {} for kind in KINDS}


def test_a_head_that_was_not_trained_yet_still_has_to_be(make_model):
    candidate = candidate_for(make_model)
    assert not made_by(Vocabulary(), candidate)[0].model.fresh_head
    candidate.model.fresh_head = True
    assert made_by(Vocabulary(), candidate)[0].model.fresh_head
