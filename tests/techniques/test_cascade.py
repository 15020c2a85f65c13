"""Cascades of two models of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from exported_pairs import TASK, TOKENIZER, exported, judged_by, stored

from limbeck.core.cascade import cascade_logits
from limbeck.core.kinds import KINDS
from limbeck.core.measurement import CASCADE
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.run import run
from limbeck.errors import InputError, LimbeckError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.recipe.recipe import check, parse
from limbeck.report.artefact import write_artefact
from limbeck.techniques.cascade import Cascade
from limbeck.techniques.quantize import Quantize

LENIENT = Cascade(max_changed=60)


@pytest.fixture
def sides(make_model, tmp_path):
    """A model of one layer and one of three, which is right."""
    small, large = (exported(make_model, tmp_path / str(layers), layers, seed=layers) for layers in (1, 3))
    small, large = judged_by(large, [small, large])
    return {"small": stored("small", small, 0.8, 1.0), "large": stored("large", large, 0.9, 10.0)}


def replace_task(side, other):
    """A candidate on the task of another one."""
    return replace(side, open=lambda: replace(side.open(), task=other.open().task))


def chosen(step, candidates):
    messages = []
    return step.pairs(candidates, RunContext(log=messages.append)), messages


def test_its_answers_are_those_of_the_one_or_the_other(sides, tmp_path):
    (pair,), messages = chosen(LENIENT, list(sides.values()))
    assert (pair.key, pair.partner) == ("large", "small")
    assert messages[0].startswith("small before large: ")
    context = RestrictedContext(RunContext(partner=sides[pair.partner], scratch=tmp_path), Cascade.info)
    (cascade,) = LENIENT.apply(sides[pair.key].open(), context)
    (fact,) = cascade.facts
    assert fact.name == CASCADE
    encoded = encode(TASK, "test", TOKENIZER)
    small, large = (predict(sides[key].open().model, encoded, 1) for key in ("small", "large"))
    expected = cascade_logits(cascade.model.cascade.exits, small, large)
    for batch_size in (1, 8):
        np.testing.assert_allclose(predict(cascade.model, encoded, batch_size), expected, atol=1e-5)
    assert cascade.model.size_bytes > sides["large"].open().model.size_bytes
    assert cascade.model.shape == sides["large"].open().model.shape


def test_in_int8_it_is_what_both_are_in_int8(sides, tmp_path):
    quantized = {}
    for key, side in sides.items():
        (child,) = Quantize().apply(side.open(), RunContext(scratch=tmp_path / key))
        quantized[key] = stored(key, child, 0.9, 1.0)
    context = RunContext(partner=quantized["small"], scratch=tmp_path)
    (child,) = LENIENT.apply(quantized["large"].open(), context)
    assert child.model.int8
    encoded = encode(TASK, "test", TOKENIZER)
    small, large = (predict(quantized[key].open().model, encoded) for key in ("small", "large"))
    expected = cascade_logits(child.model.cascade.exits, small, large)
    np.testing.assert_allclose(predict(child.model, encoded), expected, atol=1e-5)


def test_one_model_makes_no_cascade_and_that_is_said(sides, make_model, tmp_path):
    large = sides["large"]
    expected = (
        "no cascade: it takes two exported models that no other beats in both quality and latency, and there is 1"
    )
    torch_model = stored("t", sides["small"].open(), 0.8, 1.0, traits=("torch",))
    earlier = stored("c", sides["small"].open(), 0.8, 1.0, traits=("onnx", "cascade"))
    beaten = stored("b", sides["small"].open(), 0.9, 11.0)
    for candidates in ([large], [large, torch_model], [large, earlier], [large, beaten]):
        assert chosen(LENIENT, candidates) == ([], [expected])
    pairs, messages = chosen(Cascade(max_changed=0.1), list(sides.values()))
    assert pairs == []
    assert messages == [
        "no cascade: of 2 exported models none before another is expected to save time with at most 0.1 % of the "
        "answers changed"
    ]


def test_a_target_of_a_fixed_length_has_no_pairs(sides):
    messages = []
    context = RunContext(target=Target(seq_len=64), log=messages.append)
    assert LENIENT.pairs(list(sides.values()), context) == []
    assert messages[0].startswith("no cascade: it answers a text by what it says, and 'seq_len: 64' repeats")


def test_as_many_as_asked_for_and_with_the_partner_asked_for(sides, make_model, tmp_path):
    middle = stored("middle", exported(make_model, tmp_path / "middle", 2, seed=38), 0.85, 3.0)
    candidates = [*sides.values(), replace_task(middle, sides["large"])]
    every, _ = chosen(Cascade(max_changed=30, most=9), candidates)
    assert len(every) > 1
    first, messages = chosen(Cascade(max_changed=30, most=1), candidates)
    assert first == every[:1]
    assert len(messages) == 1
    for partner in ("small", "middle"):
        named, _ = chosen(Cascade(max_changed=30, most=9, partner=partner), candidates)
        assert named == [pair for pair in every if pair.partner == partner]
    with pytest.raises(InputError, match="partner: no exported candidate has the key smal; did you mean 'small'"):
        chosen(Cascade(partner="smal"), candidates)


def test_the_test_split_decides_nothing(sides):
    candidates = [stored(key, side.open(), 0.9, 1.0) for key, side in sides.items()]
    facts = [[replace(fact, split="test") for fact in each.record.facts] for each in candidates]
    records = [replace(each.record, facts=tuple(row)) for each, row in zip(candidates, facts, strict=True)]
    candidates = [replace(each, record=record) for each, record in zip(candidates, records, strict=True)]
    none, (message,) = chosen(LENIENT, candidates)
    assert none == []
    assert message.startswith("no cascade: validation decides which models are tried")


def test_what_was_not_measured_is_asked_for(sides):
    unjudged = [stored(key, side.open(), None, 1.0) for key, side in sides.items()]
    with pytest.raises(LimbeckError, match="cascade: no candidate has the fact 'quality'"):
        chosen(LENIENT, unjudged)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_one_class_for_a_text(kind):
    problems = Cascade().kind_problems(KINDS[kind])
    assert bool(problems) == (kind != "classification")


def test_where_it_stands_in_a_recipe():
    def problems(*steps):
        return [str(each) for each in check({"model": "bert", "task": "movie-reviews", "steps": list(steps)})]

    begin, probes = ({"finetune": {}}, {"export": {}}), ({"quality": {}}, {"latency": {}})
    assert problems(*begin, *probes, {"cascade": {}}, *probes, {"cheapest": {}}) == []
    (problem,) = problems(*begin, *probes, {"cascade": {}}, {"quantize": {}})
    assert problem == "steps[5] quantize: is for single models, and a cascade holds two; put it before 'cascade'" or (
        "quantize: is for single models, and a cascade holds two; put it before 'cascade'" in problem
    )
    (problem,) = problems({"finetune": {}}, *probes, {"cascade": {}})
    assert "needs 'onnx'" in problem
    fixed = {"model": "bert", "task": "movie-reviews", "target": {"seq_len": 64}}
    (problem,) = map(str, check(fixed | {"steps": [*begin, *probes, {"cascade": {}}, *probes]}))
    assert "steps[4].cascade: answers a text by what it says, and 'seq_len: 64' repeats the tokens" in problem
    assert check(fixed | {"steps": [*begin, *probes]}) == []
    assert LENIENT.shape_after(Shape.uniform(2, 8, 2, 8)) == Shape.uniform(2, 8, 2, 8)


@pytest.mark.slow
def test_a_run_makes_measures_and_serves_it_and_a_resumed_one_is_the_same(make_model, tmp_path, monkeypatch):
    """From training on, with real probes; pairs alone are chosen by times that do not depend on who else works here."""
    monkeypatch.setattr("limbeck.measure.cascades.mean_seconds", lambda record: record.shape.depth**2 / 1e3)
    task = toy_task("classification", train=128, validation=96, test=48)
    tokenizer, shape = toy_tokenizer(task), Shape.uniform(layers=6, hidden=64, heads=4, ffn=256)
    model = make_model(shape, labels=task.num_labels, vocab_size=len(tokenizer))
    save_model(model, tokenizer, tmp_path / "model")
    probes = [{"quality": {}}, {"latency": {"samples": 10, "rounds": 3, "split": "validation"}}]
    pruned = [{"prune": {"layers": 1, "cost": "macs", "samples": 32}}]
    steps = [
        {"finetune": {"epochs": 6, "learning_rate": 1e-3, "batch_size": 16}},
        {"fork": [[], pruned]},
        {"export": {}},
        {"quantize": {}},
    ]
    steps += [*probes, {"cascade": {"max_changed": 60}}, *probes, {"size": {}}, {"best": {}}]
    recipe = parse({"model": str(tmp_path / "model"), "task": "t", "steps": steps, "allow_weak_teacher": True})

    def go(folder):
        return run(recipe, tmp_path / "store", tmp_path / folder, task=task, progress=False)

    first = go("run")
    assert first.ok
    (cascade,) = [record for record in first.records.values() if record.step == "cascade"]
    sides = [first.records[key] for key in (cascade.parameters["partner"], cascade.parent)]
    assert [record.shape.depth for record in sides] == [1, 6]
    assert {cascade.key, *(record.key for record in sides)} <= {*first.front, *first.measured}
    for name in ("quality", "flips", "latency_p50", "latency_mean", "latency_p99", "size"):
        assert cascade.fact(name) is not None, name
    encoded = encode(task, "test", tokenizer)
    models = [first.open(record.key).model for record in (*sides, cascade)]
    small, large, both = (predict(model, encoded, 1) for model in models)
    expected = cascade_logits(models[2].cascade.exits, small, large)
    np.testing.assert_allclose(both, expected, atol=1e-5)
    artefact = write_artefact(first.run_summary, cascade.key, *first.stored(cascade.key)[:1], tmp_path / "artefact")
    again, _ = open_model(artefact)
    np.testing.assert_array_equal(predict(again, encoded, 1), both)
    resumed = go("again")
    assert (resumed.front, resumed.records) == (first.front, first.records)
