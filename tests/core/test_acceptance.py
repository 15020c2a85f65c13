"""Records that are accepted, tied, doubted or left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.acceptance import doubts, evidence_of, is_as_good, settled, without_pointless
from limbeck.core.candidate import Record
from limbeck.core.measurement import FLOAT_PARTS, Measurement
from limbeck.core.statistics import pack, wilson
from limbeck.core.target import Budget, Evidence


def record(key, wrong, size=1.0, float_parts=0, n=500):
    """A record whose answers to these rows are wrong."""
    correct = np.full(n, True)
    correct[list(wrong)] = False
    detail = {"metric": "accuracy", "correct": pack(correct)}
    facts = [Measurement("quality", float(correct.mean()), "1", n=n, split="validation", detail=detail)]
    facts += [Measurement("size", size, "B")]
    facts += [Measurement(FLOAT_PARTS, float(float_parts), "1", n=26)] if float_parts else []
    return Record(key, None, "quantize", traits=frozenset({"int8"}), facts=tuple(facts))


WHOLE = record("whole", range(50))


@pytest.mark.parametrize(("more", "as_good"), [(0, True), (1, True), (30, False)])
def test_as_good_is_what_is_not_shown_to_be_worse(more, as_good):
    assert is_as_good(0.8, record("other", [*range(50), *range(100, 100 + more)]), WHOLE) == as_good


def test_a_tie_is_settled_by_the_other_criterion_and_noted():
    records = [record("a", range(50), 3.0), record("b", range(51), 1.0), record("c", range(90), 0.5)]

    def by_size(each):
        return (each.fact("size").value,)

    accepted, notes = settled(records[0], records, lambda other, first: is_as_good(0.8, other, first), by_size)
    assert accepted.key == "b"
    assert notes[0].startswith("undecided: a is ahead of another candidate")
    assert settled(records[0], records[:1], lambda *_: True, by_size) == (records[0], [])


def test_what_its_own_float_parts_made_pointless_is_left_out():
    better = record("better", range(20), 2.0, float_parts=4)
    lucky = record("lucky", range(1, 50), 2.0, float_parts=4)
    smaller = record("smaller", range(50), 0.5, float_parts=4)
    accepted, notes = without_pointless([WHOLE, better, lucky, smaller], lambda _: True, 0.8, lambda *_: True)
    assert [each.key for each in accepted] == ["whole", "better", "smaller"]
    assert "lucky is left out: with 4 of 26 parts in float it is no faster and no smaller than whole" in notes[0]
    assert without_pointless([WHOLE, lucky], lambda _: True, 0.8, lambda *_: False) == ([WHOLE, lucky], [])
    assert without_pointless([WHOLE, lucky], lambda each: each is lucky, 0.8, lambda *_: True) == ([WHOLE, lucky], [])


def test_what_seems_to_meet_the_budget_is_named_with_what_would_decide():
    budget = Budget(max_drop=1.0)
    other = record("other", [*range(54), *range(100, 104)][4:])
    tests = evidence_of(other, WHOLE, budget)
    assert 0 < tests["max_drop"].probability < 0.8
    (note,) = doubts([other], {"other": tests}, budget)
    assert note.startswith("not chosen: other, within 1 only with probability")
    assert "more validation texts would decide" in note
    assert doubts([other], {"other": {"max_drop": Evidence(0.9)}}, budget) == []
    assert evidence_of(WHOLE, WHOLE, budget) == {"max_drop": Evidence(1.0)}


def test_the_first_that_is_doubted_is_named_with_each_limit_that_may_not_hold():
    budget = Budget(max_drop=1.0, max_flips=2.0)
    sure, both = {"max_drop": Evidence(0.9)}, {"max_drop": Evidence(0.6), "max_flips": Evidence(0.7, 50)}
    (note,) = doubts([WHOLE, record("other", [])], {"whole": sure, "other": both}, budget)
    assert note == (
        "not chosen: other, within 1 only with probability 0.60 < 0.8 and within 2 % only with probability 0.70 < 0.8 "
        "(about 50 more validation texts would decide)"
    )


def test_changed_answers_are_tested_also_where_no_loss_can_be_stated():
    flips = Measurement("flips", 0.03, "1", *wilson(3, 100)[1:], n=100, split="validation")
    other = replace(record("other", []), facts=(flips,))
    assert evidence_of(other, None, Budget(max_drop=1.0, max_flips=3.0)).keys() == {"max_flips"}
    own = replace(WHOLE, facts=(*WHOLE.facts, flips))
    assert evidence_of(own, WHOLE, Budget(max_flips=3.0)) == {"max_flips": Evidence(1.0)}
