"""The rule by which heads answer early, and how its threshold is found."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from limbeck.core.early_exits import (
    EarlyExits,
    agreements,
    answering_heads,
    exits_in,
    fit_exits,
    refusal,
    thresholds,
    usual_layers,
)
from limbeck.core.measurement import EARLY_EXITS
from limbeck.core.statistics import largest_share
from limbeck.core.step import find
from limbeck.errors import InputError

CRITERIA = ("confidence", "entropy", "patience")


def random_logits(heads=4, rows=200, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(rows, classes))
    sharpness = np.arange(1, heads + 1)[:, None, None]
    return sharpness * (truth + rng.normal(size=(heads, rows, classes)) / sharpness)


def slow_head(exits, row):
    """The head that answers one text [heads, classes], head by head."""
    agreed, before = 0, None
    for head, logits in enumerate(row[:-1]):
        weights = [math.exp(value - logits.max()) for value in logits]
        shares = [weight / sum(weights) for weight in weights]
        answer = shares.index(max(shares))
        agreed = agreed + 1 if answer == before else 0
        before = answer
        sure = {
            "confidence": max(shares) >= exits.threshold,
            "entropy": -sum(share * math.log(share) for share in shares) <= exits.threshold,
            "patience": agreed >= exits.threshold,
        }
        if sure[exits.criterion]:
            return head
    return len(row) - 1


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_first_sure_head_answers(criterion):
    logits = random_logits()
    for threshold in (0.5, 0.7, 1.0, 2.0):
        exits = EarlyExits((1, 2, 3), criterion, threshold)
        expected = [slow_head(exits, logits[:, row]) for row in range(logits.shape[1])]
        assert answering_heads(exits, logits).tolist() == expected
    assert set(answering_heads(EarlyExits((1, 2, 3), criterion), logits)) == {3}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_thresholds_go_from_strict_to_lenient(criterion):
    logits, tried = random_logits(heads=5), thresholds(criterion, 4, 3)
    heads = [answering_heads(EarlyExits((1, 2, 3, 4), criterion, each), logits) for each in tried]
    assert all((later <= earlier).all() for earlier, later in pairwise(heads))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_most_lenient_threshold_that_is_shown_to_hold_is_kept(criterion):
    logits, exits = random_logits(rows=2000), EarlyExits((1, 2, 3), criterion)
    fitted = fit_exits(exits, logits, 0.10)
    changed = logits[fitted.heads, np.arange(2000)].argmax(-1) != logits[-1].argmax(-1)
    assert fitted.changed == changed.sum() > 0
    assert fitted.highest == largest_share(int(changed.sum()), 2000) <= 0.10
    assert fitted.leaving == (fitted.heads < 3).sum() > 0
    assert sum(fitted.shares) == pytest.approx(1)
    tried = thresholds(criterion, 3, 3)
    if (after := tried.index(fitted.exits.threshold) + 1) < len(tried):
        heads = answering_heads(EarlyExits((1, 2, 3), criterion, tried[after]), logits)
        others = logits[heads, np.arange(2000)].argmax(-1) != logits[-1].argmax(-1)
        assert largest_share(int(others.sum()), 2000) > 0.10


@pytest.mark.parametrize("criterion", ["confidence", "entropy"])
def test_models_that_are_sure_of_wrong_answers_leave_by_a_stricter_threshold(criterion):
    """The inner head is wrong on a tenth of the texts, with probability 0.9997, and right with 0.99999 on the rest."""
    rows = 1000
    last = np.tile([0.0, 20.0], (rows, 1))
    inner = np.tile([0.0, 12.0], (rows, 1))
    inner[:100] = [8.0, 0.0]
    fitted = fit_exits(EarlyExits((1,), criterion), np.stack([inner, last]), 0.01)
    assert (fitted.changed, fitted.leaving) == (0, 900)


def test_too_few_texts_show_nothing():
    same = np.stack([random_logits(heads=1, rows=20)[0]] * 3)
    fitted = fit_exits(EarlyExits((1, 2)), same, 0.01)
    assert (fitted.exits.threshold, fitted.leaving, fitted.shares) == (None, 0, [0.0, 0.0, 1.0])
    assert fit_exits(EarlyExits((1, 2)), np.tile(same, (1, 20, 1)), 0.01).leaving > 0


def test_heads_that_are_never_sure_are_left_out():
    logits = np.concatenate([np.zeros((2, 2000, 4)), random_logits(heads=1, rows=2000, classes=4)])
    fitted = fit_exits(EarlyExits((1, 2)), logits, 0.5)
    assert (fitted.exits.threshold, fitted.changed, fitted.highest) == (None, 0, 0.0)


def test_the_fact_says_what_the_rule_does():
    fitted = fit_exits(EarlyExits((1, 2, 3)), random_logits(rows=2000), 0.1)
    fact = fitted.fact("validation")
    assert (fact.name, fact.n, fact.split) == (EARLY_EXITS, 2000, "validation")
    assert fact.value == fitted.leaving / 2000
    assert fact.is_prediction  # of how the candidate was made: it does not count as measured
    assert fact.detail["threshold"] == fitted.exits.threshold


def test_agreements_are_counted_from_the_last_change():
    assert agreements(np.array([[0, 1], [0, 2], [1, 2], [1, 2]])).tolist() == [[0, 0], [1, 0], [0, 1], [1, 2]]


@pytest.mark.parametrize("depth", range(1, 25))
def test_the_usual_heads_stand_before_the_last_layer(depth):
    layers = usual_layers(depth)
    assert all(1 <= layer < depth for layer in layers)
    assert len(layers) == min(2, depth - 1)


GOOD = {"layers": [1, 3], "criterion": "entropy", "threshold": 0.5}


def test_a_configuration_reads_back():
    assert exits_in({"early_exits": GOOD, "layer_heads": [2] * 4}).to_json() == GOOD
    assert exits_in({}) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layers": []}, "whole numbers from 1, ascending, got"),
        ({"layers": [2, 2]}, "whole numbers from 1, ascending, got"),
        ({"layers": [0]}, "whole numbers from 1, ascending, got"),
        ({"layers": ["1"]}, "whole numbers from 1, ascending, got"),
        ({"layers": [1, 4]}, "a head after 4 layers, and the model has 4; the last may stand after 3"),
        ({"criterion": "entropi"}, "entropy"),
        ({"criterion": ["entropy"]}, "criterion"),
        ({"threshold": "high"}, "a number from 0 to 1000, got"),
        ({"threshold": float("nan")}, "a number from 0 to 1000, got"),
        ({"more": 1}, "should have layers, criterion and threshold"),
    ],
)
def test_a_damaged_configuration_is_refused(change, reason):
    with pytest.raises(InputError, match=reason):
        exits_in({"early_exits": GOOD | change, "layer_heads": [2] * 4})


def test_only_what_keeps_the_weights_follows_early_exits():
    import limbeck.techniques  # noqa: F401 registers the steps

    for name in ("finetune", "prune", "distill", "early_exit", "search"):
        assert "would change the weights" in refusal(find(name).info, {"torch", "exits"})
        assert not refusal(find(name).info, {"torch"})
    for name in ("export", "augment", "quantize", "latency"):
        assert not refusal(find(name).info, {"torch", "exits"})


def test_what_takes_a_single_graph_is_refused_after_a_cascade():
    reason = "is for single models, and a cascade holds two; put it before 'cascade'"
    traits = {"onnx", "cascade"}
    assert refusal(find("quantize").info, traits) == reason
    assert refusal(find("cascade").info, traits) == reason
    assert refusal(find("latency").info, traits) == ""
    assert refusal(find("quantize").info, {"onnx"}) == ""
