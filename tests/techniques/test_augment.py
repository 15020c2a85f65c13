from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from limbeck.augmentation import pos_taggers as taggers
from limbeck.augmentation.transforms import replaceable
from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import build, changed
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher, problems_of
from limbeck.data.synthetic import FILLERS, MOODS, toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.techniques.augment import Augment

KINDS = ("classification", "pairs", "multilabel", "regression", "tokens")


def candidate_for(make_model, kind="classification", **rows):
    task = toy_task(kind, **{"train": 20, "validation": 8, "test": 8, **rows})
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer))
    return Candidate(model, tokenizer, task)


def augment(**fields):
    """The step from flat fields, as recipes give them."""
    return build(Augment, fields)


def augmented(step, candidate, tmp_path=None, **services):
    (child,) = step.apply(candidate, RunContext(scratch=tmp_path, **services))
    assert child.model is candidate.model
    return child.task


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ngram", "tinybert"])
def test_both_methods_on_every_kind_of_task(kind, method, make_model):
    candidate = candidate_for(make_model, kind)
    step = augment(method=method, n_iter=3) if method == "ngram" else augment(method=method, samples=3)
    task = augmented(step, candidate)
    assert len(task.split("train")) > 30
    (entry,) = task.history
    assert entry["title"] == "Augmented texts"
    left = entry["counts"]["originals kept but not rewritten, for they stand in validation or test"]
    assert entry["counts"]["samples drawn"] == (20 - left) * 3 * (2 if kind == "pairs" else 1)
    if kind == "tokens":
        for words, labels in zip(task.split("train").texts, task.split("train").labels, strict=True):
            assert len(words) == len(labels)


def test_the_task_remembers_its_mask(make_model):
    candidate = candidate_for(make_model)
    assert augmented(augment(n_iter=2), candidate).mask_token == "[MASK]"
    assert augmented(augment(method="tinybert", samples=2), candidate).mask_token is None


def test_a_guard_of_another_vocabulary_reads_its_own_mask(make_model):
    candidate = candidate_for(make_model)
    other = toy_tokenizer(candidate.task)
    other.add_special_tokens({"mask_token": "<mask>"})
    seen = []

    class Reads(Sure):
        def predict(self, batch):
            seen.extend(batch["input_ids"].flatten().tolist())
            return super().predict(batch)

    teacher = Teacher("t", lambda: Candidate(Reads(), other, candidate.task))
    augmented(augment(n_iter=3, guard="drop"), candidate, teacher=teacher)
    assert other.mask_token_id in seen
    assert candidate.tokenizer.mask_token_id not in seen


def test_ngram_uses_the_mask_of_the_tokenizer(make_model):
    candidate = candidate_for(make_model)
    candidate.tokenizer.mask_token = "<hidden>"
    texts = augmented(augment(n_iter=5), candidate).split("train").texts[20:]
    assert any("<hidden>" in text for text in texts)
    assert not any("[MASK]" in text for text in texts)
    candidate.tokenizer.mask_token = None
    with pytest.raises(InputError, match="no mask token"):
        augmented(augment(), candidate)


def test_parts_of_speech_come_from_the_tagger(make_model, monkeypatch):
    """A tagger that knows moods: a mood may become another mood, a filler another filler, and nothing else."""
    moods = {word for words in MOODS.values() for word in words}
    monkeypatch.setitem(taggers.TAGGERS, "nltk", lambda _: lambda words: [str(word in moods) for word in words])
    taggers.open_tagger.cache_clear()
    step = augment(mask_probability=0.0, part_of_speech_probability=0.9, ngram_probability=0.0, tagger="nltk", n_iter=5)
    candidate = candidate_for(make_model)
    task = augmented(step, candidate)
    originals = [text.split() for text in candidate.task.split("train").texts]
    patterns = {tuple(word in moods for word in words) for words in originals}
    new = [text.split() for text in task.split("train").texts[20:]]
    assert len(new) > 80
    assert {tuple(word in moods for word in words) for words in new} <= patterns
    assert {word for words in new for word in words} <= moods | set(FILLERS)
    taggers.open_tagger.cache_clear()


