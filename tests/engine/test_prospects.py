"""Runs with a limit of time leave out trainings whose result could not be chosen, and say why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from limited_runs import LOOSE, left_out, widths

from limbeck.core.candidate import lineage
from limbeck.core.target import Budget, Evidence
from limbeck.distributed.config import ExecutorConfig
from limbeck.engine import prospects
from limbeck.errors import InputError
from limbeck.recipe.recipe import Fork, placed_steps
from limbeck.techniques.selection import Best, Cheapest


def tested(monkeypatch, **probability):
    """Let the limit on quality hold with a probability by the width of the model."""

    def evidence(record, whole, budget):
        share = probability.get(f"w{record.shape.layers[0].ffn}")
        return {} if share is None else {"max_drop": Evidence(share)}

    monkeypatch.setattr(prospects, "evidence_of", evidence)


def test_without_a_limit_everything_is_made(limited, family):
    result = limited(*family(4, 6), budget=LOOSE)
    assert (widths(result), left_out(limited)) == ([4, 6, 8], [])


def test_what_is_slower_than_a_model_within_the_budget_is_left_out(limited, family):
    result = limited(*family(4, 6), budget=LOOSE, max_minutes=60)
    assert widths(result) == [4, 8]
    (message,) = left_out(limited)
    assert message.startswith("steps[1].fork[2][1].toy-train: toy-train · toy-levels to ")
    assert "it takes about 6.00 ms, and 'toy-train · toy-levels to " in message
    assert message.endswith("(about 4.00 ms) is faster and meets the budget")
    assert result.ok
    assert widths(limited(*family(6, 4), budget=LOOSE, max_minutes=60, folder="faster")) == [4, 6, 8]
    accurate = family(4, 6, choice=Best())
    assert widths(limited(*accurate, budget=LOOSE, max_minutes=60, folder="best")) == [4, 6, 8]


def test_a_difference_within_the_error_of_the_prediction_decides_nothing(limited, family, monkeypatch):
    monkeypatch.setattr(prospects, "MARGIN", 2.0)
    assert widths(limited(*family(4, 6), budget=LOOSE, max_minutes=60)) == [4, 6, 8]


def test_what_cannot_meet_the_latency_is_left_out(limited, family):
    result = limited(*family(4, 2), budget=Budget(latency_ms=3.0), max_minutes=60)
    assert widths(result) == [2, 8]
    assert left_out(limited)[0].endswith("it takes about 4.00 ms, more than 3 ms")


def test_what_is_smaller_than_a_model_that_surely_breaks_a_limit_is_left_out(limited, family, monkeypatch):
    tested(monkeypatch, w6=0.1)
    result = limited(*family(6, 4), budget=Budget(max_drop=1.0), max_minutes=60)
    assert widths(result) == [6, 8]
    assert left_out(limited)[0].endswith("(about 6.00 ms), which breaks max_drop, and is trained alike")
    other = family(6, (4, 0.75))
    assert widths(limited(*other, budget=Budget(max_drop=1.0), max_minutes=60, folder="other")) == [4, 6, 8]
    tested(monkeypatch, w6=0.5)  # it may still hold
    assert widths(limited(*family(6, 4), budget=Budget(max_drop=1.0), max_minutes=60, folder="open")) == [4, 6, 8]


def test_a_smaller_model_that_is_cut_in_another_way_is_not_judged_by_a_larger_one(limited, toys, monkeypatch):
    tested(monkeypatch, w6=0.1)
    for number, (criterion, expected) in enumerate((("magnitude", [4, 6, 8]), ("obs", [6, 8]))):
        branches = [
            (toys.ToyLevels((width,), goal=True, criterion=how), toys.ToyTrain(by=0.5), toys.ToyExport())
            for width, how in ((6, criterion), (4, "obs"))
        ]
        steps = (toys.ToyTrain(), Fork(((), *branches)), toys.ToyQuality(), toys.ToyClock(), Cheapest())
        result = limited(*steps, budget=Budget(max_drop=1.0), max_minutes=60, folder=f"run{number}", seed=number)
        assert widths(result) == expected


def test_a_step_declares_which_fields_are_sizes(limited, family, toys, monkeypatch):
    """Models that differ in another field are made in other ways, and the larger says nothing of the smaller."""
    tested(monkeypatch, w6=0.1)
    monkeypatch.setattr(toys.ToyLevels, "info", replace(toys.ToyLevels.info, sizes=frozenset()))
    assert widths(limited(*family(6, 4), budget=Budget(max_drop=1.0), max_minutes=60)) == [4, 6, 8]


def test_finished_models_are_shown_as_they_come(limited, family):
    result = limited(*family(4), budget=LOOSE, max_minutes=60)
    shown = [event["message"] for event in limited.events if event["kind"] == "finished_model"]
    assert [message.rsplit(" · ", 1)[-1].split(",")[0] for message in shown] == ["toy-train", "ONNX"]
    assert shown[1].endswith("on validation, about 4.00 ms")
    kinds = [event["kind"] for event in limited.events]
    assert kinds.index("finished_model") < max(n for n, kind in enumerate(kinds) if kind == "facts")
    assert replace(result.recipe, max_minutes=None) != result.recipe


def test_stages_are_not_judged_by_the_first_of_them(limited, toys):
    """Later ones are faster than the model that would leave the first one out."""
    fast = (toys.ToyLevels((4,), goal=True), toys.ToyTrain(by=0.5), toys.ToyExport())
    deeper = (toys.ToyPrune(0.25), toys.ToyTrain(by=0.5), toys.ToyExport())
    staged = (toys.ToyLevels((7,), goal=True), toys.ToyTrain(by=0.5), Fork(((toys.ToyExport(),), deeper)))
    steps = (toys.ToyTrain(), Fork(((), fast, staged)), toys.ToyQuality(), toys.ToyClock(), Cheapest())
    assert widths(limited(*steps, budget=LOOSE, max_minutes=60)) == [1, 4, 7, 8]


def test_workers_begin_everything_at_once(limited, family):
    with pytest.raises(InputError, match="max_minutes: is for runs in one process; the executor 'processes'"):
        ExecutorConfig(executor="processes").check(limited=True)


def test_of_two_models_in_one_no_time_is_predicted(limited, family):
    result = limited(*family(4), budget=LOOSE, max_minutes=60)
    key, records = result.front[-1], result.builder.records
    outlook = prospects.Prospects(result.builder, placed_steps(result.recipe), 60)
    assert "about 4.00 ms" in outlook.described(key)
    records[key] = replace(records[key], traits=records[key].traits | {"cascade"})
    assert "about" not in outlook.described(key)


def test_of_a_narrower_model_the_teacher_has_to_be_an_ancestor(limited, family, monkeypatch):
    """Else the latency table for its width is not one of the teacher's layers."""
    result = limited(*family(4), budget=LOOSE, max_minutes=60)
    key, records = result.front[-1], result.builder.records
    outlook = prospects.Prospects(result.builder, placed_steps(result.recipe), 60)
    for record in lineage(records, key)[2:]:
        records[record.key] = replace(record, shape=replace(record.shape, hidden=2))
    assert "about 4.00 ms" in outlook.described(key)
    monkeypatch.setattr(prospects, "descends", lambda records, key, teacher: False)
    assert "about" not in outlook.described(key)
