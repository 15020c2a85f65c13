from __future__ import annotations

from types import SimpleNamespace

import pytest

from limbeck.core.candidate import Candidate, Record, lineage, lineage_key
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape


def test_the_newest_fact_of_a_name_is_found():
    facts = (
        Measurement("quality", 0.8, "1", split="validation"),
        Measurement("quality", 0.9, "1", split="test"),
        Measurement("quality", 0.85, "1", split="validation"),
    )
    record = Record("k", None, "finetune", facts=facts)
    assert record.fact("quality").value == 0.85
    assert record.fact("quality", "test").value == 0.9
    assert record.fact("size") is None


def test_the_lineage_leads_from_the_earliest_known_ancestor_to_the_record():
    records = {key: Record(key, parent, "step") for key, parent in (("a", None), ("b", "a"), ("c", "b"), ("d", "gone"))}
    assert [record.key for record in lineage(records, "c")] == ["a", "b", "c"]
    assert lineage(records, "a") == [records["a"]]
    assert lineage(records, "d") == [records["d"]]
    assert lineage(records, "absent") == []


@pytest.mark.parametrize(
    "change",
    [
        {"parent": "other"},
        {"step": "distill"},
        {"version": 2},
        {"parameters": {"epochs": 4}},
        {"reads": {"seed": 1}},
    ],
)
def test_every_part_of_the_lineage_changes_the_key(change):
    arguments = {"parent": "p", "step": "finetune", "version": 1, "parameters": {"epochs": 3}, "reads": {"seed": 0}}
    assert lineage_key(**arguments) == lineage_key(**dict(reversed(arguments.items())))
    assert lineage_key(**arguments) != lineage_key(**{**arguments, **change})


def test_records_and_candidates_are_shown_in_a_line():
    fact = Measurement("latency_p50", 1e-3, "s", detail={"rounds": list(range(999))})
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    record = Record("k", None, "prune", shape=shape, facts=(fact,) * 9)
    assert repr(record) == "Record(k, prune, 2x32 heads 4 of 8 ffn 64, 9 facts)"
    assert len(repr(fact)) < 200
    model, task = SimpleNamespace(shape=shape, runtime="torch"), SimpleNamespace(name="moods")
    assert repr(Candidate(model, None, task)) == "Candidate(2x32 heads 4 of 8 ffn 64, torch, task 'moods')"
