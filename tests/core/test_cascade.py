"""The rule of a cascade, what config.json says of it, and which pairs pay."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from limbeck.core.cascade import SECTION, Cascade, cascade_in, cascade_logits, fit_cascade, paying_pairs
from limbeck.core.early_exits import EarlyExits
from limbeck.core.pareto import dominates
from limbeck.errors import InputError

WHOLE = {"criterion": "confidence", "threshold": 0.9, "small": {"layer_heads": [2]}}


def models(count=4, rows=300, classes=3, seed=0):
    """Labels, and logits of models that get better one after the other."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    signal, noise = 4 * np.eye(classes)[labels], rng.normal(size=(rows, classes))
    return labels, [signal + (3 - 0.6 * index) * (noise + 0.3 * rng.normal(size=noise.shape)) for index in range(count)]


def test_config_json_reads_back():
    cascade = cascade_in({SECTION: WHOLE})
    assert cascade == Cascade("confidence", 0.9, {"layer_heads": [2]})
    assert cascade.to_json() == WHOLE
    assert cascade.exits == EarlyExits((1,), "confidence", 0.9)
    assert cascade_in({"early_exits": None}) is None


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ([], r"should have criterion, threshold and small, got \[\]"),
        ({"criterion": "confidence"}, "should have criterion, threshold and small"),
        (WHOLE | {"criterion": "patience"}, "criterion 'patience'; choose from"),
        (WHOLE | {"threshold": True}, "threshold should be a number from 0 to 1000, got True"),
        (WHOLE | {"threshold": -1}, "threshold should be a number from 0 to 1000, got -1"),
        (WHOLE | {"small": "model"}, "small should be the configuration of a model, got 'model'"),
    ],
)
def test_a_damaged_entry_is_refused(entry, reason):
    with pytest.raises(InputError, match=f"folder: cascade in config.json.*{reason}"):
        cascade_in({SECTION: entry}, "folder")


@pytest.mark.parametrize("criterion", ["confidence", "entropy"])
def test_answers_are_the_smaller_models_where_it_is_sure(criterion):
    _, (small, *_, large) = models()
    fitted = fit_cascade(small, large, 0.1, criterion)
    answers = cascade_logits(fitted.exits, small, large)
    weights = np.exp(small - small.max(-1, keepdims=True))
    shares = weights / weights.sum(-1, keepdims=True)
    threshold = fitted.exits.threshold
    sure = shares.max(-1) >= threshold if criterion == "confidence" else -(shares * np.log(shares)).sum(-1) <= threshold
    assert 0 < sure.mean() < 1
    np.testing.assert_array_equal(answers, np.where(sure[:, None], small, large))
    assert fitted.shares[0] == sure.mean()
    assert fitted.changed == (answers.argmax(-1) != large.argmax(-1)).sum() <= 0.1 * len(small)


def pairs_by_hand(logits, seconds, labels, most_changed):
    """All pairs of a faster and a slower model that save time, and that nothing beats."""

    def score(rows):
        return float((rows.argmax(-1) == labels).mean())

    points = {(index,): (score(rows), seconds[index]) for index, rows in enumerate(logits)}
    for small, large in combinations(range(len(logits)), 2):
        small, large = sorted((small, large), key=lambda index: seconds[index])
        exits = fit_cascade(logits[small], logits[large], most_changed).exits
        if exits.threshold is None:
            continue
        answers = cascade_logits(exits, logits[small], logits[large])
        goes_on = float((answers != logits[small]).any(-1).mean())
        expected = seconds[small] + goes_on * seconds[large]
        if goes_on and expected < seconds[large]:
            points[small, large] = (score(answers), expected)
    every = list(points.values())
    return {
        names: point[1]
        for names, point in points.items()
        if len(names) == 2 and not any(dominates(other, point, ("max", "min")) for other in every)
    }


@pytest.mark.parametrize("seed", range(5))
def test_pairs_that_pay_are_those_that_nothing_beats(seed):
    labels, logits = models(seed=seed)
    seconds = [1.0, 2.0, 4.0, 9.0]
    pairs = paying_pairs(logits, seconds, lambda rows: float((rows.argmax(-1) == labels).mean()), 0.1)
    expected = pairs_by_hand(logits, seconds, labels, 0.1)
    assert {(pair.small, pair.large): pytest.approx(pair.seconds) for pair in pairs} == expected
    assert expected
    shares = [pair.seconds / seconds[pair.large] for pair in pairs]
    assert shares == sorted(shares)


@pytest.mark.parametrize("batch", [2, 3])
def test_a_batch_goes_on_if_one_of_its_texts_does(batch):
    labels, logits = models(rows=2000)
    options = ([0.1, 20.0], lambda rows: float((rows.argmax(-1) == labels).mean()), 0.1, "confidence")
    (pair,) = paying_pairs(logits[::3], *options, batch=batch)
    goes_on = pair.fitted.heads == 1
    sampled = np.random.default_rng(1).integers(0, len(goes_on), (20_000, batch))
    assert pair.seconds == pytest.approx(0.1 + 20 * goes_on[sampled].any(axis=1).mean(), rel=0.02)
    assert paying_pairs(logits[::3], *options, batch=10_000) == []


def test_models_that_read_other_tokens_make_no_pair():
    labels, logits = models()
    options = ([1.0, 2.0, 4.0, 9.0], lambda rows: float((rows.argmax(-1) == labels).mean()), 0.1, "confidence")
    assert paying_pairs(logits, *options, lambda small, large: False) == []
    assert all(pair.large == 3 for pair in paying_pairs(logits, *options, lambda small, large: large == 3))


def test_a_smaller_model_that_is_hardly_faster_does_not_pay():
    labels, logits = models()
    assert paying_pairs(logits[::3], [0.99, 1.0], lambda rows: float((rows.argmax(-1) == labels).mean()), 0.02) == []
