from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from noting_models import NotingInt8

from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.measure import requests
from limbeck.measure.quality import Quality
from limbeck.measure.requests import SubBatches, served_batches
from limbeck.measure.served_answers import ServedAnswers


@pytest.fixture
def answers(candidate):
    return ServedAnswers(candidate.task, candidate.tokenizer)


def test_the_quality_is_that_of_the_probe(answers, candidate):
    ((_, expected),) = Quality("validation").measure([candidate], RunContext())
    assert answers.quality(candidate.model).value == expected.value
    assert answers.quality(candidate.model).n == expected.n


def test_int8_is_compared_in_the_batches_that_the_probe_judges_it_in(candidate):
    answers = ServedAnswers(candidate.task, candidate.tokenizer, Target(batch=8))
    compared, judged, train = (NotingInt8(candidate.model) for _ in range(3))
    answers.quality(compared)
    list(Quality("validation").measure([replace(candidate, model=judged)], RunContext(target=Target(batch=8))))
    assert compared.calls == judged.calls
    assert max(map(len, compared.calls)) == 8
    answers.changed(candidate.model, train)
    assert sorted(row for call in train.calls for row in call) == list(range(len(candidate.task.split("train"))))
    assert max(map(len, train.calls)) == 8


def test_int8_is_compared_in_the_sub_batches_of_requests(make_model, monkeypatch):
    monkeypatch.setattr(requests, "best_sub_batches", lambda *_: SubBatches(3, 1.5))
    task = toy_task("rerank", train=20, validation=20, test=20)
    tokenizer = toy_tokenizer(task)
    model = NotingInt8(make_model(labels=1, kind="rerank", vocab_size=len(tokenizer)))
    answers = ServedAnswers(task, tokenizer, Target(candidates=5))
    answers.quality(model)
    assert model.calls == served_batches(encode(task, "validation", tokenizer), 3)
    model.calls.clear()
    answers.changed(model.model, model)
    assert model.calls == served_batches(encode(task, "train", tokenizer), 3)


def test_changed_answers_are_counted(answers, candidate, make_model):
    other = make_model(candidate.model.shape, vocab_size=len(candidate.tokenizer), seed=5)
    encoded = encode(candidate.task, "train", candidate.tokenizer)
    differing = np.argmax(predict(candidate.model, encoded), -1) != np.argmax(predict(other, encoded), -1)
    assert answers.changed(candidate.model, candidate.model) == (0, len(encoded))
    assert answers.changed(candidate.model, other) == (differing.sum(), len(encoded))


def test_texts_are_encoded_once(candidate):
    calls = []
    tokenizer = candidate.tokenizer

    class Counting(type(tokenizer)):
        def __call__(self, *texts, **options):
            calls.append(1)
            return super().__call__(*texts, **options)

    counting = replace(candidate, tokenizer=Counting(tokenizer_object=tokenizer._tokenizer, **tokenizer.init_kwargs))
    answers = ServedAnswers(counting.task, counting.tokenizer)
    answers.quality(candidate.model)
    once = len(calls)
    answers.quality(candidate.model)
    assert len(calls) == once > 0
