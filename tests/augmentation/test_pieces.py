"""Pieces of an augmentation, as plain data: the texts are those that one process makes."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from limbeck.augmentation import pos_taggers
from limbeck.augmentation.preparation import tag_elsewhere
from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import build
from limbeck.core.step import RunContext, Teacher
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.techniques.augment import Augment

KINDS = ("classification", "pairs", "tokens", "regression")


class Travelling:
    """Carries out pieces after a way as JSON, each on its own and the last one first; counts the rounds."""

    def __init__(self, step, candidate, context):
        self.step, self.candidate, self.context, self.rounds = step, candidate, context, 0

    def __call__(self, pieces, shared=None):
        self.rounds += 1
        pieces, shared = json.loads(json.dumps([pieces, shared or {}]))
        done = [json.loads(json.dumps(self.work(piece, shared))) for piece in reversed(pieces)]
        return done[::-1]

    def work(self, piece, shared):
        (result,) = self.step.work_on([piece], shared, self.candidate, self.context)
        return result


@pytest.fixture
def candidate(make_model):
    def candidate_of(kind):
        task = toy_task(kind, train=20, validation=8, test=8)
        tokenizer = toy_tokenizer(task)
        return Candidate(make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer)), tokenizer, task)

    return candidate_of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "rounds"),
    [
        ({"n_iter": 3}, 1),
        ({"n_iter": 3, "tagger": "lengths", "labels": "teacher"}, 3),
        ({"method": "tinybert", "samples": 3}, 1),
    ],
)
def test_the_task_is_that_of_one_process(candidate, monkeypatch, kind, fields, rounds):
    monkeypatch.setitem(pos_taggers.TAGGERS, "lengths", lambda _: lambda words: [str(len(word)) for word in words])
    given, step = candidate(kind), build(Augment, {"chunk_rows": 6, **fields})
    context = RunContext(seed=5, teacher=Teacher("teacher", lambda: given))
    (alone,) = step.apply(given, context)
    spread = Travelling(step, given, context)
    (together,) = step.apply(given, replace(context, spread=spread))
    assert together.task == alone.task
    assert together.task.history == alone.task.history
    assert spread.rounds == rounds


def test_tags_come_in_the_order_of_the_texts(monkeypatch):
    monkeypatch.setitem(pos_taggers.TAGGERS, "lengths", lambda _: lambda words: [str(len(word)) for word in words])
    step, texts = build(Augment, {"tagger": "lengths"}), [["a", "film"], [], ["good"], ["so", "so"]]
    candidate = SimpleNamespace(task=toy_task(train=4), tokenizer=SimpleNamespace(mask_token="[MASK]"))
    spread = Travelling(step, candidate, RunContext())
    assert tag_elsewhere(spread, "lengths", texts, 3) == [["1", "4"], [], ["4"], ["2", "2"]]
