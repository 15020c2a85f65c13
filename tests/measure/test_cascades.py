"""Pairs of exported candidates: which are tried, and how their rule is fitted on the answers that were kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from exported_pairs import TASK, TOKENIZER, exported, judged_by, stored

from limbeck.core.cascade import fit_cascade
from limbeck.core.measurement import CASCADE
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_tokenizer
from limbeck.errors import InputError, LimbeckError
from limbeck.measure.cascades import cascade_fact, check_answers, difference, find_pairs, fit, front_of, mean_seconds
from limbeck.measure.split_answers import split_answers
from limbeck.model.onnx.cascade import write_cascade


@pytest.fixture
def sides(make_model, tmp_path):
    small, large = (exported(make_model, tmp_path / str(layers), layers, seed=layers) for layers in (1, 3))
    return judged_by(large, [small, large])


def test_the_mean_counts_where_it_was_measured(sides):
    assert mean_seconds(stored("a", sides[0], 0.9, 2.0).record) == 0.002
    assert mean_seconds(stored("a", sides[0], 0.9, 2.0, mean=3.0).record) == 0.003


def test_models_that_another_beats_are_left_out(sides):
    points = {"slow": (0.9, 8.0), "fast": (0.8, 1.0), "beaten": (0.7, 2.0), "middle": (0.85, 3.0)}
    candidates = [stored(key, sides[0], *point) for key, point in points.items()]
    front = front_of(candidates, [each.record for each in candidates])
    assert [each.key for each in front] == ["fast", "middle", "slow"]
    assert front_of(candidates, [candidates[2].record])[0].key == "beaten"


def test_the_rule_is_that_of_the_answers_on_validation(sides):
    messages = []
    fitted = fit(*sides, 60.0, "confidence", RunContext(log=messages.append))
    encoded = encode(TASK, "validation", TOKENIZER)
    small, large = (predict(each.model, encoded) for each in sides)
    expected = fit_cascade(small, large, 0.6)
    assert fitted.exits == expected.exits
    np.testing.assert_array_equal(fitted.heads, expected.heads)
    assert f"the smaller model answers {100 * fitted.shares[0]:.0f} %" in messages[0]
    fact = cascade_fact(fitted)
    assert (fact.name, fact.split, fact.n) == (CASCADE, "validation", 64)
    assert fact.value == fitted.shares[0]
    assert fact.is_prediction


def test_a_rule_that_no_text_shows_is_refused(sides):
    with pytest.raises(InputError, match=r"of 64 validation texts the smaller model answers none .* at most 0\.1 %"):
        fit(*sides, 0.1, "confidence", RunContext())


def test_a_pair_pays_by_the_times_of_both(sides):
    candidates = [stored("s", sides[0], 0.8, 1.0), stored("l", sides[1], 0.9, 10.0)]
    (pair,) = find_pairs(candidates, 60.0, "confidence", RunContext())
    fitted = fit(*sides, 60.0, "confidence", RunContext())
    assert (pair.small, pair.large) == ("s", "l")
    assert pair.seconds == pytest.approx((1 + 10 * fitted.shares[1]) / 10)
    assert f"{100 * fitted.shares[0]:.0f} % of the validation texts need the first alone" in str(pair)
    pairs = find_pairs(candidates, 60.0, "confidence", RunContext(target=Target(batch=2)))
    assert [each.seconds for each in pairs] == pytest.approx([(1 + 10 * (1 - fitted.shares[0] ** 2)) / 10])
    assert find_pairs([candidates[0], stored("l", sides[1], 0.9, 1.01)], 60.0, "confidence", RunContext()) == []


def test_both_have_to_read_the_same_tokens(sides, make_model, tmp_path):
    small, large = sides

    def reason(first, second):
        answers = [split_answers(each, "validation", 32, RunContext()) for each in (first, second)]
        return difference(first, second, tuple(answers))

    assert reason(small, large) == ""
    other = replace(TASK, splits={**TASK.splits, "train": TASK.split("train").take(range(3))})
    words = toy_tokenizer(other)
    if words.get_vocab() != TOKENIZER.get_vocab():
        stranger = exported(make_model, tmp_path / "other", tokenizer=words)
        assert reason(stranger, large) == "have different vocabularies"
        with pytest.raises(InputError, match="the two models have different vocabularies; both should read the same"):
            fit(stranger, large, 60.0, "confidence", RunContext())
        candidates = [stored("s", stranger, 0.8, 1.0), stored("l", large, 0.9, 10.0)]
        assert find_pairs(candidates, 60.0, "confidence", RunContext()) == []
    assert reason(replace(small, task=replace(TASK, max_length=9)), large) == "cut texts after 9 and 32 tokens"


def test_both_have_to_have_the_same_labels_in_the_same_order(sides):
    small, large = sides
    names = list(TASK.label_names)
    small.model.config["id2label"] = dict(enumerate([*names[1:], names[0]]))
    reason = f"have other labels: {', '.join([*names[1:], names[0]])} and {', '.join(names)}"
    answers = [split_answers(each, "validation", 32, RunContext()) for each in sides]
    assert difference(small, large, tuple(answers)) == reason
    with pytest.raises(InputError, match=f"the two models {reason}; both should have the same labels in the same"):
        fit(small, large, 60.0, "confidence", RunContext())
    candidates = [stored("s", small, 0.8, 1.0), stored("l", large, 0.9, 10.0)]
    assert find_pairs(candidates, 60.0, "confidence", RunContext()) == []


def test_a_graph_that_answers_otherwise_is_noticed(sides, tmp_path):
    fitted = fit(*sides, 60.0, "confidence", RunContext())
    small, large = (each.model for each in sides)
    cascade = write_cascade(small, large, tmp_path / "made", threshold=fitted.exits.threshold)
    assert check_answers(cascade, *sides, fitted.exits) < 1e-5
    turned = write_cascade(large, small, tmp_path / "turned", threshold=fitted.exits.threshold)
    with pytest.raises(LimbeckError, match="of the first 100 validation texts have other answers in one graph"):
        check_answers(turned, *sides, fitted.exits)
