from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.candidate import Record
from limbeck.core.measurement import FLOAT_PARTS, Measurement
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.statistics import pack, wilson
from limbeck.core.step import REGISTRY, Choice, RunContext, Teacher
from limbeck.core.target import Budget
from limbeck.errors import LimbeckError
from limbeck.techniques.selection import Best, Cheapest, Front, Top


def record(key, quality=None, latency_ms=None, size_mb=None, traits=(), test_quality=None):
    facts = []
    if quality is not None:
        facts.append(Measurement("quality", quality, "1", split="validation"))
    if test_quality is not None:
        facts.append(Measurement("quality", test_quality, "1", split="test"))
    if latency_ms is not None:
        facts.append(Measurement("latency_p50", latency_ms / 1e3, "s"))
    if size_mb is not None:
        facts.append(Measurement("size", size_mb * 1e6, "B"))
    return Record(key, None, "finetune", traits=frozenset(traits), facts=tuple(facts))


TEACHER = record("teacher", 0.90, 20.0, 90.0, traits={"teacher", "torch"})
RECORDS = [
    TEACHER,
    record("exported", 0.90, 9.0, 90.0, traits={"onnx"}),
    record("small", 0.88, 3.0, 40.0),
    record("smaller", 0.86, 2.0, 30.0),
    record("worse", 0.85, 2.5, 35.0),
]


def choose(step, records=RECORDS, teacher=TEACHER, **budget):
    source = Teacher("teacher", lambda: None, teacher)
    context = RestrictedContext(RunContext(budget=Budget(**budget), teacher=source), step.info)
    return step.choose(records, context)


def keys(records):
    return [record.key for record in records]


@pytest.mark.parametrize("name", ["front", "best", "cheapest", "top"])
def test_choices_are_registered_and_say_what_they_do(name):
    choice = REGISTRY[name].of(**REGISTRY[name].info.example)
    assert isinstance(choice, Choice)
    assert choice.__doc__.splitlines()[0].endswith(".")


def test_front_keeps_what_nothing_beats_in_the_given_order():
    assert keys(choose(Front())) == ["exported", "small", "smaller"]
    assert keys(choose(Front(("size",)))) == ["smaller"]


def test_front_leaves_out_what_cannot_be_compared():
    assert "unmeasured" not in keys(choose(Front(), [*RECORDS, record("unmeasured", 0.99)]))
    with pytest.raises(LimbeckError, match="fact 'latency_p50'"):
        choose(Front(), [record("unmeasured", 0.99)])
    with pytest.raises(LimbeckError, match="has all of quality, latency_p50"):
        choose(Front(), [record("a", 0.99), record("b", latency_ms=1.0)])
    assert choose(Front(), []) == []


def test_best_is_the_most_accurate_within_the_budget():
    assert keys(choose(Best(), latency_ms=3.5)) == ["small"]
    assert keys(choose(Best(), latency_ms=2.6)) == ["smaller"]
    assert keys(choose(Best())) == ["exported"]  # as accurate as the teacher, and faster
    assert keys(choose(Best(), size_mb=32)) == ["smaller"]


def test_cheapest_is_the_fastest_within_the_allowed_loss():
    assert keys(choose(Cheapest(), max_drop=2.5)) == ["small"]
    assert keys(choose(Cheapest(), max_drop=1.0)) == ["exported"]
    assert keys(choose(Cheapest())) == ["smaller"]


def test_a_teacher_that_did_not_reach_the_choice_is_compared_with_and_not_chosen():
    teacher = record("teacher", 0.99, 1.0)
    assert keys(choose(Best(), RECORDS[1:], teacher)) == ["exported"]
    assert keys(choose(Cheapest(), RECORDS[1:], teacher, max_drop=12.0)) == ["small"]


def test_without_a_teacher_no_loss_can_be_stated():
    for teacher in (None, record("teacher")):
        assert keys(choose(Cheapest(), RECORDS[1:], teacher, max_drop=1.0)) == ["smaller"]


