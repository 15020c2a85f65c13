"""A combination in a run: what reached it stays, what it makes has two ancestors and is found and made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.core.target import Target
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.dry_run import plan
from limbeck.engine.pairing import choose_pairs
from limbeck.engine.result import read_result, retained_keys
from limbeck.engine.run_log import RunLog
from limbeck.engine.store.gc import collect
from limbeck.engine.store.ledger import Ledger
from limbeck.errors import LimbeckError
from limbeck.measure.latency import Latency
from limbeck.recipe.recipe import Fork


def steps_of(toys):
    return (toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyPair(), toys.ToyQuality())


def test_what_reached_it_stays_and_what_it_makes_is_added(go, toys):
    result = go(*steps_of(toys))
    wide, thin, both = result.front
    record = result.records[both]
    assert (record.step, record.parent, record.parameters["partner"]) == ("toy-pair", wide, thin)
    assert [record.step for record in result.ancestors(both)] == ["model", "toy-train", "toy-levels", "toy-pair"]
    models = [result.open(key).model for key in result.front]
    assert models[2].weights == [a + b for a, b in zip(models[0].weights, models[1].weights, strict=True)]
    assert models[2].ffn == 6
    assert record.fact("quality").value == sum(models[2].weights)


def test_a_resumed_run_is_the_uninterrupted_one(go, toys):
    first = go(*steps_of(toys))
    done = [call for call in toys.calls() if call.startswith("pair ")]
    again = go(*steps_of(toys))
    assert again.records == first.records
    assert again.front == first.front
    assert [call for call in toys.calls() if call.startswith("pair ")] == done == ["pair 4"]


def test_pairs_stay_although_times_were_measured_again(go, toys, monkeypatch):
    """The second session times all models beside each other, and replaces the facts of the first."""
    steps = (toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyClock(), toys.ToyPair(), toys.ToyClock())
    first = go(*steps)
    assert toys.calls().count("pairs") == 1
    monkeypatch.setattr(toys.ToyPair, "pairs", lambda *_: [])  # as other times might have it
    assert go(*steps).front == first.front
    assert len(go(*steps[:-2], toys.ToyPair(2.0)).front) == 2  # another step is another choice


def test_another_partner_or_field_is_another_candidate(go, toys):
    keys = {go(*steps_of(toys)).front[-1]}
    keys |= {go(toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyPair(2.0)).front[-1]}
    keys |= {go(toys.ToyTrain(1), toys.ToyLevels((4, 1)), toys.ToyPair()).front[-1]}
    assert len(keys) == 3


def test_other_facts_are_another_choice(go, toys):
    first = go(toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyQuality(), toys.ToyPair())
    assert go(toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyQuality(), toys.ToyPair()).front == first.front
    assert toys.calls().count("pairs") == 1
    go(toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyQuality(refuse=99), toys.ToyPair())
    assert toys.calls().count("pairs") == 2
    go(toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyQuality(), toys.ToyPair(), toys.ToyQuality(refuse=99))
    assert toys.calls().count("pairs") == 2


def test_pairs_are_those_of_the_machine_that_measured(go, toys, monkeypatch, tmp_path):
    result = go(toys.ToyTrain(1), toys.ToyLevels((4, 2)))
    builder, step = result.builder, toys.ToyPair()
    steps = (*result.recipe.steps, Latency(), step)
    builder.recipe = replace(result.recipe, steps=steps, target=Target(url="http://board:8765"))
    log = RunLog(tmp_path / "log", result.store, lambda event: None)
    for machine, choices in (("one", 1), ("two", 2), ("one", 2)):
        monkeypatch.setattr("limbeck.engine.services.machine_at", lambda url, machine=machine: machine)
        choose_pairs(builder, log, result.front, step, 0)
        assert toys.calls().count("pairs") == choices


@pytest.mark.parametrize("damage", ['{"pairs": [["a"]], "notes": []}', '{"pairs": [[1, 2]], "notes": []}', "[]", "{"])
def test_stored_pairs_that_are_damaged_are_chosen_again(go, toys, damage):
    first = go(*steps_of(toys))
    (path,) = (first.store.root / "memo").glob("pairs-*")
    path.write_text(damage)
    assert go(*steps_of(toys)).front == first.front
    assert toys.calls().count("pairs") == 2


def test_a_single_candidate_goes_on_alone_and_the_ledger_says_why(go, toys):
    result = go(toys.ToyTrain(1), toys.ToyPair(), toys.ToyQuality())
    assert [result.records[key].step for key in result.front] == ["toy-train"]
    assert result.ok
    notes = [event["message"] for event in Ledger(result.folder).read() if event["event"] == "note"]
    assert "no pair" in notes
    again = go(toys.ToyTrain(1), toys.ToyPair(), toys.ToyQuality())
    assert [event["message"] for event in Ledger(again.folder).last() if event["event"] == "note"].count("no pair") == 1
    assert toys.calls().count("pairs") == 1


def test_a_failed_choice_of_pairs_leaves_the_candidates(go, toys, monkeypatch):
    def refuse(self, candidates, context):
        raise LimbeckError("nothing fits")

    monkeypatch.setattr(toys.ToyPair, "pairs", refuse)
    result = go(*steps_of(toys))
    assert len(result.front) == 2
    assert [failure.error for failure in result.failed] == ["nothing fits"]


def test_it_is_made_again_from_both_when_the_store_has_lost_all(go, toys):
    result = go(*steps_of(toys))
    expected = result.open(result.front[-1]).model
    collect(result.store)
    builder = CandidateBuilder(result.recipe, toys.ToyTask(), result.store)
    builder.adopt(read_result(result.folder).records.values())
    assert builder.origins[result.front[-1]].step == replace(toys.ToyPair(), partner=result.front[1])
    assert builder.open(result.front[-1]).model == expected


def test_gc_keeps_it_while_the_run_is_unfinished(go, toys, tmp_path):
    result = go(*steps_of(toys), toys.ToyBreak(below=99))
    ledger = result.folder / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    retained = [
        line for line in lines if ('"finished"' not in line and "toy-pair" not in line) or '"event": "run"' in line
    ]
    ledger.write_text("\n".join(retained) + "\n")  # as if killed before it was written
    assert result.front == []
    keys = [record.key for record in result.records.values() if record.step == "toy-pair"]
    assert {*keys} <= retained_keys(result.folder)[1]


def test_replicas_repeat_both_models(go, toys):
    steps = (*steps_of(toys), toys.ToyClock(), toys.ToyWithin())
    result = go(*steps, replicas=2)
    (chosen,) = result.chosen
    (twin,) = result.replicas[chosen]
    record = result.records[twin]
    assert record.step == "toy-pair"
    assert record.parameters["partner"] not in (result.records[chosen].parameters["partner"], "")
    sides = [result.open(key).model.weights for key in (record.parent, record.parameters["partner"])]
    assert result.open(twin).model.weights == [a + b for a, b in zip(*sides, strict=True)]


def test_inside_a_fork_it_sees_the_branch_alone(go, toys):
    fork = Fork(((toys.ToyLevels((4, 2)), toys.ToyPair()), (toys.ToyPrune(0.125),)))
    result = go(toys.ToyTrain(1), fork, toys.ToyQuality())
    assert [result.records[key].step for key in result.front] == ["toy-levels", "toy-levels", "toy-pair", "toy-prune"]


def test_each_target_has_pairs_by_its_own_facts(go, toys, monkeypatch):
    requests = []

    def fast_ones(self, candidates, context):
        requests.append(context.target.threads)
        fast = [each.key for each in candidates if each.record.fact("latency_p50").value <= 2e-3]
        return [toys.Pair(fast[0], fast[-1])] if len(fast) > 1 else []

    several = {"targets": {"server": Target(threads=4), "laptop": Target()}}
    with monkeypatch.context() as patched:
        patched.setattr(toys.ToyPair, "pairs", fast_ones)
        result = go(
            toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyClock(), toys.ToyPair(), toys.ToyClock(), **several
        )
    assert {name: len(each.front) for name, each in result.targets.items()} == {"server": 3, "laptop": 2}
    assert requests == [4, 1]
    assert [call for call in toys.calls() if call.startswith("pair ")] == ["pair 4"]
    assert _notes_on_targets(result) == []  # the laptop has no pairs
    result = go(*steps_of(toys)[:2], toys.ToyPair(3.0), **several)
    message = "for the target 'laptop' pairs are chosen; what is made of them is fitted on the target 'server'"
    assert _notes_on_targets(result) == [message]


def _notes_on_targets(result):
    notes = [event["message"] for event in Ledger(result.folder).last() if event["event"] == "note"]
    return [note for note in notes if "is fitted on" in note]


def test_a_dry_run_before_and_after(go, toys, tmp_path):
    recipe = go(toys.ToyTrain(1)).recipe.__class__(str(tmp_path / "model"), "movie-reviews", steps_of(toys), name="toy")
    store = toys.store(tmp_path / "fresh")
    before = plan(recipe, store, task=toys.ToyTask())
    rows = [(row.step, row.candidates, row.done) for row in before.rows]
    assert rows[2:] == [("toy-pair", 1, False), ("toy-quality", 2, False)]
    assert before.rows[2].seconds == 3.0
    go(*steps_of(toys))
    after = plan(recipe, toys.store(tmp_path / "store"), task=toys.ToyTask())
    assert [(row.step, row.candidates, row.done) for row in after.rows[2:]] == [
        ("toy-pair", 2, True),
        ("toy-quality", 3, True),
    ]
    assert after.seconds == 0


def test_the_step_is_returned_with_its_partner(go, toys, tmp_path):
    result = go(toys.ToyTrain(1), toys.ToyLevels((4, 2)))
    assert choose_pairs(result.builder, None, [], toys.ToyPair(), 0) == []
    wide, thin = result.front

    log = RunLog(tmp_path / "log", result.store, lambda event: None)
    assert choose_pairs(result.builder, log, [wide, thin], toys.ToyPair(3.0), 0) == [
        (wide, toys.ToyPair(3.0, partner=thin))
    ]
