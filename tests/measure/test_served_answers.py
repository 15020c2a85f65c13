from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.step import RunContext
from limbeck.data.batching import encode, predict
from limbeck.measure.quality import Quality
from limbeck.measure.served_answers import ServedAnswers


@pytest.fixture
def answers(candidate):
    return ServedAnswers(candidate.task, candidate.tokenizer)


def test_the_quality_is_that_of_the_probe(answers, candidate):
    ((_, expected),) = Quality("validation").measure([candidate], RunContext())
    assert answers.quality(candidate.model).value == expected.value
    assert answers.quality(candidate.model).n == expected.n


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
