"""Models of every family with fewer channels of hidden states: folders, ONNX, INT8, and students of the whole model."""

from __future__ import annotations

from dataclasses import replace

import family_models as families
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import limbeck
from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.data.batching import collate, encode, predict
from limbeck.data.synthetic import TOYS, toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.family_table import FAMILIES
from limbeck.model.interchange import translate_folder
from limbeck.model.pretrained import to_transformers
from limbeck.techniques.distill import Distill
from limbeck.techniques.prune import Prune

TASK = toy_task("classification", train=24, validation=12, test=12)
TOKENIZER = toy_tokenizer(TASK)


def candidate(family):
    """A model of a family that answers the toy task."""
    model = families.ours(f"{family}-small")
    model.config.id2label = dict(enumerate(TASK.label_names))
    model.config.label2id = {name: index for index, name in enumerate(TASK.label_names)}
    return Candidate(model, TOKENIZER, TASK)


USUAL = ("bert", "mpnet", "modernbert", "deberta-v2")
"""Families whose graphs are written in the default tier; the others are slow tests."""


def narrow(family, **fields):
    (pruned,) = Prune.of(**{"hidden": 24, "samples": 24, **fields}).apply(candidate(family), RunContext())
    return pruned.model


@pytest.mark.parametrize(
    "family",
    [each if each in USUAL else pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES],
)
def test_folder_onnx_and_int8_answer_alike(family, tmp_path):
    model, encoded = narrow(family), encode(TASK, "test", TOKENIZER)
    expected = predict(model, encoded, 4)
    save_model(model, TOKENIZER, tmp_path / "float")
    translate_folder(tmp_path / "float")
    again = open_model(tmp_path / "float")[0]
    assert again.shape == model.shape
    assert again.shape.hidden == 24
    np.testing.assert_array_equal(predict(again, encoded, 4), expected)
    exported = limbeck.export(model, TOKENIZER, TASK, tmp_path / "onnx")
    np.testing.assert_allclose(predict(exported, encoded, 4), expected, atol=2e-4, rtol=1e-3)
    rounded = limbeck.quantize(model, TOKENIZER, TASK, tmp_path / "int8")
    spread = float(np.abs(expected - expected.mean(0)).max())
    assert float(np.abs(predict(rounded, encoded, 1) - expected).mean()) < 0.25 * spread + 0.05


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_where_heads_fill_the_width_it_is_a_plain_checkpoint(family, tmp_path):
    model = narrow(family, heads=3)
    plain = to_transformers(model)
    batch = collate(encode(TASK, "test", TOKENIZER), range(6))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits, model.run(inputs)[0], rtol=1e-4, atol=1e-4)
    save_model(model, TOKENIZER, tmp_path)
    translate_folder(tmp_path)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=False)
    with torch.no_grad():
        torch.testing.assert_close(opened(**inputs).logits, model.run(inputs)[0], rtol=1e-4, atol=1e-4)


def test_rotated_hidden_states_are_no_plain_checkpoint(tmp_path):
    model = narrow("modernbert", heads=3)
    with pytest.raises(InputError, match="the norm of the embeddings is part of their table"):
        to_transformers(model)
    save_model(model, TOKENIZER, tmp_path)
    translate_folder(tmp_path)
    with pytest.raises((RuntimeError, ValueError)):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=False)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=True)
    batch = collate(encode(TASK, "test", TOKENIZER), range(6))
    with torch.no_grad():
        logits = opened(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        torch.testing.assert_close(logits, model.run(batch)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("match", [("logits", "hidden"), ("relations",)])
def test_it_imitates_the_whole_model_although_that_is_wider(family, match, tmp_path):
    student = replace(candidate(family), model=narrow(family))
    teacher = Teacher("teacher", lambda: candidate(family))
    step = Distill.of(match=match, num_train_epochs=1, learning_rate=1e-3)
    (distilled,) = step.apply(student, RunContext(teacher=teacher, scratch=tmp_path))
    assert distilled.model.shape.hidden == 24
    assert np.isfinite(predict(distilled.model, encode(TASK, "test", TOKENIZER), 4)).all()


@pytest.mark.parametrize("toy", TOYS)
def test_a_width_is_chosen_for_every_kind(make_model, toy):
    """By answers to texts of the kind: classes, numbers, vectors, words and ranks."""
    task = toy_task(toy, train=24, validation=12, test=12)
    tokenizer, messages = toy_tokenizer(task), []
    model = make_model(
        Shape.uniform(layers=2, hidden=16, heads=2, ffn=16),
        labels=task.num_labels,
        kind=task.kind,
        vocab_size=len(tokenizer),
    )
    step = Prune.of(keep=0.5, cost="macs", hidden="auto", samples=12, ffn_multiple=4)
    context = RunContext(log=lambda message, **numbers: messages.append(message))
    (chosen,) = step.apply(Candidate(model, tokenizer, task), context)
    tried = [float(message.split("differ by ")[1].split()[0]) for message in messages if "texts differ by" in message]
    assert len(tried) >= 3
    assert min(tried) > 0
    assert chosen.model.shape.hidden <= 16
    assert f"-> {chosen.model.shape}" in messages[-1]