def test_the_nearest_says_what_it_breaks():
    (chosen,) = choose(Best(), latency_ms=1.9)
    assert chosen.key == "smaller"
    assert chosen.notes == ("no candidate meets the budget; this is the nearest of 5: latency 2.00 ms > 1.9 ms",)
    (chosen,) = choose(Cheapest(), latency_ms=2.0, max_drop=1.0)
    assert chosen.key in {"small", "smaller"}
    assert RECORDS[2].notes == ()


def test_a_candidate_that_was_not_timed_does_not_meet_a_latency():
    unmeasured = record("unmeasured", 0.99)
    assert keys(choose(Best(), [*RECORDS, unmeasured], latency_ms=3.5)) == ["small"]


def test_quality_is_judged_on_validation_where_it_was_measured():
    lucky = record("lucky", 0.80, 3.0, test_quality=0.95)
    assert keys(choose(Best(), [*RECORDS, lucky], latency_ms=3.5)) == ["small"]
    assert keys(choose(Best(), [record("only", None, 3.0, test_quality=0.95)], latency_ms=3.5)) == ["only"]


def test_top_ranks_by_one_fact():
    assert keys(choose(Top(k=2))) == ["exported", "teacher"]  # as accurate, and faster
    assert keys(choose(Top(k=2, by="latency_p50"))) == ["smaller", "worse"]
    assert len(choose(Top(k=99))) == len(RECORDS)


def test_top_takes_the_fastest_of_those_that_are_not_shown_to_be_worse():
    records = [answering("slow", range(48), 3.0), answering("fast", range(49), 2.0), answering("bad", range(99), 1.0)]
    first, second = choose(Top(k=2), records)
    assert (first.key, second.key) == ("fast", "slow")
    assert first.notes[-1].startswith("undecided: slow is ahead of")
    assert second.notes == ()
    assert keys(choose(Top(k=2), records, confidence=0.5)) == ["slow", "fast"]
    near = [answering("a", range(60), 2.00), answering("b", range(50), 2.01), answering("c", range(10), 3.0)]
    assert keys(choose(Top(k=2, by="latency_p50"), near)) == ["b", "a"]
    assert keys(choose(Top(k=2, by="latency_p50"), near, confidence=0.5)) == ["a", "b"]
    assert keys(choose(Top(k=1, by="size"), [answering("x", (), 1.0, 10.001), answering("y", (), 9.0)])) == ["y"]


def answering(key, wrong, latency_ms, size_mb=10.0, n=500):
    """A record whose answers to these rows are wrong; times have intervals of a few per cent."""
    correct = np.full(n, True)
    correct[list(wrong)] = False
    detail = {"metric": "accuracy", "correct": pack(correct)}
    quality = Measurement("quality", float(correct.mean()), "1", n=n, split="validation", detail=detail)
    times = Measurement("latency_p50", latency_ms / 1e3, "s", 0.98 * latency_ms / 1e3, 1.02 * latency_ms / 1e3)
    size = Measurement("size", size_mb * 1e6, "B")
    return Record(key, None, "finetune", traits=frozenset({"int8"}), facts=(quality, times, size))


WHOLE = answering("whole", range(50), 9.0)
SMALL = answering("small", range(48), 3.0)
DOUBTFUL = answering("doubtful", [*range(40, 44), *range(100, 150)], 2.0)  # 0.8 points lost, but 90 texts differ


def test_a_loss_that_is_within_the_limit_by_luck_is_not_accepted():
    records = [WHOLE, SMALL, DOUBTFUL]
    assert keys(choose(Cheapest(), records, WHOLE, max_drop=1.0, confidence=0.5)) == ["doubtful"]
    (chosen,) = choose(Cheapest(), records, WHOLE, max_drop=1.0)
    assert chosen.key == "small"
    assert chosen.notes[-1].startswith("not chosen: doubtful, within 1 only with probability")
    (closest,) = choose(Cheapest(), [DOUBTFUL], WHOLE, max_drop=1.0)
    assert "more validation texts would decide" in closest.notes[-1]


