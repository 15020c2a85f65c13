"""Answers to a split are computed once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.run import run
from limbeck.engine.store.store import Store
from limbeck.errors import InputError
from limbeck.measure.quality import Quality
from limbeck.measure.split_answers import keep_answers, prepares_answers, served, split_answers
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import parse

KINDS = ["classification", "pairs", "multilabel", "regression", "tokens", "embedding"]


def candidate(make_model, kind, folder):
    task = toy_task(kind, train=24, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    return Candidate(
        make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer)), tokenizer, task, folder
    )


@pytest.fixture
def calls(monkeypatch):
    from limbeck.data import batching

    calls, real = [], batching.predict
    monkeypatch.setattr(batching, "predict", lambda *given: (calls.append(given), real(*given))[1])
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_kept_answers_are_those_that_the_model_gives(make_model, kind, tmp_path, calls):
    model = candidate(make_model, kind, tmp_path / "key")
    context = RunContext(keep=Store(tmp_path / "store").facts.keep)
    first, second = (split_answers(model, "test", 8, context) for _ in range(2))
    expected = predict(model.model, encode(model.task, "test", model.tokenizer), 8)
    for answers in (first, second):
        assert (len(answers.encoded), answers.batch) == (16, 8)
        for a, b in zip(answers.logits, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(calls) == (2 if kind in ("tokens", "embedding") else 1)


def test_torch_models_answer_in_the_precision_that_serves(make_model, tmp_path):
    given = candidate(make_model, "classification", tmp_path / "one")
    keep, before = Store(tmp_path / "store").facts.keep, next(given.model.parameters()).dtype
    exact, rough = (
        split_answers(given, "test", 8, RunContext(keep=keep, target=Target(precision=precision))).logits
        for precision in ("float32", "float16")
    )
    assert 0 < np.abs(exact - rough).max() < 0.02 * max(1, np.abs(exact).max())
    assert next(given.model.parameters()).dtype == before
    assert served(given.model, Target(device="cpu")) is given.model


def test_other_splits_sizes_tasks_and_models_are_answered_anew(make_model, tmp_path, calls):
    context = RunContext(keep=Store(tmp_path / "store").facts.keep)
    given = candidate(make_model, "classification", tmp_path / "one")
    split_answers(given, "test", 8, context)
    split_answers(given, "validation", 8, context)
    split_answers(given, "test", 4, context)
    split_answers(replace(given, folder=tmp_path / "two"), "test", 8, context)
    split_answers(replace(given, task=given.task.limit(test=8)), "test", 8, context)
    assert len(calls) == 5
    split_answers(replace(given, folder=None), "test", 8, context)  # a model that may have changed
    assert len(calls) == 6


def test_nan_is_refused_and_not_kept(make_model, tmp_path):
    broken = candidate(make_model, "classification", tmp_path / "key")
    context = RunContext(keep=Store(tmp_path / "store").facts.keep)
    bias = broken.model.classifier.bias.data
    bias[0] = float("nan")
    with pytest.raises(InputError, match="gives no numbers for text 1"):
        split_answers(broken, "test", 8, context)
    bias[0] = 0.0
    assert np.isfinite(split_answers(broken, "test", 8, context).logits).all()


def test_decision_reads_what_quality_has_answered(make_model, tmp_path, calls):
    model = candidate(make_model, "classification", None)
    save_model(model.model, model.tokenizer, tmp_path / "model")
    probes = [{"quality": {"split": split}} for split in ("validation", "test")]
    name = model.task.label_names[0]
    decision = {"decision": {"threshold": "best-f1", "positive": name, "split": "test", "temperature": True}}
    recipe = {"model": str(tmp_path / "model"), "task": "movie-reviews"}
    for steps in (["export", *probes], ["export", *probes, decision]):
        before = len(calls)
        result = run(parse({**recipe, "steps": steps}), tmp_path / "store", tmp_path / "run", task=model.task)
        assert (len(calls) == before) == (decision in steps)
    (key,) = result.front
    assert result.records[key].fact("temperature") is not None


def test_answers_that_were_kept_before_a_probe_are_not_computed_by_it(make_model, calls, tmp_path):
    store, probe = Store(tmp_path / "store"), Quality("test", batch=8)
    store.prepare()
    given = candidate(make_model, "classification", tmp_path / "0123456789abcdef")
    context = RunContext(keep=store.facts.keep)
    (result,) = probe.work_on([{}], {}, given, context)
    assert len(calls) == 1
    assert all(store.facts.kept_folder(name) is not None for name in result["kept"])
    before = list(probe.measure([given], context))
    assert len(calls) == 1
    assert before == list(probe.measure([given], RunContext()))
    (two,) = keep_answers(given, ("validation", "test"), 8, context)
    assert len(two["kept"]) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_only_answers_that_are_kept_can_be_prepared(make_model, kind, tmp_path):
    given = candidate(make_model, kind, tmp_path / "0123456789abcdef")
    (result,) = keep_answers(given, ("test",), 8, RunContext())
    assert bool(result["kept"]) == prepares_answers(given.task.task_kind, Target())
    assert not prepares_answers(given.task.task_kind, Target(candidates=4))  # sub-batches are measured first