def test_without_a_tagger_the_log_says_so_once(make_model):
    lines = []
    candidate = candidate_for(make_model)
    augmented(augment(n_iter=2, chunk_rows=4), candidate, log=lambda message, **numbers: lines.append(message))
    assert sum("no tagger" in line for line in lines) == 1
    lines.clear()
    step = augment(n_iter=2, part_of_speech_probability=0.0)
    augmented(step, candidate, log=lambda message, **numbers: lines.append(message))
    assert not any("no tagger" in line for line in lines)


def test_tinybert_replaces_words_by_their_neighbors_alone(make_model):
    candidate = candidate_for(make_model)
    table = candidate.model.get_input_embeddings().weight.detach().numpy()
    ids = candidate.tokenizer.get_vocab()
    words = [word for word in ids if word.isalpha()]
    unit = {word: table[ids[word]] / np.linalg.norm(table[ids[word]]) for word in words}
    task = augmented(augment(method="tinybert", top_k=3, samples=6), candidate)
    for entry, old in zip(range(20, len(task.split("train"))), _origins(task), strict=True):
        new = task.split("train").texts[entry].split()
        for before, after in zip(old, new, strict=True):
            if before != after:
                ranked = sorted((w for w in words if w != before), key=lambda w: -float(unit[w] @ unit[before]))
                assert after in ranked[:3]
                assert replaceable(before)


def _origins(task):
    """The original of every new text: toy labels and lengths repeat, so look for the nearest original."""
    originals = [text.split() for text in task.split("train").texts[:20]]
    for text in task.split("train").texts[20:]:
        words = text.split()
        same = [old for old in originals if len(old) == len(words)]
        yield max(same, key=lambda old: sum(a == b for a, b in zip(old, words, strict=True)))


@pytest.fixture
def mlm(make_model, tmp_path):
    """A masked language model with the toy vocabulary, as a folder."""
    candidate = candidate_for(make_model)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(candidate.tokenizer), max_position_embeddings=64, **size)
    BertForMaskedLM(config).save_pretrained(tmp_path / "mlm")
    candidate.tokenizer.save_pretrained(tmp_path / "mlm")
    return str(tmp_path / "mlm")


def test_a_masked_language_model_gives_other_candidates(make_model, mlm):
    candidate = candidate_for(make_model)
    plain, masked, faster = (
        augmented(augment(method="tinybert", samples=4, **options), candidate)
        for options in ({}, {"mlm": mlm}, {"mlm": mlm, "positions_per_pass": 3, "mixed_precision": "bf16"})
    )
    assert len(masked.split("train")) > 60
    assert len({plain.fingerprint, masked.fingerprint, faster.fingerprint}) == 3
    assert augmented(augment(method="tinybert", samples=4, mlm=mlm, workers=2), candidate) == masked


def test_vectors_from_a_file(make_model, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("sunny 1 0\nluminous 0.9 0.1\nbleak 0 1\ndreary 0.1 0.9\n")
    task = augmented(augment(method="tinybert", vectors=str(path), top_k=1), candidate_for(make_model))
    new = {word for text in task.split("train").texts[20:] for word in text.split()}
    assert "luminous" in new or "dreary" in new
    assert new <= {word for words in MOODS.values() for word in words} | set(FILLERS) | {"luminous", "dreary"}


@dataclass
class Sure:
    """A teacher that is sure of the same label for every text."""

    label: int = 2
    int8: bool = False

    def predict(self, batch):
        logits = np.zeros((len(batch["index"]), 3), dtype=np.float32)
        logits[:, self.label] = 9.0
        return logits


def teacher_of(candidate):
    return Teacher("t", lambda: Candidate(Sure(), candidate.tokenizer, candidate.task))


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"guard": "drop"}, {2}),
        ({"guard": "relabel"}, {2}),
        ({"labels": "teacher"}, {2}),
        ({"guard": "relabel", "guard_confidence": 1.0}, {0, 1, 2}),
    ],
)
def test_the_teacher_guards_labels(options, labels, make_model):
    candidate = candidate_for(make_model)
    task = augmented(augment(n_iter=3, **options), candidate, teacher=teacher_of(candidate))
    assert set(task.split("train").labels[20:]) == labels
    assert task.split("train").labels[:20] == candidate.task.split("train").labels
    gold = candidate.task.split("train").labels
    counts = task.history[0]["counts"]
    if options.get("guard") == "drop":
        others = sum(label != 2 for label in gold) / 20
        assert counts["dropped by the guard"] / (counts["dropped by the guard"] + len(task.split("train")) - 20) == (
            pytest.approx(others, abs=0.15)
        )