def test_best_keeps_the_fastest_of_those_that_are_not_shown_to_be_worse():
    records = [WHOLE, SMALL, answering("fast", range(49), 2.0), answering("bad", range(99), 1.0)]
    (chosen,) = choose(Best(), records, WHOLE, latency_ms=10.0)
    assert chosen.key == "fast"
    assert chosen.notes[-1].startswith("undecided: small is ahead of")
    assert keys(choose(Best(), records, WHOLE, latency_ms=10.0, confidence=0.5)) == ["small"]


def test_cheapest_keeps_the_most_accurate_of_those_that_are_not_measurably_slower():
    records = [answering("a", range(60), 2.00), answering("b", range(50), 2.01), WHOLE]
    assert keys(choose(Cheapest(), records, WHOLE)) == ["b"]
    assert keys(choose(Cheapest(), records, WHOLE, confidence=0.5)) == ["a"]


def test_what_breaks_the_budget_takes_nobodys_place():
    """A model with parts in float is within the loss; a smaller and faster one all in 8 bits is not shown to be so."""
    safe = answering("safe", range(1, 50), 4.0, 12.0)
    safe = replace(safe, facts=(*safe.facts, Measurement(FLOAT_PARTS, 3.0, "1", n=26)))
    records = [WHOLE, safe, DOUBTFUL]
    for step, other in ((Cheapest(), {}), (Best(), {"latency_ms": 5.0})):
        (chosen,) = choose(step, records, WHOLE, max_drop=1.0, **other)
        assert chosen.key == "safe"
        assert not any("left out" in note for note in chosen.notes)
    (chosen,) = choose(Cheapest(), [*records, SMALL], WHOLE, max_drop=1.0)  # which meets it
    assert chosen.key == "small"
    assert chosen.notes[0].startswith("safe is left out: with 3 of 26 parts in float")


@pytest.mark.parametrize("seed", range(40))
def test_confidence_one_half_compares_numbers_as_before(seed):
    """On random fronts: the first by the old order of those whose numbers meet the limits, or the nearest."""
    rng = np.random.default_rng(seed)
    records = [
        answering(f"r{i}", rng.choice(500, rng.integers(20, 80), replace=False), rng.uniform(1, 9), rng.uniform(5, 90))
        for i in range(8)
    ]
    budget = {"max_drop": float(rng.uniform(0, 6)), "latency_ms": float(rng.uniform(0.5, 9))}
    facts = [(record, *(record.fact(name).value for name in ("quality", "latency_p50"))) for record in records]
    whole = facts[0][1]
    orders = {Best(): lambda entry: (-entry[1], entry[2]), Cheapest(): lambda entry: (entry[2], -entry[1])}
    for step, order in orders.items():
        meeting = [
            entry
            for entry in facts
            if 100 * (whole - entry[1]) <= budget["max_drop"] + 1e-9 and entry[2] * 1e3 <= budget["latency_ms"] + 1e-9
        ]
        excess = lambda entry: (  # noqa: E731
            max(0.0, entry[2] * 1e3 / budget["latency_ms"] - 1)
            + max(0.0, 100 * (whole - entry[1]) - budget["max_drop"]) / max(budget["max_drop"], 1.0)
        )
        expected = min(meeting, key=order) if meeting else min(facts, key=lambda entry: (excess(entry), *order(entry)))
        assert keys(choose(step, records, records[0], **budget, confidence=0.5)) == [expected[0].key]


@pytest.mark.parametrize("step", [Best(), Cheapest(), Front()], ids=lambda step: step.info.name)
def test_the_order_of_the_records_does_not_matter(step):
    expected = sorted(keys(choose(step, latency_ms=3.5)))
    for shuffled in itertools.islice(itertools.permutations(RECORDS), 0, 120, 7):
        assert sorted(keys(choose(step, list(shuffled), latency_ms=3.5))) == expected


