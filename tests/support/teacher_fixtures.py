"""A tiny task, a teacher of it, and files of that teacher's scores. Fixtures of several packages; not a test."""

import json

import pytest
from scipy.special import softmax

from limbeck.core.candidate import Candidate
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer


@pytest.fixture(scope="session")
def task():
    return toy_task("classification", train=48, validation=16, test=16)


@pytest.fixture
def teacher(make_model, task):
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(labels=task.num_labels, vocab_size=len(tokenizer), seed=1), tokenizer, task)


@pytest.fixture(scope="session")
def rows_of():
    """The rows of a score file, by text and label name."""
    return _rows_of


@pytest.fixture(scope="session")
def write_jsonl():
    return _write_jsonl


def _rows_of(teacher, split="train", field="probabilities"):
    task = teacher.task
    logits = predict(teacher.model, encode(task, split, teacher.tokenizer))
    values = softmax(logits.astype(float), axis=1) if field == "probabilities" else logits
    texts = task.split(split).texts
    return [
        {"text": text, field: dict(zip(task.label_names, map(float, row), strict=True))}
        for text, row in zip(texts, values, strict=True)
    ]


def _write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
