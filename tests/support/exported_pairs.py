"""Exported models of different depth on one task, with made-up quality and latency. Not a test."""

from __future__ import annotations

from dataclasses import replace

from limbeck.core.candidate import Candidate, Record, Stored
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.onnx.onnx_model import FLOAT_FILE, OnnxModel, to_onnx

TASK = toy_task("classification", train=32, validation=64, test=24)
TOKENIZER = toy_tokenizer(TASK)


def exported(make_model, folder, layers=1, task=TASK, tokenizer=TOKENIZER, **options):
    """A random model of a task as an exported candidate, not stored."""
    shape = Shape.uniform(layers=layers, hidden=32, heads=4, ffn=64)
    model = make_model(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), **options)
    model.config.id2label = dict(enumerate(task.label_names))
    to_onnx(model, folder / FLOAT_FILE)
    return Candidate(
        OnnxModel(folder, FLOAT_FILE, {**model.config.to_dict(), "model_type": "limbeck"}), tokenizer, task
    )


def judged_by(teacher, candidates):
    """The candidates, on a task whose labels are the answers of one of them."""
    task = teacher.task
    answers = predict(teacher.model, encode(task, "validation", teacher.tokenizer)).argmax(-1)
    labeled = replace(task.split("validation"), labels=tuple(answers.tolist()))
    task = replace(task, splits={**task.splits, "validation": labeled})
    return [replace(each, task=task) for each in candidates]


def stored(key, candidate, quality, milliseconds, traits=("onnx",), mean=None):
    """A candidate with facts."""
    facts = [Measurement("latency_p50", milliseconds / 1e3, "s")]
    facts += [Measurement("quality", quality, "1", split="validation")] if quality is not None else []
    facts += [Measurement("latency_mean", mean / 1e3, "s")] if mean is not None else []
    record = Record(key, None, "export", {}, candidate.model.shape, frozenset(traits), tuple(facts))
    return Stored(key, lambda: candidate, record)