def flipping(key, share, latency_ms, test_share=0.0):
    flips = [
        Measurement("flips", value, "1", split=split) for split, value in (("validation", share), ("test", test_share))
    ]
    flipped = record(key, 0.9, latency_ms)
    return replace(flipped, facts=(*flipped.facts, *flips))


def test_flips_are_limited_on_validation_whatever_the_test_texts_say():
    records = [flipping("whole", 0.0, 4.0), flipping("near", 0.02, 3.0, 0.5), flipping("far", 0.04, 2.0)]
    assert keys(choose(Cheapest(), records, max_flips=2.0)) == ["near"]
    assert keys(choose(Cheapest(), [*records, record("unknown", 0.9, 1.0)], max_flips=2.0)) == ["near"]
    (chosen,) = choose(Cheapest(), records[1:], max_flips=1.0)
    assert chosen.notes == (
        "no candidate meets the budget; this is the nearest of 2: 2.0 % of the answers changed > 1 %",
    )
    with pytest.raises(LimbeckError, match="no candidate has the fact 'flips'"):
        choose(Cheapest(), [record("unknown", 0.9, 1.0)], max_flips=1.0)


def test_flips_within_the_limit_by_luck_are_not_accepted():
    """Three of a hundred answers changed: the true share may as well be more than 3 %."""

    def changing(key, changed, latency_ms, n=100):
        flips = Measurement("flips", *_with_interval(changed, n), n=n, split="validation")
        flipped = record(key, 0.9, latency_ms)
        return replace(flipped, facts=(*flipped.facts, flips))

    records = [changing("whole", 0, 9.0), changing("sure", 0, 4.0), changing("lucky", 3, 2.0)]
    (chosen,) = choose(Cheapest(), records, records[0], max_flips=3.0)
    assert chosen.key == "sure"
    assert chosen.notes[-1].startswith("not chosen: lucky, within 3 % only with probability 0.4")
    assert keys(choose(Cheapest(), records, records[0], max_flips=3.0, confidence=0.5)) == ["lucky"]
    assert keys(choose(Cheapest(), [changing("many", 30, 2.0, 2000)], records[0], max_flips=3.0)) == ["many"]
    (nearest,) = choose(Cheapest(), [changing("two", 2, 2.0)], records[0], max_flips=3.0)
    assert "2.0 % of the answers changed, within 3 % only with probability 0.7" in nearest.notes[-1]
    assert "more validation texts would decide" in nearest.notes[-1]


def _with_interval(changed, n):
    share, low, high = wilson(changed, n)
    return share, "1", low, high


def timed(key, quality, **milliseconds):
    facts = tuple(Measurement(f"latency_{name}", value / 1e3, "s") for name, value in milliseconds.items())
    return replace(record(key, quality), facts=(*record(key, quality).facts, *facts))


UNEVEN = [timed("steady", 0.9, p50=3.0, mean=3.1, p99=3.5), timed("early", 0.9, p50=1.0, mean=2.0, p99=6.0)]


@pytest.mark.parametrize(("statistic", "expected"), [("p50", "early"), ("mean", "early"), ("p99", "steady")])
def test_the_budget_says_which_time_counts(statistic, expected):
    for step in (Front(), Front(("quality", "latency")), Best(), Cheapest(), Top(k=1, by="latency"), Top(k=1)):
        assert keys(choose(step, UNEVEN, latency_statistic=statistic)) == [expected], step
    assert keys(choose(Front(("quality", "latency_p99")), UNEVEN, latency_statistic=statistic)) == ["steady"]
    assert keys(choose(Best(), UNEVEN, latency_statistic=statistic, latency_ms=3.6)) == [expected]


def test_a_statistic_that_was_not_measured_is_named():
    with pytest.raises(LimbeckError, match="no candidate has the fact 'latency_mean'"):
        choose(Cheapest(), RECORDS, latency_statistic="mean", latency_ms=3.0)