@pytest.mark.parametrize("options", [{"guard": "drop"}, {"guard": "relabel"}, {"labels": "teacher"}])
def test_without_a_teacher_the_guard_says_what_to_do(options, make_model):
    with pytest.raises(InputError, match="needs a teacher; put 'finetune' before it"):
        augmented(augment(**options), candidate_for(make_model))


def test_what_cannot_work_is_refused(make_model):
    regression, tokens = candidate_for(make_model, "regression"), candidate_for(make_model, "tokens")
    with pytest.raises(InputError, match="numbers have no confidence"):
        augmented(augment(guard="drop"), regression, teacher=teacher_of(regression))
    with pytest.raises(InputError, match="'keep' would take away words"):
        augmented(augment(ngram="keep"), tokens)
    with pytest.raises(InputError, match="no vector file"):
        augmented(augment(method="tinybert", vectors="nowhere.txt"), tokens)
    with pytest.raises(InputError, match="nowhere"):
        augmented(augment(method="tinybert", mlm="./nowhere"), tokens)


def test_what_is_not_there_is_told_early(tmp_path, monkeypatch):
    """Of the names of models only those that can be no name of the hub; libraries are looked for, not imported."""
    monkeypatch.setattr(taggers, "find_spec", lambda name: None)
    (tmp_path / "empty").mkdir()
    for options, message in (
        ({"vectors": "nowhere.txt"}, "vectors: nowhere.txt: there is no such file"),
        ({"mlm": str(tmp_path / "emty")}, "mlm: no model folder .*; did you mean .*empty'"),
        ({"mlm": str(tmp_path / "empty")}, "mlm: .* is not a model folder: it has no config.json"),
        ({"tagger": "spacy:en"}, r"tagger: this needs the package 'spacy', .*pip install 'limbeck\[spacy\]'"),
    ):
        (problem,) = augment(**options).file_problems()
        assert re.match(message, problem)
    assert augment(method="tinybert", mlm="owner/name").file_problems() == []
    assert augment(tagger="nltk", part_of_speech_probability=0).file_problems() == []
    monkeypatch.setattr(taggers, "find_spec", lambda name: True)
    assert augment(tagger="nltk").file_problems() == augment().file_problems() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlm": "bert"}, "mlm: has no effect with method: ngram, only with tinybert; leave it out"),
        ({"method": "tinybert", "n_iter": 3}, "n_iter: has no effect with method: tinybert, only with ngram"),
        ({"mask_probability": 0.6, "part_of_speech_probability": 0.6}, "add up to at most 1"),
        ({"labels": "teacher", "guard": "relabel"}, "teacher's labels already"),
        ({"method": "tinybert", "positions_per_pass": 2}, "name one with mlm"),
        ({"tagger": "nltkk"}, "did you mean 'nltk'?"),
    ],
)
def test_fields_that_do_not_go_together(options, message):
    (problem,) = problems_of(augment(**options))
    assert message in problem


def test_defaults_are_the_papers():
    step = augment()
    assert problems_of(step) == []
    words, others = step.ngrams, step.substitution
    assert (words.mask_probability, words.part_of_speech_probability, words.ngram_probability) == (0.1, 0.1, 0.25)
    assert (words.max_ng, words.n_iter) == (5, 20)
    assert (others.replace_probability, others.top_k, others.samples, others.positions_per_pass) == (0.4, 15, 20, 1)


def test_plans_know_how_much_it_grows_and_takes():
    shape, rows = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64), {"train": 100, "test": 5}
    step = build(Augment, {"method": "tinybert", "samples": 10, "mlm": "m"})
    assert step.shape_after(shape) == shape
    assert step.rows_after(rows) == {"train": 1100, "test": 5}
    plain = step.estimated_seconds(shape, rows, 20)
    assert (
        plain
        > changed(step, positions_per_pass=2).estimated_seconds(shape, rows, 20)
        > changed(step, mlm=None).estimated_seconds(shape, rows, 20)
    )
    assert changed(step, guard="drop").estimated_seconds(shape, rows, 20) > plain
